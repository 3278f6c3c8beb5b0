# The TlsRules object: certificates and rules that connections of TLS are made with. Included by engine.pyx.
#
# Owns an OpenSSL context, which never changes: renewed certificates are another object, and connections keep what they began with.

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct X509_NAMES "STACK_OF(X509_NAME)":
        pass
    const SSL_METHOD* TLS_server_method()
    SSL_CTX* SSL_CTX_new(const SSL_METHOD* method)
    long SSL_CTX_set_min_proto_version(SSL_CTX* ctx, int version)
    uint64_t SSL_CTX_set_options(SSL_CTX* ctx, uint64_t options)
    long SSL_CTX_set_mode(SSL_CTX* ctx, long mode)
    void SSL_CTX_set_verify(SSL_CTX* ctx, int mode, void* callback)
    int SSL_CTX_set_cipher_list(SSL_CTX* ctx, const char* list)
    int SSL_CTX_use_certificate_chain_file(SSL_CTX* ctx, const char* file)
    int SSL_CTX_use_PrivateKey_file(SSL_CTX* ctx, const char* file, int kind)
    int SSL_CTX_check_private_key(const SSL_CTX* ctx)
    int SSL_CTX_load_verify_locations(SSL_CTX* ctx, const char* file, const char* directory)
    X509_NAMES* SSL_load_client_CA_file(const char* file)
    void SSL_CTX_set_client_CA_list(SSL_CTX* ctx, X509_NAMES* names)
    long SSL_CTX_set_session_cache_mode(SSL_CTX* ctx, long mode)
    long SSL_CTX_sess_set_cache_size(SSL_CTX* ctx, long n)
    int SSL_CTX_set_num_tickets(SSL_CTX* ctx, size_t n)
    int SSL_CTX_set_max_send_fragment(SSL_CTX* ctx, long n)
    void SSL_CTX_set_max_cert_list(SSL_CTX* ctx, long n)
    void SSL_CTX_set_default_passwd_cb(SSL_CTX* ctx, int (*ask)(char*, int, int, void*) noexcept nogil)
    int TLS1_VERSION
    enum: SSL_MODE_RELEASE_BUFFERS, SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
    enum: SSL_VERIFY_CLIENT_ONCE, SSL_SESS_CACHE_OFF, SSL_SESS_CACHE_SERVER
    uint64_t SSL_OP_NO_RENEGOTIATION
    uint64_t SSL_OP_ENABLE_KTLS
    uint64_t SSL_OP_IGNORE_UNEXPECTED_EOF

cdef extern from "<openssl/crypto.h>" nogil:
    const char* OpenSSL_version(int what)
    int OPENSSL_VERSION

cdef extern from "<openssl/x509err.h>" nogil:
    enum: X509_R_KEY_VALUES_MISMATCH, X509_R_KEY_TYPE_MISMATCH

cdef extern from "<openssl/err.h>" nogil:
    unsigned long ERR_peek_error()
    int ERR_GET_REASON(unsigned long error)
    int ERR_GET_LIB(unsigned long error)
    bint ERR_SYSTEM_ERROR(unsigned long error)
    enum: ERR_LIB_X509

cdef enum:
    SESSIONS_MOST = 4096        # kept for clients that resume without tickets, about 1 KiB each
    CERTIFICATES_MOST = 32768   # bytes of a client's chain

cdef tuple VERIFY_MODES = (
    SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT | SSL_VERIFY_CLIENT_ONCE,
)
cdef BIO_METHOD* tls_way = NULL


cdef int no_password(char* buf, int size, int writes, void* data) noexcept nogil:
    # Nobody is there to be asked.
    return -1


