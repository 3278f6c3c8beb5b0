"""The process in its system: descriptors, user, signals, files, logs, the service manager. It knows no cache and no client."""
