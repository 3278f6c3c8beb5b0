"""Results for machines: --json and --junit.

Owns the two file formats. JSON: an object with `profile`, `target`, `counts` and `cases` (id, requirement, section, doc, level,
rules, status, reason, seconds, and for failures wanted, got and exchange, bytes as latin-1). JUnit: one suite a section.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from .report import show, telnet
from .runner import Result


def write_json(path: Path, results: Sequence[Result], *, profile: str, target: str) -> None:
    """Writes one JSON object; OSError when the file cannot be written."""
    counts = {status: sum(result.status == status for result in results) for status in ("passed", "failed", "skipped")}
    document = {"profile": profile, "target": target, "counts": counts, "cases": [_case(result) for result in results]}
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _case(result: Result) -> dict[str, object]:
    case = result.case
    entry: dict[str, object] = {
        "id": case.id, "requirement": case.requirement, "section": case.section, "doc": case.doc, "level": case.level,
        "rules": list(case.rules), "status": result.status, "reason": result.reason, "seconds": round(result.seconds, 4),
    }  # fmt: skip
    if result.failure:
        entry["wanted"] = result.failure.wanted.decode("latin-1")
        entry["got"] = result.failure.got.decode("latin-1")
        entry["exchange"] = [[number, way, show(data)] for number, way, data in result.log]
    return entry


def write_junit(path: Path, results: Sequence[Result]) -> None:
    """Writes JUnit's XML; OSError when the file cannot be written."""
    root = ET.Element("testsuites", name="mcconform")
    suites: dict[str, list[Result]] = {}
    for result in results:
        suites.setdefault(result.case.section, []).append(result)
    for section, members in suites.items():
        suite = ET.SubElement(
            root, "testsuite", name=section, tests=str(len(members)),
            failures=str(sum(result.status == "failed" for result in members)),
            skipped=str(sum(result.status == "skipped" for result in members)),
            time=f"{sum(result.seconds for result in members):.3f}",
        )  # fmt: skip
        for result in members:
            element = ET.SubElement(
                suite, "testcase", classname=section, name=result.case.id, time=f"{result.seconds:.3f}"
            )
            if result.status == "skipped":
                ET.SubElement(element, "skipped", message=result.reason)
            if result.failure:
                text = [result.case.requirement, *telnet(result.log), f"wanted {show(result.failure.wanted)}",
                        f"came {show(result.failure.got)}"]  # fmt: skip
                ET.SubElement(element, "failure", message=result.reason).text = "\n".join(text)
    ET.indent(root)
    ET.ElementTree(root).write(path, "utf-8", xml_declaration=True)