@cython.final
cdef class TlsRules:
    """Certificates and rules for new connections (memcached's ssl_ suboptions). Raises ValueError, in memcached's words, when a file
    can't be read, key and certificate don't belong together, or nobody knows the ciphers.

    key_format: 1 PEM, 2 DER. verify: 0 no client certificate, 1 one is asked for, 2 demanded, 3 as 2. min_version: 0 to 3 for
    TLS 1.0 to 1.3. kernel: the kernel encrypts, where it can. write_size: bytes gathered before they are sent, 1024 or more; below
    16384 also the largest record."""

    cdef SSL_CTX* ctx
    cdef bint kernel
    cdef size_t write_size

    def __cinit__(self, str chain_cert not None, str key not None, *, int key_format=1, ca_cert=None, ciphers=None, int verify=0,
                  int min_version=2, session_cache=False, kernel=False, size_t write_size=16384):
        global tls_way
        if tls_way == NULL:
            tls_way = tls_method()
        self.ctx = SSL_CTX_new(TLS_server_method())
        if self.ctx == NULL or tls_way == NULL:
            raise MemoryError
        self.kernel = bool(kernel)
        self.write_size = write_size
        SSL_CTX_set_min_proto_version(self.ctx, TLS1_VERSION + min_version)
        self.load(os.fsencode(chain_cert), os.fsencode(key), key_format)
        SSL_CTX_set_verify(self.ctx, VERIFY_MODES[verify], NULL)
        SSL_CTX_set_max_cert_list(self.ctx, CERTIFICATES_MOST)
        if ca_cert is not None:
            self.trust(os.fsencode(ca_cert))
        if ciphers is not None:
            text = ciphers.encode()
            ERR_clear_error()
            if not SSL_CTX_set_cipher_list(self.ctx, text):
                raise ValueError(f"Error setting the provided cipher(s): {ciphers}")
        SSL_CTX_set_session_cache_mode(self.ctx, SSL_SESS_CACHE_SERVER if session_cache else SSL_SESS_CACHE_OFF)
        SSL_CTX_sess_set_cache_size(self.ctx, SESSIONS_MOST)
        SSL_CTX_set_num_tickets(self.ctx, 1)
        SSL_CTX_set_options(self.ctx, SSL_OP_NO_RENEGOTIATION)
        if kernel:
            SSL_CTX_set_options(self.ctx, SSL_OP_ENABLE_KTLS | SSL_OP_IGNORE_UNEXPECTED_EOF)
        SSL_CTX_set_mode(self.ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)
        if write_size < TLS_RECORD:
            SSL_CTX_set_max_send_fragment(self.ctx, <long> write_size)

    cdef load(self, bytes chain, bytes key, int key_format):
        SSL_CTX_set_default_passwd_cb(self.ctx, no_password)
        ERR_clear_error()
        if SSL_CTX_use_certificate_chain_file(self.ctx, chain) != 1:
            raise ValueError(f"Error loading the certificate chain: {os.fsdecode(chain)} : {openssl_error()}")
        if SSL_CTX_use_PrivateKey_file(self.ctx, key, key_format) != 1 and not mismatch():
            raise ValueError(f"Error loading the key: {os.fsdecode(key)} : {openssl_error()}")
        if SSL_CTX_check_private_key(self.ctx) != 1:
            raise ValueError(f"Error validating the certificate: {os.fsdecode(key)} is not the key of {os.fsdecode(chain)}")

    cdef trust(self, bytes ca):
        cdef X509_NAMES* names
        ERR_clear_error()
        if SSL_CTX_load_verify_locations(self.ctx, ca, NULL) != 1:
            raise ValueError(f"Error loading the CA certificate: {os.fsdecode(ca)} : {openssl_error()}")
        names = SSL_load_client_CA_file(ca)
        if names == NULL:
            raise ValueError(f"Error loading the CA certificate: {os.fsdecode(ca)} : {openssl_error()}")
        SSL_CTX_set_client_CA_list(self.ctx, names)

    def __dealloc__(self):
        SSL_CTX_free(self.ctx)


cdef bint mismatch():
    # The key was read, but is another certificate's.
    cdef unsigned long error = ERR_peek_last_error()
    return ERR_GET_LIB(error) == ERR_LIB_X509 and ERR_GET_REASON(error) in (X509_R_KEY_VALUES_MISMATCH, X509_R_KEY_TYPE_MISMATCH)


cdef str openssl_error():
    # The first one, which led to the others, in OpenSSL's words, or the system's.
    cdef unsigned long error = ERR_peek_error()
    cdef const char* text = ERR_reason_error_string(error)
    if ERR_SYSTEM_ERROR(error):
        return os.strerror(ERR_GET_REASON(error))
    return text.decode() if text != NULL else "unknown error"


def openssl_version():
    """OpenSSL's name and version, as it was loaded."""
    return OpenSSL_version(OPENSSL_VERSION).decode()
