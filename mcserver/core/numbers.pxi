# Numbers as C's library reads them, for the few cold commands whose numbers memcached gives to it. Included by engine.pyx.
#
# Owns memcached's checks of what the library says. Must never ask for the process's locale, in which a comma may be the point.

cdef extern from "<locale.h>" nogil:
    ctypedef struct _Locale "struct __locale_struct":
        pass
    int LC_ALL_MASK
    _Locale* newlocale(int mask, const char* name, _Locale* base)

cdef extern from "<stdlib.h>" nogil:
    double strtod_l(const char* text, char** end, _Locale* locale)

cdef _Locale* C_LOCALE = newlocale(LC_ALL_MASK, b"C", NULL)


def strtoul32(bytes token not None):
    """As memcached's safe_strtoul: blanks, a sign, digits, then the end, a blank or a NUL; the last 32 bits. Else None."""
    cdef int64_t number
    if not read_c_number(PyBytes_AS_STRING(token), <size_t> PyBytes_GET_SIZE(token), 0, &number):
        return None
    return <uint32_t> number


def strtod(bytes token not None):
    """As memcached's safe_strtod: what C takes for a double, then the end, a blank or a NUL; in its range. Else None."""
    cdef const char* text = PyBytes_AS_STRING(token)
    cdef char* end = NULL
    cdef double number
    global errno
    errno = 0
    number = strtod_l(text, &end, C_LOCALE)
    if errno == ERANGE or end == text or (end[0] != 0 and not is_blank(end[0])):
        return None
    return number
