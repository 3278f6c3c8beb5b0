"""The server: what it listens on, its connections as Python sees them, its memory, its loop; start.py puts it together."""
