# Wire: every text that the core sends, spelled once (protocol page, 1.3 to 1.5). Knows nothing else.

cdef extern from *:
    """
    #define WIRE_ERROR "ERROR\\r\\n"
    #define WIRE_OK "OK\\r\\n"
    #define WIRE_END "END\\r\\n"
    #define WIRE_CRLF "\\r\\n"
    #define WIRE_CRLF_END "\\r\\nEND\\r\\n"
    #define WIRE_BAD_FORMAT "CLIENT_ERROR bad command line format\\r\\n"
    #define WIRE_BAD_CHUNK "CLIENT_ERROR bad data chunk\\r\\n"
    #define WIRE_BAD_EXPTIME "CLIENT_ERROR invalid exptime argument\\r\\n"
    #define WIRE_BAD_DELTA "CLIENT_ERROR invalid numeric delta argument\\r\\n"
    #define WIRE_NON_NUMERIC "CLIENT_ERROR cannot increment or decrement non-numeric value\\r\\n"
    #define WIRE_FLUSH_FORBIDDEN "CLIENT_ERROR flush_all not allowed\\r\\n"
    #define WIRE_SERVER_ERROR "SERVER_ERROR "
    #define WIRE_TOO_LARGE "SERVER_ERROR object too large for cache\\r\\n"
    #define WIRE_NO_MEMORY_STORE "SERVER_ERROR out of memory storing object\\r\\n"
    #define WIRE_NO_MEMORY "SERVER_ERROR out of memory\\r\\n"
    #define WIRE_NO_MEMORY_ITEM "SERVER_ERROR Out of memory allocating new item\\r\\n"
    #define WIRE_NO_MEMORY_REQUEST "SERVER_ERROR out of memory reading request\\r\\n"
    #define WIRE_REFCOUNT "SERVER_ERROR refcount overflow during fetch\\r\\n"
    #define WIRE_DATAGRAM_LONG "SERVER_ERROR reply too large for UDP\\r\\n"
    #define WIRE_NOT_CONFIRMED "SERVER_ERROR invalidation not confirmed"     /* without a line's end: it goes into a letter */
    #define WIRE_INTERNAL "SERVER_ERROR internal error\\r\\n"
    #define WIRE_TOO_MANY "ERROR Too many open connections\\r\\n"
    #define WIRE_STALE "SERVER_ERROR stale\\r\\n"
    #define WIRE_STORED "STORED\\r\\n"
    #define WIRE_NOT_STORED "NOT_STORED\\r\\n"
    #define WIRE_EXISTS "EXISTS\\r\\n"
    #define WIRE_NOT_FOUND "NOT_FOUND\\r\\n"
    #define WIRE_DELETED "DELETED\\r\\n"
    #define WIRE_TOUCHED "TOUCHED\\r\\n"
    #define WIRE_MN "MN\\r\\n"
    #define WIRE_EN "EN\\r\\n"
    #define WIRE_FLAGS_TOO_LONG "CLIENT_ERROR options flags are too long\\r\\n"
    #define WIRE_FLAG_TWICE "CLIENT_ERROR duplicate flag\\r\\n"
    #define WIRE_FLAG_UNKNOWN "CLIENT_ERROR invalid flag\\r\\n"
    #define WIRE_FLAG_TOKEN "CLIENT_ERROR bad token in command line format\\r\\n"
    #define WIRE_FLAG_INITIAL "CLIENT_ERROR invalid numeric initial value\\r\\n"
    #define WIRE_FLAG_DELTA "CLIENT_ERROR invalid numeric delta value\\r\\n"
    #define WIRE_FLAG_KEY "CLIENT_ERROR error decoding key\\r\\n"
    #define WIRE_FLAG_OPAQUE "CLIENT_ERROR opaque token too long\\r\\n"
    #define WIRE_MODE_SET "CLIENT_ERROR invalid mode for ms M token\\r\\n"
    #define WIRE_MODE_ARITH "CLIENT_ERROR invalid mode for ma M token\\r\\n"
    #define WIRE_MA_FLAG "CLIENT_ERROR invalid or duplicate flag\\r\\n"
    /* -Y */
    #define WIRE_LOGIN_FIRST "CLIENT_ERROR unauthenticated\\r\\n"
    #define WIRE_LOGIN_LONG "CLIENT_ERROR auth token too long\\r\\n"
    #define WIRE_LOGIN_END "CLIENT_ERROR bad command line termination\\r\\n"
    #define WIRE_LOGIN_FORMAT "CLIENT_ERROR bad authentication token format\\r\\n"
    #define WIRE_LOGIN_WRONG "CLIENT_ERROR authentication failure\\r\\n"
    /* the binary protocol */
    #define WIRE_BIN_NOT_FOUND "Not found"
    #define WIRE_BIN_EXISTS "Data exists for key."
    #define WIRE_BIN_TOO_LARGE "Too large."
    #define WIRE_BIN_INVALID "Invalid arguments"
    #define WIRE_BIN_NOT_STORED "Not stored."
    #define WIRE_BIN_NON_NUMERIC "Non-numeric server-side value for incr or decr"
    #define WIRE_BIN_AUTH_ERROR "Auth failure."
    #define WIRE_BIN_AUTHENTICATED "Authenticated"
    #define WIRE_BIN_UNKNOWN "Unknown command"
    #define WIRE_BIN_NO_MEMORY_ITEM "Out of memory allocating item"
    #define WIRE_BIN_NO_MEMORY_NEW "Out of memory allocating new item"
    #define WIRE_BIN_NO_MEMORY_ADD "Out of memory incrementing value"
    /* wrong doors: memcached has none of these */
    #define WIRE_WRONG_BINARY "the binary protocol is switched off here"
    #define WIRE_WRONG_TEXT "CLIENT_ERROR only the binary protocol is spoken here\\r\\n"
    #define WIRE_WRONG_RESP "-ERR this is a memcached server: it doesn't speak Redis's protocol\\r\\n"
    #define WIRE_WRONG_HTTP "HTTP/1.0 400 Bad Request\\r\\nContent-Type: text/plain\\r\\nContent-Length: 52\\r\\n" \
        "Connection: close\\r\\n\\r\\nThis is a memcached server: it doesn't speak HTTP.\\r\\n"
    #define WIRE_WRONG_PLAIN "CLIENT_ERROR only TLS is spoken here\\r\\n"
    #define WIRE_WRONG_PLAIN_BINARY "only TLS is spoken here"
    #define WIRE_WRONG_PLAIN_HTTP "HTTP/1.0 400 Bad Request\\r\\nContent-Type: text/plain\\r\\nContent-Length: 72\\r\\n" \
        "Connection: close\\r\\n\\r\\nThis is a memcached server with TLS: it doesn't speak HTTP, nor HTTPS.\\r\\n"
    #define WIRE_WRONG_TLS "\\x15\\x03\\x01\\x00\\x02\\x02\\x28"   /* a fatal alert: handshake_failure */
    """
    const char* WIRE_ERROR
    const char* WIRE_OK
    const char* WIRE_END
    const char* WIRE_CRLF
    const char* WIRE_CRLF_END
    const char* WIRE_BAD_FORMAT
    const char* WIRE_BAD_CHUNK
    const char* WIRE_BAD_EXPTIME
    const char* WIRE_BAD_DELTA
    const char* WIRE_NON_NUMERIC
    const char* WIRE_FLUSH_FORBIDDEN
    const char* WIRE_SERVER_ERROR
    const char* WIRE_TOO_LARGE
    const char* WIRE_NO_MEMORY_STORE
    const char* WIRE_NO_MEMORY
    const char* WIRE_NO_MEMORY_ITEM
    const char* WIRE_NO_MEMORY_REQUEST
    const char* WIRE_REFCOUNT
    const char* WIRE_DATAGRAM_LONG
    const char* WIRE_NOT_CONFIRMED
    const char* WIRE_INTERNAL
    const char* WIRE_TOO_MANY
    const char* WIRE_STALE
    const char* WIRE_STORED
    const char* WIRE_NOT_STORED
    const char* WIRE_EXISTS
    const char* WIRE_NOT_FOUND
    const char* WIRE_DELETED
    const char* WIRE_TOUCHED
    const char* WIRE_MN
    const char* WIRE_EN
    const char* WIRE_FLAGS_TOO_LONG
    const char* WIRE_FLAG_TWICE
    const char* WIRE_FLAG_UNKNOWN
    const char* WIRE_FLAG_TOKEN
    const char* WIRE_FLAG_INITIAL
    const char* WIRE_FLAG_DELTA
    const char* WIRE_FLAG_KEY
    const char* WIRE_FLAG_OPAQUE
    const char* WIRE_MODE_SET
    const char* WIRE_MODE_ARITH
    const char* WIRE_MA_FLAG
    const char* WIRE_LOGIN_FIRST
    const char* WIRE_LOGIN_LONG
    const char* WIRE_LOGIN_END
    const char* WIRE_LOGIN_FORMAT
    const char* WIRE_LOGIN_WRONG
    const char* WIRE_BIN_NOT_FOUND
    const char* WIRE_BIN_EXISTS
    const char* WIRE_BIN_TOO_LARGE
    const char* WIRE_BIN_INVALID
    const char* WIRE_BIN_NOT_STORED
    const char* WIRE_BIN_NON_NUMERIC
    const char* WIRE_BIN_AUTH_ERROR
    const char* WIRE_BIN_AUTHENTICATED
    const char* WIRE_BIN_UNKNOWN
    const char* WIRE_BIN_NO_MEMORY_ITEM
    const char* WIRE_BIN_NO_MEMORY_NEW
    const char* WIRE_BIN_NO_MEMORY_ADD
    const char* WIRE_WRONG_BINARY
    const char* WIRE_WRONG_TEXT
    const char* WIRE_WRONG_RESP
    const char* WIRE_WRONG_HTTP
    const char* WIRE_WRONG_PLAIN
    const char* WIRE_WRONG_PLAIN_BINARY
    const char* WIRE_WRONG_PLAIN_HTTP
    const char* WIRE_WRONG_TLS
