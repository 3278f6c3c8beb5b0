# Login: who may come in, by -Y or SASL. Names and passwords, and whether what a client says is one of them.
#
# A comparison takes as long for a wrong password as for a right one. A failed login is an event: the owner holds its reply back
# for a while, so that guessing is slow and nobody else waits. Must never keep, log or send a password.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp
from .store cimport User, Users
from .conn cimport *
from .sending cimport *
from .telling cimport *

cdef enum:
    LOGIN_NONE = 0              # nobody needs one
    LOGIN_ASCII = 1             # -Y: a first `set`
    LOGIN_SASL = 2              # -S

cdef enum Login:
    LOGIN_WRONG
    LOGIN_RIGHT
    LOGIN_MORE                  # the mechanism has more to say


cdef inline void users_free(Users* u) noexcept nogil:
    free(u)


cdef inline Users* users_new(int count, size_t bytes) noexcept nogil:
    # Room for so many users, and for their names and passwords behind them. NULL: out of memory.
    cdef Users* u = <Users*> malloc(sizeof(Users) + <size_t> count * sizeof(User) + bytes + 1)
    if u != NULL:
        u.count = 0
        u.user = <User*> (u + 1)
    return u


cdef inline uint32_t differs(const char* given, size_t n, const char* known, size_t m) noexcept nogil:
    # 0 if they are the same. The time depends on what was given alone.
    cdef uint32_t diff = n != m
    cdef size_t i, j = 0
    for i in range(n):
        diff |= <uint8_t> given[i] ^ <uint8_t> known[j]
        j = j + 1 if j + 1 < m else 0
    return diff


cdef inline bint users_know(Users* u, const char* name, size_t n, const char* password, size_t m) noexcept nogil:
    # Looks at all of them, whoever it is.
    cdef int i
    cdef bint found = 0
    if u == NULL:
        return 0
    for i in range(u.count):
        found |= (differs(name, n, u.user[i].name, u.user[i].name_len)
                  | differs(password, m, u.user[i].password, u.user[i].password_len)) == 0
    return found


cdef inline Login plain_login(Users* u, const char* p, size_t n) noexcept nogil:
    # SASL's PLAIN (RFC 4616): [authorization] NUL name NUL password. Nobody may act for another.
    cdef const char* name = <const char*> memchr(p, 0, n)
    cdef const char* password
    cdef size_t acts_for, name_len, password_len
    if name == NULL:
        return LOGIN_WRONG
    acts_for = <size_t> (name - p)
    name += 1
    password = <const char*> memchr(name, 0, n - acts_for - 1)
    if password == NULL:
        return LOGIN_WRONG
    name_len = <size_t> (password - name)
    password += 1
    password_len = n - acts_for - name_len - 2
    if acts_for and (acts_for != name_len or memcmp(p, name, name_len) != 0) or memchr(password, 0, password_len) != NULL:
        return LOGIN_WRONG
    return LOGIN_RIGHT if users_know(u, name, name_len, password, password_len) else LOGIN_WRONG


cdef inline void login_event(Conn* c) noexcept nogil:
    # The running command was a login that failed: its reply is to be held back.
    note_event(c, EV_LOGIN_FAILED, b"", 0, -1)
