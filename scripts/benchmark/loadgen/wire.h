/* The wire: keys and values that follow from an index, requests, and replies checked to the last byte. */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KEY_LENGTH = 16 /* unless asked otherwise */, KEY_MIN = 10, KEY_MAX = 250, VALUE_MAX = 1 << 20, VALUE_SHIFTS = 4096 };

/* One thing that a server must say next on a connection. A get expects a value, then the end. */
enum piece_kind {
    PIECE_VALUE,     /* VALUE <key> 0 <length>\r\n<value>\r\n */
    PIECE_END,       /* END\r\n */
    PIECE_STORED,    /* STORED\r\n */
    PIECE_META,      /* VA <length>\r\n<value>\r\n; if it may miss also EN\r\n */
    PIECE_NOTHING,   /* MN\r\n */
    PIECE_BINARY_VALUE,   /* the binary protocol's answer to a get, whatever its CAS unique */
    PIECE_BINARY_STORED,  /* ... to a set */
    PIECE_HELD,      /* HD\r\n, or EN\r\n: then it is MISSED */
    PIECE_DELETED,   /* DELETED\r\n, or NOT_FOUND\r\n: then it is MISSED */
    PIECE_TOUCHED,   /* TOUCHED\r\n, or if it may miss NOT_FOUND\r\n */
    PIECE_NUMBER,    /* ten digits\r\n */
};

struct piece {
    uint8_t kind;
    bool may_miss;    /* PIECE_VALUE: it may be left out; META, TOUCHED: it may not be there */
    bool last;        /* it completes its request */
    uint32_t key;
    uint32_t length;  /* of the value, bytes */
    uint64_t due;     /* nanoseconds: when its request was to be sent */
};

enum verdict { INCOMPLETE, RIGHT, MISSED, WRONG };

/* Makes the pattern that values are cut from, and says how long keys are (bytes; which one follows from the key); call it before
 * anything else. */
void wire_init(uint32_t key_min, uint32_t key_max);
/* Writes a key; returns its length, at most KEY_MAX. */
size_t wire_key(uint8_t *out, uint32_t key);

/* Each writes one request and returns its length; WIRE_OVERHEAD and the value's length are always room enough. */
enum { WIRE_OVERHEAD = KEY_MAX + 64 };
size_t wire_get(uint8_t *out, const uint32_t *keys, unsigned count);   /* room for each key: KEY_MAX + 1 more */
size_t wire_meta_get(uint8_t *out, uint32_t key);
size_t wire_ask(uint8_t *out, uint32_t key);   /* is it there? Without its value */
size_t wire_set(uint8_t *out, uint32_t key, uint32_t length, bool noreply);
size_t wire_delete(uint8_t *out, uint32_t key);
size_t wire_touch(uint8_t *out, uint32_t key);
size_t wire_number(uint8_t *out, uint32_t key);   /* sets the number that wire_incr adds 1 to, without a reply */
size_t wire_incr(uint8_t *out, uint32_t key);
size_t wire_nothing(uint8_t *out);
size_t wire_binary_get(uint8_t *out, uint32_t key);
size_t wire_binary_set(uint8_t *out, uint32_t key, uint32_t length);

/* A login by SASL's PLAIN (name, a blank, password), and whether the answer, of so many bytes, says that it was taken. */
enum { WIRE_SASL_ANSWER = 24 + 13 /* Authenticated */ };
size_t wire_sasl(uint8_t *out, const char *name_and_password);
bool wire_sasl_took(const uint8_t *answer);

/* Compares the start of `in` with what `piece` expects. *used: the bytes of the reply, when it is complete. */
enum verdict wire_check(const struct piece *piece, const uint8_t *in, size_t n, size_t *used);

#endif
