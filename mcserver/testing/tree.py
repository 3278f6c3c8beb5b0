"""ZooKeeper's tree of znodes, one copy a server: pure data. Requests become deltas; deltas change a tree."""

from __future__ import annotations

from typing import NamedTuple

from mcserver.coordination import ports
from mcserver.coordination.ports import Check, Create, Delete, Operation, Set, Stat


class ZNode:
    """One znode. Times are ms, zxids count changes of the tree; owner: the session that it is ephemeral to, 0 for none."""

    __slots__ = ("children", "creates", "ctime", "czxid", "data", "mtime", "mzxid", "owner", "version")

    def __init__(self, data: bytes, zxid: int, owner: int, time: int = 0) -> None:
        self.data = data
        self.ctime = self.mtime = time
        self.czxid = self.mzxid = zxid
        self.version = 0
        self.creates = 0
        self.children: dict[str, None] = {}  # a dict: the same order in every run
        self.owner = owner

    def stat(self) -> Stat:
        return Stat(
            self.czxid,
            self.mzxid,
            self.version,
            2 * self.creates - len(self.children),
            len(self.children),
            self.owner,
            self.ctime,
            self.mtime,
        )


class Delta(NamedTuple):
    """One change: `create` (data, owner), `set` (data) or `delete` of a path."""

    kind: str
    path: str
    data: bytes = b""
    owner: int = 0


class Tree:
    """The state after the first `applied` transactions."""

    def __init__(self) -> None:
        self.nodes: dict[str, ZNode] = {"/": ZNode(b"", 0, 0)}
        self.applied = 0

    def apply(self, deltas: list[Delta], zxid: int, time: int) -> None:
        """`time` of the transaction in ns; a Stat shows it in ms, as ZooKeeper does."""
        nodes, time = self.nodes, 1_700_000_000_000 + time // 1_000_000
        for kind, path, data, owner in deltas:
            if kind == "set":
                node = nodes[path]
                node.data, node.mzxid, node.mtime = data, zxid, time
                node.version += 1
                continue
            parent, _, name = path.rpartition("/")
            above = nodes[parent or "/"]
            if kind == "create":
                nodes[path] = ZNode(data, zxid, owner, time)
                above.children[name] = None
                above.creates += 1
            else:
                del nodes[path]
                above.children.pop(name, None)

    def prepare(self, operations: list[Operation], session: int) -> tuple[list[Delta], list[str | None]]:
        """What the operations would do to this tree, all or nothing: deltas, and the paths created.

        Raises as ZooKeeper answers. Only the last operations of a multi may depend on what the first ones did to the same
        parent, and only by creating below it: that is all that is needed here.
        """
        deltas: list[Delta] = []
        paths: list[str | None] = []
        made: dict[str, int] = {}
        for index, operation in enumerate(operations):
            path = operation.path
            node = self.nodes.get(path)
            if isinstance(operation, Create):
                parent = path.rpartition("/")[0] or "/"
                above = self.nodes.get(parent)
                if above is None and not any(delta.path == parent for delta in deltas):
                    raise ports.NoNode(path, index)
                if operation.sequence:
                    path += f"{(above.creates if above else 0) + made.get(parent, 0):010d}"
                if path in self.nodes:
                    raise ports.NodeExists(path, index)
                made[parent] = made.get(parent, 0) + 1
                deltas.append(Delta("create", path, operation.data, session if operation.ephemeral else 0))
                paths.append(path)
                continue
            if node is None:
                raise ports.NoNode(path, index)
            if operation.version not in (-1, node.version):
                raise ports.BadVersion(path, index)
            if isinstance(operation, Delete):
                gone = sum(delta.kind == "delete" and delta.path.startswith(path + "/") for delta in deltas)
                if len(node.children) > gone:
                    raise ports.NotEmpty(path, index)
                deltas.append(Delta("delete", path))
            elif isinstance(operation, Set):
                deltas.append(Delta("set", path, operation.data))
            else:
                assert isinstance(operation, Check)
            paths.append(None)
        return deltas, paths

    def ephemerals(self, session: int) -> list[str]:
        return [path for path, node in self.nodes.items() if node.owner == session]
