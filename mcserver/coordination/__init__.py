"""Coherent caches through ZooKeeper: membership, invalidation, leader, locks. Knows the cache's few verbs, never the protocol."""
