/* The wire: see wire.h. Nothing here knows a socket. */
#include "wire.h"

#include <string.h>

static uint8_t pattern[VALUE_MAX + VALUE_SHIFTS];
static uint32_t key_min, key_max;

void wire_init(uint32_t min, uint32_t max) {
    key_min = min, key_max = max;
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

size_t wire_key(uint8_t *out, uint32_t key) {
    size_t length = key_min + (size_t)(key * 2654435761u) % (key_max - key_min + 1), digits = 8;
    memset(out, 'k', length);
    memcpy(out, "key-0000", length - digits < 8 ? length - digits : 8);
    for (size_t i = length; i > length - digits; key >>= 4) out[--i] = (uint8_t)"0123456789abcdef"[key & 15];
    return length;
}

static size_t put_key(uint8_t *out, uint32_t key) { return wire_key(out, key); }

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

/* A verb and a key. */
static size_t put_command(uint8_t *out, const char *verb, uint32_t key) {
    size_t n = put(out, verb, strlen(verb));
    return n + put_key(out + n, key);
}

size_t wire_delete(uint8_t *out, uint32_t key) {
    size_t n = put_command(out, "delete ", key);
    return n + put(out + n, "\r\n", 2);
}

size_t wire_touch(uint8_t *out, uint32_t key) {
    size_t n = put_command(out, "touch ", key);
    return n + put(out + n, " 0\r\n", 4);
}

enum { DIGITS = 10 };

size_t wire_number(uint8_t *out, uint32_t key) {
    size_t n = put_command(out, "set ", key);
    return n + put(out + n, " 0 0 10 noreply\r\n1000000000\r\n", 29);
}

size_t wire_incr(uint8_t *out, uint32_t key) {
    size_t n = put_command(out, "incr ", key);
    return n + put(out + n, " 1\r\n", 4);
}

size_t wire_nothing(uint8_t *out) { return put(out, "mn\r\n", 4); }

enum { HEADER = 24, MAGIC_REQUEST = 0x80, MAGIC_REPLY = 0x81, OPCODE_GET = 0, OPCODE_SET = 1, OPCODE_SASL_AUTH = 0x21, FLAGS = 4, FLAGS_AND_EXPTIME = 8 };

static size_t put_header(uint8_t *out, uint8_t magic, uint8_t opcode, uint8_t key, uint8_t extras, uint32_t body) {
    memset(out, 0, HEADER);
    out[0] = magic, out[1] = opcode, out[3] = key, out[4] = extras;
    for (int i = 0; i < 4; i++) out[11 - i] = (uint8_t)(body >> 8 * i);
    return HEADER;
}

size_t wire_binary_get(uint8_t *out, uint32_t key) {
    size_t length = put_key(out + HEADER, key);
    return put_header(out, MAGIC_REQUEST, OPCODE_GET, (uint8_t)length, 0, (uint32_t)length) + length;
}

size_t wire_binary_set(uint8_t *out, uint32_t key, uint32_t length) {
    size_t n = HEADER + FLAGS_AND_EXPTIME, key_length = put_key(out + n, key);
    put_header(out, MAGIC_REQUEST, OPCODE_SET, (uint8_t)key_length, FLAGS_AND_EXPTIME, (uint32_t)key_length + FLAGS_AND_EXPTIME + length);
    memset(out + HEADER, 0, FLAGS_AND_EXPTIME);
    n += key_length;
    return n + put(out + n, value_of(key), length);
}

size_t wire_sasl(uint8_t *out, const char *name_and_password) {
    size_t blank = strcspn(name_and_password, " "), n = HEADER + put(out + HEADER, "PLAIN", 5);
    put_header(out, MAGIC_REQUEST, OPCODE_SASL_AUTH, 5, 0, (uint32_t)(5 + 1 + strlen(name_and_password)));
    out[n++] = 0;   /* on nobody else's behalf */
    size_t length = put(out + n, name_and_password, strlen(name_and_password));
    out[n + blank] = 0;
    return n + length;
}

bool wire_sasl_took(const uint8_t *answer) {
    return answer[0] == MAGIC_REPLY && answer[1] == OPCODE_SASL_AUTH && !answer[6] && !answer[7] && !memcmp(answer + HEADER, "Authenticated", 13);
}

/* Is `in` (n bytes, perhaps too few) a start of, or all of, these bytes? */
static enum verdict compare(const uint8_t *in, size_t n, const void *bytes, size_t length) {
    if (memcmp(in, bytes, n < length ? n : length)) return WRONG;
    return n < length ? INCOMPLETE : RIGHT;
}

static enum verdict check_line(const uint8_t *in, size_t n, const char *line, size_t *used) {
    *used = strlen(line);
    return compare(in, n, line, *used);
}

/* One line, or the one that says that the key is not there. */
static enum verdict check_either(const uint8_t *in, size_t n, const char *line, const char *missing, size_t *used) {
    enum verdict missed = check_line(in, n, missing, used);
    if (missed == RIGHT) return MISSED;
    return missed == INCOMPLETE ? INCOMPLETE : check_line(in, n, line, used);
}

static enum verdict check_number(const uint8_t *in, size_t n, size_t *used) {
    *used = DIGITS + 2;
    for (size_t i = 0; i < n && i < DIGITS; i++)
        if (in[i] < '0' || in[i] > '9') return WRONG;
    return n <= DIGITS ? INCOMPLETE : compare(in + DIGITS, n - DIGITS, "\r\n", 2);
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
        if (piece->kind == PIECE_META) return check_line(in, n, "EN\r\n", used);
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

static enum verdict check_binary(const struct piece *piece, const uint8_t *in, size_t n, size_t *used) {
    static const uint8_t no_flags[FLAGS];
    uint8_t head[HEADER];
    bool value = piece->kind == PIECE_BINARY_VALUE;
    uint32_t extras = value ? FLAGS : 0, length = value ? piece->length : 0;
    put_header(head, MAGIC_REPLY, value ? OPCODE_GET : OPCODE_SET, 0, (uint8_t)extras, extras + length);
    *used = HEADER + extras + length;
    if (compare(in, n, head, HEADER - 8) == WRONG) return WRONG;   /* the last eight are the CAS unique */
    if (n < HEADER) return INCOMPLETE;
    enum verdict verdict = compare(in + HEADER, n - HEADER, no_flags, extras);
    if (verdict == RIGHT) verdict = compare(in + HEADER + extras, n - HEADER - extras, value_of(piece->key), length);
    return verdict;
}

enum verdict wire_check(const struct piece *piece, const uint8_t *in, size_t n, size_t *used) {
    switch (piece->kind) {
    case PIECE_END: return check_line(in, n, "END\r\n", used);
    case PIECE_STORED: return check_line(in, n, "STORED\r\n", used);
    case PIECE_NOTHING: return check_line(in, n, "MN\r\n", used);
    case PIECE_BINARY_VALUE:
    case PIECE_BINARY_STORED: return check_binary(piece, in, n, used);
    case PIECE_HELD: return check_either(in, n, "HD\r\n", "EN\r\n", used);
    case PIECE_DELETED: return check_either(in, n, "DELETED\r\n", "NOT_FOUND\r\n", used);
    case PIECE_TOUCHED: 
        return piece->may_miss ? check_either(in, n, "TOUCHED\r\n", "NOT_FOUND\r\n", used) : check_line(in, n, "TOUCHED\r\n", used);
    case PIECE_NUMBER: return check_number(in, n, used);
    default: return check_value(piece, in, n, used);
    }
}
