"""Faults on purpose: does the suite notice a server that is wrong in one thing?

A proxy in front of a right server plants one fault at a time. Each fault names the cases that must then fail; the
cases behind a proxy without a fault must pass. `python -m conformance.faults --spawn COMMAND` proves both.
"""

from . import binary, classic, meta, service
from .planted import Fault, Talk
from .proxy import Proxied, Proxy

__all__ = ["Fault", "Proxied", "Proxy", "Talk", "faults"]


def faults() -> tuple[Fault, ...]:
    """Every fault, by subject."""
    return (*classic.FAULTS, *meta.FAULTS, *service.FAULTS, *binary.FAULTS)
