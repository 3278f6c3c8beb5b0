"""Results for machines: --json and --junit.

Owns the two file formats. JSON: an object with `suite_version`, `name`, `server` (version and look), `date`, `options`,
`profile`, `target`, `counts`, `ended` and `cases` (id, requirement, suite, section, doc, level, cite, rules, status, reason,
seconds, and for failures wanted, got and exchange, bytes as latin-1; an exchange is a list of connection, `>` sent, `<` came
or `~` waited, and a text). JUnit: one suite a section, the same facts as properties.
"""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import __version__, library
from .report import LINES, show, telnet
from .runner import STATUSES, Result

LONGEST = 4096  # bytes of one text in a file


@dataclass(frozen=True)
class Facts:
    """What a run is about. name: how a matrix calls the server. look: the sentence of the look."""

    profile: str
    target: str
    name: str = ""
    says: str = ""
    look: str = ""
    options: tuple[str, ...] = ()
    ended: str = ""
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def unwritable(path: Path) -> str:
    """Why no file can be written there, to say it before a run and not behind it; empty when one can. It harms no file."""
    try:
        with path.open("ab"):
            return ""
    except OSError as error:
        return f"cannot write {path}: {error.strerror}"


def counts(results: Sequence[Result]) -> dict[str, int]:
    """How many results have each status."""
    return {status: sum(result.status == status for result in results) for status in STATUSES}


def write_json(path: Path, results: Sequence[Result], facts: Facts) -> None:
    """Writes one JSON object; OSError when the file cannot be written."""
    document = {
        "suite_version": __version__, "name": facts.name or (f"{facts.target} ({facts.says})" if facts.says else facts.target),
        "server": {"version": facts.says, "look": facts.look}, "date": facts.date, "options": list(facts.options),
        "profile": facts.profile, "target": facts.target, "counts": counts(results), "ended": facts.ended,
        "cases": [_case(result) for result in results],
    }  # fmt: skip
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _case(result: Result) -> dict[str, object]:
    case = result.case
    entry: dict[str, object] = {
        "id": case.id,
        "requirement": case.requirement,
        "suite": case.suite,
        "section": case.section,
        "doc": case.doc,
        "level": case.level,
        "cite": list(library.cited(case) or ()),
        "rules": list(case.rules),
        "status": result.status,
        "reason": result.reason,
        "seconds": round(result.seconds, 4),
    }
    if result.failure:
        entry["wanted"] = result.failure.wanted[:LONGEST].decode("latin-1")
        entry["got"] = result.failure.got[:LONGEST].decode("latin-1")
        entry["exchange"] = [[number, way, show(data)] for number, way, data in result.log[:LINES]]
    return entry


def write_junit(path: Path, results: Sequence[Result], facts: Facts) -> None:
    """Writes JUnit's XML; OSError when the file cannot be written."""
    total = counts(results)
    root = ET.Element(
        "testsuites", name="mcconform", tests=str(len(results)), failures=str(total["failed"]), errors="0",
        skipped=str(len(results) - total["passed"] - total["failed"]), timestamp=facts.date.removesuffix("Z"),
        time=f"{sum(result.seconds for result in results):.3f}",
    )  # fmt: skip
    known = {"suite_version": __version__, "server": facts.says, "target": facts.target, "profile": facts.profile,
             "look": facts.look, "options": " ".join(facts.options)}  # fmt: skip
    if not results and facts.ended:  # nothing could be asked: a reader must not take that for a success
        root.set("errors", "1")
        suite = ET.SubElement(root, "testsuite", name="look", tests="1", errors="1", failures="0", skipped="0")
        ET.SubElement(
            ET.SubElement(suite, "testcase", classname="look", name="look"), "error", message=_xml(facts.ended)
        )
    suites: dict[str, list[Result]] = {}
    for result in results:
        suites.setdefault(result.case.section, []).append(result)
    for section, members in suites.items():
        suite = ET.SubElement(
            root, "testsuite", name=section, tests=str(len(members)),
            failures=str(sum(result.status == "failed" for result in members)),
            skipped=str(sum(result.status not in {"passed", "failed"} for result in members)), errors="0",
            time=f"{sum(result.seconds for result in members):.3f}",
        )  # fmt: skip
        properties = ET.SubElement(suite, "properties")
        for name, value in known.items():
            ET.SubElement(properties, "property", name=name, value=_xml(value))
        for result in members:
            element = ET.SubElement(
                suite, "testcase", classname=section, name=result.case.id, time=f"{result.seconds:.3f}"
            )
            if result.status not in {"passed", "failed"}:
                ET.SubElement(element, "skipped", message=_xml(f"{result.status}: {result.reason}"))
            elif result.failure:
                text = [result.case.requirement, *telnet(result.log), f"wanted {show(result.failure.wanted)}",
                        f"came {show(result.failure.got)}"]  # fmt: skip
                ET.SubElement(element, "failure", message=_xml(result.reason)).text = _xml("\n".join(text))
    ET.indent(root)
    ET.ElementTree(root).write(path, "utf-8", xml_declaration=True)


def _xml(text: str) -> str:
    """Text that XML may hold: control characters, and what is no character, as escapes."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char >= " " or char in "\t\n" else f"\\x{ord(char):02x}" for char in text)
