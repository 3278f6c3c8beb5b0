"""The coordination of an earlier release, unchanged, for fleets in which both are: what a rolling upgrade is tested with.

`coordination-0.1.0.zip` holds mcserver/coordination/ as it was released first, on 2026-11-22: log format 1, no roll, no cells.
It is imported from the archive under a name of its own. `python -m tests.released` is a whole server with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import zipimport
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).parent / "coordination-0.1.0.zip"
NAME = "released_coordination"


def machines() -> Any:
    """The package, with this release's ports at its edges, so that it runs in the simulated world beside the present one.

    Ports only name what passes the edges; the present ones have all that the released ones had.
    """
    if NAME not in sys.modules:
        package = types.ModuleType(NAME)
        package.__path__ = [f"{ARCHIVE}/mcserver/coordination"]
        sys.modules[NAME] = package
        sys.modules[f"{NAME}.ports"] = importlib.import_module("mcserver.coordination.ports")
    return types.SimpleNamespace(
        Node=importlib.import_module(f"{NAME}.node").Node,
        Settings=importlib.import_module(f"{NAME}.settings").Settings,
        entry=importlib.import_module(f"{NAME}.entry"),
    )


def take_the_place_of_the_present() -> None:
    """From now on `mcserver.coordination` is the released one; to be called before anything has imported it."""
    name = "mcserver.coordination"
    assert name not in sys.modules
    spec = zipimport.zipimporter(f"{ARCHIVE}/mcserver").find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
