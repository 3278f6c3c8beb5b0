"""Results as pages: --html DIR, and the matrix of `mcconform report`.

Owns the pages: index.html for the run, case/NAME.html for each case. They need no network and no script of others; the
filter is a few lines of script, and without script everything is shown. It judges nothing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from . import __version__, library, report
from .formats import Facts, counts
from .runner import STATUSES, Result
from .wire import Address

MARK = '<meta name="generator" content="mcconform">'
NO_TEXT = "backslashreplace"  # what a file does with bytes of a name that are no UTF-8
LOG = 400  # lines of a wire log on a page
STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;text-align:left;border-bottom:1px solid #8884;
vertical-align:top}th{position:sticky;top:0;background:Canvas}pre{background:#8881;padding:.8rem;overflow-x:auto}
.passed{color:#18803c}.failed{color:#c62828;font-weight:600}.expected{color:#b26a00}
.skipped,.unsupported,.notrun{color:#777}nav{margin:1rem 0}button,input{font:inherit;padding:.2rem .6rem}
a{color:inherit}.sent{color:#1565c0}.came{color:#6a1b9a}blockquote{border-left:3px solid #8886;margin:1rem 0;padding-left:1rem}
@media(prefers-color-scheme:dark){.sent{color:#82b1ff}.came{color:#e1a5ff}.failed{color:#ff8a80}.passed{color:#7bd88f}}
"""
SCRIPT = """
const rows=[...document.querySelectorAll('tr[data-status]')];let wanted='';const box=document.getElementById('find');
function show(){const text=box.value.toLowerCase();let n=0;for(const row of rows){const hit=(!wanted||row.dataset.status===wanted)
&&row.textContent.toLowerCase().includes(text);row.hidden=!hit;n+=hit}document.getElementById('shown').textContent=n}
for(const b of document.querySelectorAll('button[data-only]'))b.onclick=()=>{wanted=b.dataset.only;show()};box.oninput=show;show()
"""


def write(folder: Path, results: Sequence[Result], facts: Facts, where: Address, command: str) -> None:
    """Writes a page for the run and one for each case; OSError when the folder cannot be written."""
    (folder / "case").mkdir(parents=True, exist_ok=True)
    _clear(folder / "case", {page(result.case.id) for result in results})
    (folder / "index.html").write_text(_index(results, facts), "utf-8", NO_TEXT)
    for number, result in enumerate(results):
        before = results[number - 1] if number else None
        after = results[number + 1] if number + 1 < len(results) else None
        text = _case(result, facts, before, after, report.repeat(result, where, command) if result.log else [])
        (folder / "case" / page(result.case.id)).write_text(text, "utf-8", NO_TEXT)


def prepare(folder: Path) -> None:
    """Makes the folder, and finds out whether pages can be written there; OSError when they cannot."""
    (folder / "case").mkdir(parents=True, exist_ok=True)
    for path in (folder / "index.html", folder / "case" / "index.html"):
        there = path.exists()
        with path.open("ab"):
            pass
        if not there:
            path.unlink()


def _clear(folder: Path, keep: set[str]) -> None:
    """Removes what an earlier run left of cases that this one has not; files of others stay."""
    for path in folder.glob("*.html"):
        if path.name not in keep and path.is_file():
            with path.open("rb") as file:
                ours = MARK.encode() in file.read(len(MARK) + 200)
            if ours:
                path.unlink()


def page(name: str) -> str:
    """The file of a case."""
    return re.sub(r"[^A-Za-z0-9.-]", lambda m: "_" if m[0] == "/" else f"+{ord(m[0]):x}", name) + ".html"


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"{MARK}<title>{html.escape(title)}</title><style>{STYLE}</style><body>{body}</body></html>\n"
    )


