"""Tests of conformance/clients, and by it of mcserver beside memcached."""
