# Fading: how fast what an item is worth falls with its age, how much less it is worth while it is new, and how much more or less
# where ages have been wrong; in the cache and in its miniatures.
#
# Owns the exponent, what is learnt of new items and of lists, and what follows for a page of them. Must never know an item. The
# exponent is the beta of GreedyDual* (Jin and Bestavros, 2000): with 1, twice the age would be half the worth. 7/8 needs no more than
# square roots, of which a store that evicts takes dozens.
#
# What an item is worth at each age, summed up from its last use to the next, or until it leaves, is how often it should have been
# used meanwhile. A list whose items are used more often than that says, beside all lists, is worth so much more (Cox's model of
# proportional hazards, 1972, with age^-FADES as what all have in common). Only ages count that are not far from those of the list's
# victims: how often the hottest key is used says nothing of them. A key that comes back soon after it left was used, too.

from libc.math cimport pow, sqrt
from libc.stdint cimport uint32_t

cdef enum:
    LEARNT = 8192               # new items from which is learnt what new ones are worth; as many as the list has, if it has more
    DOUBT = 32                  # new items as good as WANTED that every list is taken to have had
    EXPECTED_DOUBT = 8192       # uses expected that every list is taken to have had, and got: those of some 32 items
    EXPECTED_MOST = 1 << 16     # from which a list's share is learnt: those of some 256 items; 16 for each item if it has more
    EXPECTED_BITS = 4           # of that 16
    SAMPLE = 16                 # victims of a list that are looked at to tell what it is worth,
    LOOKED = 64                 # ... and items that are looked at to find so many
    RATIO_MOST = 4              # how much more or less often a list may be found to be used: one of which next to nothing was kept
                                # shows nothing of what it would be worth, and should have memory again soon if its traffic changes

cdef extern from *:
    """
    #define FADES 0.875         /* as aged() has it */
    #define NEW_WORTH 0.3       /* of an item that has not been used since it was stored, and may never be, */
    #define WANTED 0.05         /* if so many of its list's new items are used, or come back; of fewer less, */
    #define NEW_LEAST 0.01      /* but so much of NEW_WORTH at least: else a class that has lost its pages would stay without */
    #define MARGIN 1.25         /* a page must be worth so much less than one of the class that asks */
    #define YOUNGEST 0.95       /* of a page that holds nearly a whole list: the share that is reckoned with */
    """
    const double FADES, NEW_WORTH, WANTED, NEW_LEAST, MARGIN, YOUNGEST
    int zeros_in "__builtin_clz"(unsigned int) noexcept nogil

cdef extern from *:
    """
    /* The integral of age^-FADES from 1 to each octave's middle, an age of 16 * (ticks + 1/2) + 1 requests, in sixteenths. */
    static const unsigned short EXPECTED[33] = {
        40, 69, 83, 99, 119, 140, 164, 190, 219, 250, 284, 322, 362, 407, 455, 508, 565,
        628, 697, 771, 853, 941, 1038, 1144, 1259, 1384, 1521, 1670, 1833, 2011, 2204, 2415, 2646,
    };
    """
    const unsigned short[33] EXPECTED


cdef inline double aged(double age) noexcept nogil:
    # age ^ FADES
    cdef double half = sqrt(age), quarter = sqrt(half)
    return half * quarter * sqrt(quarter)


cdef inline double age_for(double worth) noexcept nogil:
    # The age whose inverse has faded to this worth.
    return pow(worth, -1 / FADES)


cdef inline double above_the_oldest(double share) noexcept nogil:
    # What `share` of a list, from its end on, is worth on average beside its oldest item, if ages fall evenly towards the head.
    return (1 - (1 - share) / aged(1 - share)) / (share * (1 - FADES))


cdef inline double mean_worth(int n, double worth, int passed, double of_passed, double want, double has) noexcept nogil:
    # Of the `want` items of a list of `has` that leave first, when at its end n were looked at that leave, and `passed` that were used:
    # if all were, theirs. 0: none was looked at.
    cdef double sampled, share
    if n == 0:
        if passed == 0:
            return 0
        worth = of_passed
        n = passed
        passed = 0
    worth /= n
    if want <= n:
        return worth
    sampled = (n + passed) / has
    share = want / n * sampled          # of the list, until so many have left
    if share > YOUNGEST:
        share = YOUNGEST
    return worth * above_the_oldest(share) / above_the_oldest(sampled) if share > sampled else worth


cdef inline double new_that_leave(double fresh, double ring, double page, double share) noexcept nogil:
    # How many of the `page` items of a list that leave first are new ones, if those may be `share` of the list.
    cdef double n = fresh - (fresh + ring - page) * share
    if n < page - ring:
        n = page - ring
    if n > page:
        n = page
    return 0 if n < 0 else fresh if n > fresh else n


cdef inline double worth_of_new(double came, double wanted) noexcept nogil:
    # What an unused new item is worth beside a used one of its age, if lately so many new ones came and so many were wanted.
    cdef double share = (wanted + DOUBT * WANTED) / (came + DOUBT) / WANTED
    return NEW_WORTH * (1 if share > 1 else NEW_LEAST if share < NEW_LEAST else share)


cdef inline int octave_of(uint32_t ticks) noexcept nogil:
    return 32 - zeros_in(ticks) if ticks else 0


cdef inline int grown_at(int octave) noexcept nogil:
    # The first octave of ages that count, if an item left in this one: from a quarter of its age on, about. 0 would be none yet.
    return octave - 1 if octave > 1 else 1


cdef inline uint32_t expected_uses(int octave, int grown) noexcept nogil:
    # How often an item should have been used, from the octave in which its age began to count up to its present one, by a measure
    # of its own. By octaves: a hit takes no roots.
    return EXPECTED[octave] - EXPECTED[grown - 1]


cdef inline double use_ratio(double uses, double expected, double all_uses, double all_expected) noexcept nogil:
    # How many times as often as its items' ages say a list is used, all lists together being 1.
    cdef double ratio
    if all_uses == 0:
        return 1
    ratio = (uses * all_expected / all_uses + EXPECTED_DOUBT) / (expected + EXPECTED_DOUBT)
    return RATIO_MOST if ratio > RATIO_MOST else 1.0 / RATIO_MOST if ratio < 1.0 / RATIO_MOST else ratio
