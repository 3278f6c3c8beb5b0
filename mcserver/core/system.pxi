# The process: what its system is asked for before the first thread. Included by engine.pyx.
#
# Owns two promises that can't be taken back: no more rights than now, and no swapping. Must never know an engine.

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
    enum: PR_SET_NO_NEW_PRIVS

cdef extern from "<sys/mman.h>" nogil:
    int mlockall(int flags)
    enum: MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT


def forbid_new_privileges():
    """Nothing that this process starts can get more rights than it has. Before the first thread; OSError if it can't be."""
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(errno, os.strerror(errno))


def lock_all_memory():
    """What this process uses, now and later, is never swapped; what is only reserved takes none by it. OSError if it can't be."""
    if mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        raise OSError(errno, os.strerror(errno))