def _index(results: Sequence[Result], facts: Facts) -> str:
    total = counts(results)
    buttons = "".join(
        f'<button data-only="{status}">{total[status]} {status}</button> ' for status in STATUSES if total[status]
    )
    rows = "".join(
        f'<tr data-status="{r.status}"><td><a href="case/{page(r.case.id)}">{html.escape(r.case.id)}</a><td>{r.case.level}'
        f'<td class="{r.status.replace(" ", "")}">{r.status}<td>{html.escape(r.reason or r.case.requirement)}'
        for r in results
    )
    groups = "".join(
        f"<li>{report.size(group)}: {html.escape(report.told(group[0]))}: "
        f'<a href="case/{page(group[0].case.id)}">{html.escape(group[0].case.id)}</a>'
        for group in report.causes(results)
    )
    causes = f"<h2>Causes</h2><ol id=causes>{groups}</ol>" if groups else ""
    body = (
        f"<h1>{html.escape(facts.name or facts.target)}</h1><p id=look>{html.escape(facts.look)}</p>{_facts(facts)}{causes}"
        f'<h2>Cases</h2><nav><button data-only="">all</button> {buttons}<input id=find placeholder="find" aria-label="find">'
        f" <span id=shown>{len(results)}</span> shown</nav><table><thead><tr><th>case<th>level<th>status<th>what</thead>"
        f"<tbody>{rows}</tbody></table><script>{SCRIPT}</script>"
    )
    return _page(f"mcconform: {facts.name or facts.target}", body)


def _facts(facts: Facts) -> str:
    known = {
        "target": facts.target, "profile": facts.profile, "date": facts.date, "suite": f"mcconform {__version__}",
        "options": " ".join(facts.options), "ended": facts.ended,
    }  # fmt: skip
    return "<p>" + " · ".join(f"{name}: {html.escape(value)}" for name, value in known.items() if value) + "</p>"


def _case(result: Result, facts: Facts, before: Result | None, after: Result | None, repeat: list[str]) -> str:
    case = result.case
    links = '<nav><a href="../index.html">all cases</a>'
    links += f' · <a id=before href="{page(before.case.id)}">before</a>' if before else ""
    links += f' · <a id=after href="{page(after.case.id)}">after</a>' if after else ""
    cited = library.cited(case)
    sentence = (
        f"<blockquote id=sentence>protocol.txt, {html.escape(cited[0])}: {html.escape(cited[1])} ...</blockquote>"
        if cited
        else ""
    )
    rules = "".join(f"<li>{html.escape(library.rules()[rule])}" for rule in case.rules)
    body = (
        f"{links}</nav><h1>{html.escape(case.id)}</h1><p id=requirement>{html.escape(case.requirement)}</p>{sentence}"
        f"<p>{case.level} · {html.escape(case.doc.removesuffix(':'))} · "
        f'<b id=status class="{result.status.replace(" ", "")}">{result.status}</b>'
        f" {html.escape(result.reason)}</p><ul>{rules}</ul>"
    )
    if result.failure:
        wanted, got = report.show(result.failure.wanted), report.show(result.failure.got)
        body += (
            f"<h2>Wanted and came</h2><pre>wanted {html.escape(wanted)}\ncame   {html.escape(got) or 'nothing'}</pre>"
        )
    if result.log:
        lines = "\n".join(_wire_line(line) for line in report.telnet(result.log, LOG))
        body += f"<h2>On the wire</h2><pre id=wire>{lines}</pre>"
        body += f"<h2>Repeat it</h2><pre id=repeat>{html.escape(chr(10).join(repeat))}</pre>"
    return _page(case.id, body + f"<p>{html.escape(facts.name or facts.target)}, {facts.date}</p>")


def _wire_line(line: str) -> str:
    if line.startswith("~"):
        return html.escape(line)
    kind = "sent" if re.match(r"\d*>", line) else "came"
    return f'<span class="{kind}">{html.escape(line)}</span>'


def matrix_page(lines: Sequence[Sequence[str]], cases: Sequence[Sequence[str]]) -> str:
    """The matrix as a page: `lines` is the summary with its head, `cases` a line a case with its head."""

    def table(rows: Sequence[Sequence[str]], name: str) -> str:
        head = "".join(f"<th>{html.escape(cell)}" for cell in rows[0])
        body = "".join(
            "<tr>" + "".join(f'<td class="{cell.replace(" ", "")}">{html.escape(cell)}' for cell in row)
            for row in rows[1:]
        )
        return f"<table id={name}><thead><tr>{head}</thead><tbody>{body}</tbody></table>"

    return _page(
        "mcconform: implementations",
        f"<h1>Implementations</h1>{table(lines, 'summary')}<h2>Cases</h2>{table(cases, 'cases')}",
    )
