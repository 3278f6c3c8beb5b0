"""Tools around a cache: ping, stats, top, dump, load, bench. Each is a client of any memcached; none imports the server."""
