# Lists that Python gives, as C reads them: prefixes, and who may log in. Included by engine.pyx.
#
# Owns the copying. Must never keep a Python object: whoever reads the copies has no GIL.

cdef int set_prefixed(Store* s, Prefixed* list, prefixes) except -1:
    # Puts these texts in the place of those that were there.
    cdef char* old = list.texts
    cdef char* texts
    joined = b"".join([len(each).to_bytes(2, "little") + each for each in prefixes])
    texts = <char*> malloc(len(joined) + 1)
    if texts == NULL:
        raise MemoryError
    memcpy(texts, PyBytes_AS_STRING(joined), <size_t> len(joined))
    engine_lock(s)
    list.texts = texts
    list.length = <size_t> len(joined)
    engine_unlock(s)
    free(old)
    return 0


cdef Users* users_make(list users) except NULL:
    # Names and passwords as login.pxd compares them.
    cdef Users* u = users_new(<int> len(users), sum(len(name) + len(password) for name, password in users))
    cdef char* at
    cdef User* user
    cdef bytes name, password
    if u == NULL:
        raise MemoryError
    at = <char*> (u.user + len(users))
    for name, password in users:
        user = &u.user[u.count]
        user.name = at
        user.name_len = <size_t> len(name)
        memcpy(at, PyBytes_AS_STRING(name), user.name_len)
        at += user.name_len
        user.password = at
        user.password_len = <size_t> len(password)
        memcpy(at, PyBytes_AS_STRING(password), user.password_len)
        at += user.password_len
        u.count += 1
    return u
