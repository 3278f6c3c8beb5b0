"""The rules of this project that no other tool checks: arrows and circles of imports, kazoo and the loop, tests, exceptions.

Each check yields complaints, `path:line: text`; none of them changes anything.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
CIMPORT = re.compile(r"^from \.(\w+) cimport |^cimport (?:mcserver\.core\.)?(\w+)|^from mcserver\.core\.(\w+) cimport ")
BLOCKING = {
    "add_auth", "close", "commit", "create", "delete", "ensure_path", "exists", "get", "get_acls", "get_children", "restart",
    "server_version", "set", "set_acls", "start", "stop", "sync",
}  # fmt: skip
"""Methods of kazoo's client that wait for an answer."""
FUNCTION = re.compile(r"cdef (inline )?[\w *]+\(")
KAZOO_CLIENT = re.compile(r"client|kazoo|^zk$", re.IGNORECASE)
UNEXPLAINED = re.compile(r"# (noqa|type: ignore)(: [A-Z]+\d+(, [A-Z]+\d+)*|\[[\w, -]+\])?\s*$")
UNMERGED = re.compile(r"(<{7}|>{7}) ")
SKIPS = re.compile(r"pytest\.(skip|importorskip)\b|mark\.skip|unittest\.skip|raise SkipTest")


def main() -> int:
    complaints = [
        *core_arrows(ROOT),
        *core_in_docs(ROOT),
        *no_interpreter(ROOT),
        *circles(ROOT),
        *blocking_kazoo(ROOT),
        *skipped_tests(ROOT),
        *unmerged(ROOT),
        *unexplained(ROOT),
    ]
    print(*complaints, sep="\n", end="\n" if complaints else "")
    return 1 if complaints else 0


def core_arrows(root: Path) -> Iterator[str]:
    """A compiled module cimports only from the layers below its own, in the order of pyproject.toml."""
    layers = core_layers(root)
    level = {name: height for height, names in enumerate(layers) for name in names.split()}
    for path in sorted((root / "mcserver/core").glob("*.p[xy][dx]")):
        if path.stem not in level:
            yield f"{path.relative_to(root)}:1: not in pyproject.toml's core-layers"
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if match := CIMPORT.match(line):
                name = match[1] or match[2] or match[3]
                if name in level and level[name] >= level[path.stem] and name != path.stem:
                    yield f"{path.relative_to(root)}:{number}: {path.stem} is not above {name} (core-layers)"


def core_layers(root: Path) -> list[str]:
    """The layers of the core from the bottom up, each the names of its rooms."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    layers: list[str] = settings["tool"]["mcserver"]["core-layers"]
    return layers


def core_in_docs(root: Path) -> Iterator[str]:
    """The architecture page lists the core's layers, one a line, in their order."""
    page = Path("docs/architecture.md")
    lines = iter((root / page).read_text().splitlines())
    for layer in core_layers(root):
        if not any(line.startswith(f"{layer}  ") for line in lines):
            yield f"{page}:1: no line of the core's rooms begins with {layer!r}, or not in its place"
            return


def no_interpreter(root: Path) -> Iterator[str]:
    """The rooms below engine.pyx never take the GIL: every function there is `nogil`, and none takes it for a while.

    Cython refuses a call from such a function to one that needs it, so nothing that a worker reaches can.
    """
    for path in sorted((root / "mcserver/core").glob("*.pxd")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.relative_to(root)}:{number}"
            if "with gil" in line:
                yield f"{where}: a worker never takes the GIL"
            elif FUNCTION.match(line) and not line.rstrip().endswith(("nogil:", ",", "(")):
                yield f"{where}: not nogil"
    for path in sorted((root / "mcserver/core").glob("*.px[iy]")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "with gil" in line:
                yield f"{path.relative_to(root)}:{number}: a worker never takes the GIL"


def circles(root: Path) -> Iterator[str]:
    """No module imports itself by way of others; imports for types only, and within functions, count, too."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("mcserver", "conformance")
        for path in sorted((root / package).rglob("*.py"))
    }
    try:
        TopologicalSorter({name: imported(name, path, paths) for name, path in paths.items()}).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        yield f"{paths[circle[0]].relative_to(root)}:1: imports in a circle: {' -> '.join(circle)}"


def imported(name: str, path: Path, known: Collection[str]) -> set[str]:
    """The modules among the known ones that this module names in its import statements."""
    found: set[str] = set()
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*package[: len(package) + 1 - node.level], node.module or ""] if node.level else [node.module or ""]
            )
            base = base.strip(".")
            for each in node.names:
                deeper = f"{base}.{each.name}"
                found.add(deeper if deeper in known else base)
    return (found & set(known)) - {name}


def blocking_kazoo(root: Path) -> Iterator[str]:
    """kazoo is met in coordination only, and no call there waits for ZooKeeper; a function that says "never on the loop" may."""
    for path in sorted((root / "mcserver").rglob("*.py")):
        where = path.relative_to(root)
        source = path.read_text()
        tree = ast.parse(source)
        if not imports_kazoo(tree):
            continue
        if "coordination" not in where.parts:
            yield f"{where}:1: only mcserver/coordination may import kazoo"
        for node in nodes_on_the_loop(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in BLOCKING:
                target = node.func.value
                name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
                if KAZOO_CLIENT.search(name):
                    yield f"{where}:{node.lineno}: {name}.{node.func.attr}() waits for ZooKeeper"


def nodes_on_the_loop(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and "never on the loop" in (ast.get_docstring(node) or ""):
            continue
        yield node
        yield from nodes_on_the_loop(node)


def imports_kazoo(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(each.name.split(".")[0] == "kazoo" for each in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kazoo":
            return True
    return False


def skipped_tests(root: Path) -> Iterator[str]:
    """A missing tool makes a test fail, never skip."""
    for path in sorted((root / "tests").rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if SKIPS.search(line):
                yield f"{path.relative_to(root)}:{number}: tests are not skipped"


def unmerged(root: Path) -> Iterator[str]:
    """No page or file keeps the marks that git leaves where two changes met."""
    patterns = ("*.md", "docs/**/*.md", "mcserver/**/*.p*", "packaging/**/*")
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        if path.is_file():
            for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
                if UNMERGED.match(line):
                    yield f"{path.relative_to(root)}:{number}: two changes met here and were not merged"


def unexplained(root: Path) -> Iterator[str]:
    """An exception from another tool's rules says why, behind a second # or a dash."""
    for package in ("mcserver", "conformance", "scripts", "tests", "packaging"):
        for path in sorted((root / package).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if UNEXPLAINED.search(line):
                    yield f"{path.relative_to(root)}:{number}: say why, behind another #"


if __name__ == "__main__":
    sys.exit(main())
