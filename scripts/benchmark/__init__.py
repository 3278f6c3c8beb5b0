"""mcserver measured beside memcached: `scripts/bench`. It knows servers only by their command line, their port and /proc."""
