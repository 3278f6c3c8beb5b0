# Wire: every text that the core sends, spelled once (protocol page, 1.3 to 1.5). Knows nothing else.

cdef extern from *:
    """
    #define W_ERROR "ERROR\\r\\n"
    #define W_OK "OK\\r\\n"
    #define W_END "END\\r\\n"
    #define W_CRLF "\\r\\n"
    #define W_BAD_FORMAT "CLIENT_ERROR bad command line format\\r\\n"
    #define W_BAD_CHUNK "CLIENT_ERROR bad data chunk\\r\\n"
    #define W_BAD_EXPTIME "CLIENT_ERROR invalid exptime argument\\r\\n"
    #define W_BAD_DELTA "CLIENT_ERROR invalid numeric delta argument\\r\\n"
    #define W_NON_NUMERIC "CLIENT_ERROR cannot increment or decrement non-numeric value\\r\\n"
    #define W_FLUSH_FORBIDDEN "CLIENT_ERROR flush_all not allowed\\r\\n"
    #define W_TOO_LARGE "SERVER_ERROR object too large for cache\\r\\n"
    #define W_NO_MEMORY_STORE "SERVER_ERROR out of memory storing object\\r\\n"
    #define W_NO_MEMORY "SERVER_ERROR out of memory\\r\\n"
    #define W_NO_MEMORY_ITEM "SERVER_ERROR Out of memory allocating new item\\r\\n"
    #define W_REFCOUNT "SERVER_ERROR refcount overflow during fetch\\r\\n"
    #define W_STALE "SERVER_ERROR stale\\r\\n"
    #define W_STORED "STORED\\r\\n"
    #define W_NOT_STORED "NOT_STORED\\r\\n"
    #define W_EXISTS "EXISTS\\r\\n"
    #define W_NOT_FOUND "NOT_FOUND\\r\\n"
    #define W_DELETED "DELETED\\r\\n"
    #define W_TOUCHED "TOUCHED\\r\\n"
    #define W_MN "MN\\r\\n"
    #define W_EN "EN\\r\\n"
    #define W_FLAGS_TOO_LONG "CLIENT_ERROR options flags are too long\\r\\n"
    #define W_FLAG_TWICE "CLIENT_ERROR duplicate flag\\r\\n"
    #define W_FLAG_UNKNOWN "CLIENT_ERROR invalid flag\\r\\n"
    #define W_FLAG_TOKEN "CLIENT_ERROR bad token in command line format\\r\\n"
    #define W_FLAG_INITIAL "CLIENT_ERROR invalid numeric initial value\\r\\n"
    #define W_FLAG_DELTA "CLIENT_ERROR invalid numeric delta value\\r\\n"
    #define W_FLAG_KEY "CLIENT_ERROR error decoding key\\r\\n"
    #define W_FLAG_OPAQUE "CLIENT_ERROR opaque token too long\\r\\n"
    #define W_MODE_SET "CLIENT_ERROR invalid mode for ms M token\\r\\n"
    #define W_MODE_ARITH "CLIENT_ERROR invalid mode for ma M token\\r\\n"
    #define W_MA_FLAG "CLIENT_ERROR invalid or duplicate flag\\r\\n"
    """
    const char* W_ERROR
    const char* W_OK
    const char* W_END
    const char* W_CRLF
    const char* W_BAD_FORMAT
    const char* W_BAD_CHUNK
    const char* W_BAD_EXPTIME
    const char* W_BAD_DELTA
    const char* W_NON_NUMERIC
    const char* W_FLUSH_FORBIDDEN
    const char* W_TOO_LARGE
    const char* W_NO_MEMORY_STORE
    const char* W_NO_MEMORY
    const char* W_NO_MEMORY_ITEM
    const char* W_REFCOUNT
    const char* W_STALE
    const char* W_STORED
    const char* W_NOT_STORED
    const char* W_EXISTS
    const char* W_NOT_FOUND
    const char* W_DELETED
    const char* W_TOUCHED
    const char* W_MN
    const char* W_EN
    const char* W_FLAGS_TOO_LONG
    const char* W_FLAG_TWICE
    const char* W_FLAG_UNKNOWN
    const char* W_FLAG_TOKEN
    const char* W_FLAG_INITIAL
    const char* W_FLAG_DELTA
    const char* W_FLAG_KEY
    const char* W_FLAG_OPAQUE
    const char* W_MODE_SET
    const char* W_MODE_ARITH
    const char* W_MA_FLAG
