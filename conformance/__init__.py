"""A conformance suite for servers that speak memcached's protocols (text, meta, binary), and for their clients.

It talks to a server over its socket and knows nothing of what is behind it: standard library only, no import from
any server. `python -m conformance HOST:PORT` runs it, as mcconform does; docs/conformance.md tells the rest.
"""

__version__ = "1.3.0"
