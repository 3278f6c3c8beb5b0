"""One file a client. They import their client at the top, so only `child.py` loads them, each in a process of its own."""
