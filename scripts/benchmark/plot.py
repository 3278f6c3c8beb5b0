"""Draws hit ratio over memory. It measures nothing; matplotlib is loaded here alone, and only when a plot is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .programs import BenchError

Curve = Sequence[float]
GREY = "#7f8791"  # on white and on black alike
SERVERS = ("#2f81f7", "#e0701a")
MODELS = (("#7f8791", (0, (5, 2))), ("#2da44e", (0, (1, 1.3))))


def draw(
    path: Path, memory: Sequence[int], panels: Mapping[str, Mapping[str, Curve]], servers: Sequence[str], about: str
) -> None:
    """Writes an SVG or PNG by the name of `path`: a panel a load, a curve a contestant, in percent at each of `memory` (MiB).

    The background is left out, so that the page's own shows. BenchError: matplotlib is missing.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, NullLocator
    except ImportError as error:
        raise BenchError("a plot needs matplotlib: pip install 'mcserver[bench]'") from error
    colours = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), GREY
    )
    style: dict[Any, Any] = {**colours, "font.size": 10, "svg.hashsalt": "hits", "svg.fonttype": "path"}
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with mpl.rc_context(style):
        figure = Figure(figsize=(0.6 + 3.1 * columns, 1.0 + 2.3 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
            for name, look in looks(list(curves), servers).items():
                axes.plot(memory, curves[name], label=name, **look)
            axes.set_title(title, fontsize=10, loc="left")
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(list(memory)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter("{x:.0f}")
            axes.grid(visible=True, alpha=0.25, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_facecolor("none")
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        figure.supxlabel(f"-m, MiB ({about})", fontsize=10)
        figure.supylabel("hits, percent", fontsize=10)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, transparent=True, dpi=160, metadata=metadata)


def looks(names: Sequence[str], servers: Sequence[str]) -> dict[str, dict[str, object]]:
    """How each curve is drawn: the models thin and beneath, the servers thick."""
    drawn: dict[str, dict[str, object]] = {}
    for name in names:
        if name in servers:
            place = list(servers).index(name)
            drawn[name] = {
                "color": SERVERS[place % 2],
                "linewidth": 2.2,
                "marker": "os"[place % 2],
                "markersize": 4.5,
                "zorder": 3,
            }
        else:
            colour, dashes = MODELS[len(drawn) % 2]
            drawn[name] = {"color": colour, "linewidth": 1.1, "linestyle": dashes, "zorder": 2}
    return drawn
