"""Clients that ask a server for its cluster, as Amazon ElastiCache's auto discovery answers; one file a client."""
