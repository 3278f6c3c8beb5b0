"""The results as the README's table, and as lines for a terminal. Only formats; runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .runner import Report
from .servers import Target


def cell(report: Report) -> str:
    """Scenarios and own tests that passed, of how many."""
    parts = [f"{report.passed}/{len(report.scenarios)}"]
    if report.own is not None:
        parts.append(f"own {report.own.passed}/{report.own.total}")
    return ", ".join(parts) + (" **!**" if report.failures() else "")


def markdown(targets: Sequence[Target], results: Mapping[str, Mapping[str, Report]]) -> str:
    """One line a client: version, operations, and passes on each server. `results` is by server's name, then client's."""
    heads = ["client", "version", "operations (calls)", *(f"{target.name} {target.version}" for target in targets)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for client in dict.fromkeys(client for reports in results.values() for client in reports):
        found = [results[target.name].get(client) for target in targets]
        reports = [report for report in found if report is not None]
        first = next((report for report in reports if report.version), reports[0])
        cells = ["not run" if report is None else cell(report) for report in found]
        row = [first.title or client, first.version, f"{len(first.covered)} ({first.calls:,})", *cells]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def line(target: Target, report: Report) -> str:
    """One client's result on one server, for who watches."""
    return f"{target.name:<12} {report.client:<22} {cell(report)}"
