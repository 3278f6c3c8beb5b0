"""mcserver: a cache server that memcached's clients use unchanged.

This module owns the two version numbers, and must import nothing: `-V` and `-h` load it.
"""

__version__ = "0.1.0"

MEMCACHED_VERSION = "1.6.45"
"""The version of memcached whose behaviour is reproduced; `version` and `-V` answer it."""
