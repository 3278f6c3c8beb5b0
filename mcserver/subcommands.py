"""The words that make another program of this one when they come first. It imports nothing: the help page names them, too."""

SUBCOMMANDS = {
    "config": (
        "mcserver.cli",
        "show_config",
        "print the effective settings as a configuration file, each with its origin",
    ),
    "top": ("mcserver.tools.top", "main", "show what servers do now, on a terminal; any memcached"),
    "ping": ("mcserver.tools.ping", "main", "ask whether servers answer, and how fast"),
    "stats": ("mcserver.tools.stats", "main", "print a server's statistics, as a table or JSON"),
    "dump": ("mcserver.tools.copying", "dump_main", "write a server's items as lines of JSON, with their expiry"),
    "load": ("mcserver.tools.copying", "load_main", "store what dump wrote"),
    "bench": ("mcserver.tools.bench", "main", "check a server's latency and rate quickly"),
    "pages": ("mcserver.pages", "main", "print the man page, a shell's completions, or the table of options"),
}
"""Words that make another program of this one when they come first: where it begins, and what it does.

A link that is named memcached has none of them."""
