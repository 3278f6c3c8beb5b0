# Fading: how fast what an item is worth falls with its age, and how much less it is worth while it is new; in the cache and in
# its miniatures.
#
# Owns the exponent, and what is learnt of new items. Must never know an item. The exponent is the beta of GreedyDual* (Jin and
# Bestavros, 2000): with 1, twice the age would be half the worth. 7/8 needs no more than square roots, of which a store that evicts takes dozens.

from libc.math cimport pow, sqrt

cdef enum:
    LEARNT = 8192               # new items from which is learnt what new ones are worth; as many as the list has, if it has more
    DOUBT = 32                  # new items as good as WANTED that every list is taken to have had

cdef extern from *:
    """
    #define FADES 0.875         /* as aged() has it */
    #define NEW_WORTH 0.3       /* of an item that has not been used since it was stored, and may never be, */
    #define WANTED 0.05         /* if so many of its list's new items are used, or come back; of fewer less, */
    #define NEW_LEAST 0.01      /* but so much of NEW_WORTH at least: else a class that has lost its pages would stay without */
    """
    const double FADES, NEW_WORTH, WANTED, NEW_LEAST


cdef inline double aged(double age) noexcept nogil:
    # age ^ FADES
    cdef double half = sqrt(age), quarter = sqrt(half)
    return half * quarter * sqrt(quarter)


cdef inline double age_for(double worth) noexcept nogil:
    # The age whose inverse has faded to this worth.
    return pow(worth, -1 / FADES)


cdef inline double worth_of_new(double came, double wanted) noexcept nogil:
    # What an unused new item is worth beside a used one of its age, if lately so many new ones came and so many were wanted.
    cdef double share = (wanted + DOUBT * WANTED) / (came + DOUBT) / WANTED
    return NEW_WORTH * (1 if share > 1 else NEW_LEAST if share < NEW_LEAST else share)
