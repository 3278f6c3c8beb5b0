"""mcserver, that acknowledges by cells of two from two members on: `python -m tests.cluster.in_cells`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from mcserver.cli import main
from mcserver.coordination import opening


def in_cells() -> None:
    made = opening.make_settings

    def make_settings(*args: Any) -> Any:
        return replace(made(*args), direct_max=0, cell_size=2)

    opening.make_settings = make_settings


if __name__ == "__main__":
    in_cells()
    sys.exit(main())
