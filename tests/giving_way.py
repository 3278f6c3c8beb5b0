"""How a test's long work leaves the processor to the tests that wait for something, which have time limits."""

GIVES_WAY = ("nice", "-n", "5")
"""No more: beside programs that take all there is, work at the lowest priority would never end."""
