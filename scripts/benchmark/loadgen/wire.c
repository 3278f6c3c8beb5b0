/* The wire: see wire.h. Nothing here knows a socket. */
#include "wire.h"

#include <string.h>

static uint8_t pattern[VALUE_MAX + VALUE_SHIFTS];

void wire_init(void) {
    uint32_t state = 0x9e3779b9;
    for (size_t i = 0; i < sizeof pattern; i++) {
        state = state * 1664525 + 1013904223;
        pattern[i] = (uint8_t)('a' + (state >> 24) % 26);
    }
}

static const uint8_t *value_of(uint32_t key) { return pattern + key % VALUE_SHIFTS; }

static size_t put(uint8_t *out, const void *bytes, size_t n) {
    memcpy(out, bytes, n);
    return n;
}

static size_t put_number(uint8_t *out, uint32_t number) {
    uint8_t digits[10];
    size_t n = 0;
    do digits[n++] = (uint8_t)('0' + number % 10); while (number /= 10);
    for (size_t i = 0; i < n; i++) out[i] = digits[n - 1 - i];
    return n;
}

void wire_key(uint8_t *out, uint32_t key) {
    memcpy(out, "key-0000", 8);
    for (int i = KEY_LENGTH - 1; i >= 8; i--, key >>= 4) out[i] = (uint8_t)"0123456789abcdef"[key & 15];
}

static size_t put_key(uint8_t *out, uint32_t key) {
    wire_key(out, key);
    return KEY_LENGTH;
}

size_t wire_get(uint8_t *out, const uint32_t *keys, unsigned count) {
    size_t n = put(out, "get", 3);
    for (unsigned i = 0; i < count; i++) {
        n += put(out + n, " ", 1);
        n += put_key(out + n, keys[i]);
    }
    return n + put(out + n, "\r\n", 2);
}

size_t wire_meta_get(uint8_t *out, uint32_t key) {
    size_t n = put(out, "mg ", 3);
    n += put_key(out + n, key);
    return n + put(out + n, " v\r\n", 4);
}

size_t wire_ask(uint8_t *out, uint32_t key) {
    size_t n = put(out, "mg ", 3);
    n += put_key(out + n, key);
    return n + put(out + n, "\r\n", 2);
}

size_t wire_set(uint8_t *out, uint32_t key, uint32_t length, bool noreply) {
    size_t n = put(out, "set ", 4);
    n += put_key(out + n, key);
    n += put(out + n, " 0 0 ", 5);
    n += put_number(out + n, length);
    if (noreply) n += put(out + n, " noreply", 8);
    n += put(out + n, "\r\n", 2);
    n += put(out + n, value_of(key), length);
    return n + put(out + n, "\r\n", 2);
}

size_t wire_nothing(uint8_t *out) { return put(out, "mn\r\n", 4); }

/* Is `in` (n bytes, perhaps too few) a start of, or all of, these bytes? */
static enum verdict compare(const uint8_t *in, size_t n, const void *bytes, size_t length) {
    if (memcmp(in, bytes, n < length ? n : length)) return WRONG;
    return n < length ? INCOMPLETE : RIGHT;
}

static enum verdict check_line(const uint8_t *in, size_t n, const char *line, size_t *used) {
    *used = strlen(line);
    return compare(in, n, line, *used);
}

static enum verdict check_held(const uint8_t *in, size_t n, size_t *used) {
    enum verdict missed = check_line(in, n, "EN\r\n", used);
    if (missed == RIGHT) return MISSED;
    return missed == INCOMPLETE ? INCOMPLETE : check_line(in, n, "HD\r\n", used);
}

/* The head line, all before its length: "VALUE <key> 0 " or "VA ". */
static size_t put_head(uint8_t *out, const struct piece *piece) {
    if (piece->kind == PIECE_META) return put(out, "VA ", 3);
    size_t n = put(out, "VALUE ", 6);
    n += put_key(out + n, piece->key);
    return n + put(out + n, " 0 ", 3);
}

static enum verdict check_value(const struct piece *piece, const uint8_t *in, size_t n, size_t *used) {
    uint8_t head[WIRE_OVERHEAD];
    size_t at = put_head(head, piece);
    if (piece->may_miss && compare(in, n, head, at) == WRONG) {
        *used = 0;
        return MISSED;   /* what came instead is checked against the next piece */
    }
    at += put_number(head + at, piece->length);
    at += put(head + at, "\r\n", 2);
    *used = at + piece->length + 2;
    enum verdict verdict = compare(in, n, head, at);
    if (verdict == RIGHT) verdict = compare(in + at, n - at, value_of(piece->key), piece->length);
    if (verdict == RIGHT) verdict = compare(in + at + piece->length, n - at - piece->length, "\r\n", 2);
    return verdict;
}

enum verdict wire_check(const struct piece *piece, const uint8_t *in, size_t n, size_t *used) {
    switch (piece->kind) {
    case PIECE_END: return check_line(in, n, "END\r\n", used);
    case PIECE_STORED: return check_line(in, n, "STORED\r\n", used);
    case PIECE_NOTHING: return check_line(in, n, "MN\r\n", used);
    case PIECE_HELD: return check_held(in, n, used);
    default: return check_value(piece, in, n, used);
    }
}
