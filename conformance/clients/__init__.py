"""Real memcached clients run against any memcached-like server: `python -m conformance.clients HOST:PORT`.

One file a client under `scenarios/`; each runs in a process of its own, so that a client that hangs, crashes or shares a
module name with another harms only itself. Nothing here knows which server it talks to, and nothing outside imports it.
"""
