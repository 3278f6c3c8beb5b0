"""The coordination of earlier releases, unchanged, for fleets in which both are: what a rolling upgrade is tested with.

`coordination-0.1.0.zip` holds mcserver/coordination/ as it was released first, on 2026-11-22: log format 1, no roll, no cells;
`coordination-2026-11-26.zip` as it was on that day (5da4d3c): log format 2. They are imported from the archives under names
of their own. `python -m tests.released` is a whole server with one: the first, or that which RELEASED in the environment names.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import zipimport
from pathlib import Path
from typing import Any

FIRST = "0.1.0"
RELEASES = (FIRST, "2026-11-26")


def archive(release: str) -> Path:
    return Path(__file__).parent / f"coordination-{release}.zip"


def machines(release: str) -> Any:
    """The package, with this release's ports at its edges, so that it runs in the simulated world beside the present one.

    Ports only name what passes the edges; the present ones have all that the released ones had.
    """
    name = "released_coordination_" + "".join(filter(str.isdigit, release))
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [f"{archive(release)}/mcserver/coordination"]
        sys.modules[name] = package
        sys.modules[f"{name}.ports"] = importlib.import_module("mcserver.coordination.ports")
    return types.SimpleNamespace(
        Node=importlib.import_module(f"{name}.node").Node,
        Settings=importlib.import_module(f"{name}.settings").Settings,
        entry=importlib.import_module(f"{name}.entry"),
    )


def take_the_place_of_the_present(release: str) -> None:
    """From now on `mcserver.coordination` is the released one; to be called before anything has imported it."""
    name = "mcserver.coordination"
    assert name not in sys.modules
    spec = zipimport.zipimporter(f"{archive(release)}/mcserver").find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
