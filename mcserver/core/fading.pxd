# Fading: how fast what an item is worth falls with its age, in the cache and in its miniatures.
#
# Owns the exponent. Must never know an item. It is the beta of GreedyDual* (Jin and Bestavros, 2000): with 1, twice the age would be half
# the worth. 7/8 needs no more than square roots, of which a store that evicts takes dozens.

from libc.math cimport pow, sqrt

cdef extern from *:
    """
    #define FADES 0.875         /* as aged() has it */
    """
    const double FADES


cdef inline double aged(double age) noexcept nogil:
    # age ^ FADES
    cdef double half = sqrt(age), quarter = sqrt(half)
    return half * quarter * sqrt(quarter)


cdef inline double age_for(double worth) noexcept nogil:
    # The age whose inverse has faded to this worth.
    return pow(worth, -1 / FADES)
