"""The cold commands: all but the data commands. They ask the engine and the server; they must never do input or output.

commands.py maps a verb to its function; each file holds one idea. A server answers before it loads most of this.
"""
