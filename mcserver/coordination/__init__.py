"""Coherent caches through ZooKeeper. Knows the few verbs of the cache, never the protocol."""
