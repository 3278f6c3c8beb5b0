"""What can be set: every option and setting once, its meaning, range and default; the file, the help. It starts nothing."""
