"""The floors as plain data: what the widget, the saved page and the static picture show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from ..exporter_metadata import operator_nodes
from ..formatting import for_json, plural
from ..runs.summary import Summary
from ..source import Line, Sources, without_folders
from .annotated_source import stretches
from .instructions import instructions
from .library import starred
from .rows import INSERTED, REMOVED, Chain

FLOORS = {
    "source": "Source line",
    "bytecode": "Bytecode",
    "fx": "FX node",
    "decomposed": "Decomposed FX node",
    "onnx": "ONNX node",
    "optimized": "Optimized ONNX node",
    "kernel": "Kernel",
}
"""From the top down."""

SOURCE, BYTECODE, FX, DECOMPOSED, ONNX, OPTIMIZED, KERNEL = range(len(FLOORS))

OPEN = ("source", "fx", "onnx", "kernel")
_FOLDS_FROM = 3
"""The fewest repeated rows that fold into one."""

Row = dict[str, Any]
Sheet = dict[str, Any]


class Floor:
    """The rows of one floor, each under a key."""

    def __init__(self, name: str, note: str = "") -> None:
        self.name, self.note = name, note
        self.rows: list[Row] = []
        self.at: dict[Any, int] = {}

    def add(self, key: Any, text: str, margin: str = "", **more: Any) -> int:
        """Add a row, unless there is one of this key; empty values are left out."""
        if key not in self.at:
            self.at[key] = len(self.rows)
            words = {name: word for name, word in more.items() if word}
            self.rows.append({"t": text, "m": margin, **words})
        return self.at[key]

    def encoded(self) -> dict[str, Any]:
        """The floor without the folders of this machine, which names of nodes do not have."""
        quoted = "tmx" if self.name in ("source", "bytecode") else "x"
        return {
            "name": self.name,
            "title": FLOORS[self.name],
            "open": self.name in OPEN,
            "note": self.note,
            "rows": [
                {key: without_folders(x) if key in quoted else x for key, x in row.items()}
                for row in self.rows
            ],
        }


def link(**rows: int) -> tuple[int, ...]:
    """Rows that belong together, by their floor; -1 on the other floors.

    >>> link(source=3, fx=0)
    (3, -1, 0, -1, -1, -1, -1)
    """
    return tuple(rows.get(floor, -1) for floor in FLOORS)


def encoded(
    title: str,
    floors: Mapping[str, Floor],
    links: Iterable[Sequence[int]],
    values: Mapping[str, Any] | None = None,
    flame: Mapping[str, Any] | None = None,
    stop: Mapping[str, Any] | None = None,
) -> Sheet:
    """The sheet that :mod:`.floors` describes."""
    return {
        "title": title,
        "floors": [floor.encoded() for floor in floors.values()],
        "links": [list(rows) for rows in links],
        "values": values or {},
        "flame": flame,
        "stop": stop,
    }


def sheet(lineage: Any) -> Sheet:
    """The seven floors of a lineage, the links between their rows, and the values."""
    return _Sheet(lineage).encoded()


class _Sheet:
    def __init__(self, lineage: Any) -> None:
        self.lineage, self.call, self.chains = lineage, lineage.call, lineage.chains
        self.floors = {name: Floor(name, self._note(name)) for name in FLOORS}
        self.instructions: dict[Line | None, list[int]] = {}
        self.library: dict[str, int] = {}
        self._source()
        self._bytecode()
        self._graphs()
        self._kernels()

    def _note(self, floor: str) -> str:
        loaded = self.lineage.artifact.graph is None
        if floor in ("bytecode", "fx", "decomposed") and loaded:
            return "A loaded file has none: only the process that exported it has the program."
        if floor in ("optimized", "kernel") and self.call is None:
            return "Known with a call: trace(onnx, args)."
        return ""

    def _source(self) -> None:
        floor = self.floors["source"]
        spent: dict[Line, float] = defaultdict(float)
        held: dict[Line, int] = defaultdict(int)
        spent_by_node: dict[str, float] = defaultdict(float)
        for chain in self.chains:
            spent_by_node[chain.node] += chain.seconds or 0.0
            if chain.line:
                spent[chain.line] += chain.seconds or 0.0
        for line, nodes in self._nodes_of_lines().items():
            held[line] = sum(value.size for node in nodes for value in self._values(node).values())

        def add(line: Line, text: str) -> None:
            floor.add(line, text, str(line.number), s=spent[line], b=held[line])
            for group in self.lineage.below(line):
                time = sum(spent_by_node[item.node] for item in group.items)
                words = f"{group.line.text}  {group.module}".rstrip()
                row = floor.add((line, group), words, group.line.place, d=1, s=time)
                self.library.update({item.node: row for item in group.items})

        lines = dict.fromkeys(chain.line for chain in self.chains if chain.line)
        add_source(floor, lines, self.lineage.sources, add)

    def _nodes_of_lines(self) -> dict[Line, dict[str, None]]:
        made: dict[Line, dict[str, None]] = defaultdict(dict)
        for chain in self.chains:
            if chain.line and chain.node:
                made[chain.line][chain.node] = None
        return made

    def _values(self, node: str) -> dict[str, Summary]:
        return self.lineage.values.get(node, {})

    def _bytecode(self) -> None:
        floor = self.floors["bytecode"]
        if floor.note:
            return
        lines = sorted({chain.line for chain in self.chains if chain.line})
        self.instructions = add_bytecode(floor, lines, self.lineage.sources)
        if not floor.rows:
            floor.note = "The source of these lines is not at hand, or does not compile by itself."

    def _graphs(self) -> None:
        artifact = self.lineage.artifact
        programs = {
            "fx": artifact.graph.program if artifact.graph else None,
            "decomposed": artifact.exported_program,
        }
        for name, program in programs.items():
            for node in operator_nodes(program.graph) if program else ():
                self.floors[name].add(node.name, node.name, operator_name(node.target))
        gone = {item.fx: item.why for item in self.lineage.absent}
        for fx, why in gone.items():
            if fx in self.floors["fx"].at:
                self.floors["fx"].rows[self.floors["fx"].at[fx]]["x"] = why
        ran = self.call.by_node if self.call else {}
        for origin in self.lineage.origins:
            removed = self.call and not origin.inside and origin.node not in ran
            remark = REMOVED if removed else origin.why
            self.floors["onnx"].add(origin.node, origin.node, origin.operator, x=remark)

    def _kernels(self) -> None:
        if not (call := self.call):
            return
        inserted = {chain.kernel for chain in self.chains if chain.remark == INSERTED}
        for kernel in call.recording.kernels:
            name, operator, match = kernel.name, kernel.operator, call.matches[kernel.name]
            fused = f"runs {plural(len(match.nodes), 'node')}" if len(match.nodes) > 1 else ""
            remark = INSERTED if name in inserted else fused
            self.floors["optimized"].add(name, name, operator, x=remark)
            more = {"x": remark, "k": match.rule, "s": call.seconds[name]}
            self.floors["kernel"].add(name, operator, **more)

    def _links(self) -> Iterable[tuple[int, ...]]:
        """One link for each chain; more where its line has several instructions or lies above a
        library's."""
        found: dict[tuple[int, ...], None] = {}
        at = {name: floor.at for name, floor in self.floors.items()}
        for chain in self.chains:
            ends = {floor: at[floor].get(name, -1) for floor, name in _names(chain).items()}
            codes = self.instructions.get(chain.line) or [-1]
            for line, code in product(self._lines(chain), codes):
                found[link(source=line, bytecode=code, **ends)] = None
        return found

    def _lines(self, chain: Chain) -> Iterable[int]:
        """The row of the user's line and, below it, that of the library's line."""
        at = self.floors["source"].at
        yield at.get(chain.line, -1)
        if chain.node in self.library:
            yield self.library[chain.node]

    def encoded(self) -> Sheet:
        self._fold()
        title, values = self.lineage.artifact.path.name, self._encoded_values()
        return encoded(title, self.floors, self._links(), values, self._flame())

    def _fold(self) -> None:
        """Number the groups of rows that repeat: one line, operator and module but for its number,
        as in the blocks of an encoder."""
        chains: dict[str, dict[str, Chain]] = {name: {} for name in FLOORS}
        for chain in self.chains:
            for floor, name in _names(chain).items():
                chains[floor].setdefault(name, chain)
        for name, by_key in chains.items():
            fold(self.floors[name], by_key)

    def _encoded_values(self) -> dict[str, Any]:
        found = {}
        for node, row in self.floors["onnx"].at.items():
            for name, value in [*self._values(node).items()][:1]:
                found[str(row)] = {"name": name, "node": row, **encoded_value(value)}
        return found

    def _flame(self) -> Mapping[str, Any] | None:
        """The trees of time; each box has the number of its source row, or -1."""
        if not (self.call and self.call.flame):
            return None
        rows = {row["m"]: at for at, row in enumerate(self.floors["source"].rows)}  # a library's
        keys = self.floors["source"].at.items()
        rows |= {key.place: at for key, at in keys if isinstance(key, Line)}  # the user's

        def placed(box: Mapping[str, Any]) -> dict[str, Any]:
            name, row = without_folders(box["name"]), rows.get(box["line"], -1)
            children = [placed(child) for child in box["children"]]
            return {"name": name, "seconds": box["seconds"], "row": row, "children": children}

        return {way: placed(tree) for way, tree in self.call.flame.items()}


def add_source(
    floor: Floor,
    lines: Iterable[Line],
    sources: Sources,
    add: Callable[[Line, str], object] | None = None,
) -> None:
    """Add the functions around these lines; ``add`` adds the row of such a line."""
    add = add or (lambda line, text: floor.add(line, text, str(line.number)))
    for title, shown in stretches(lines, sources):
        floor.add((title, "title"), title, h=1)
        for number, text, line in shown:
            if line:
                add(line, text)
            else:
                floor.add((title, len(floor.rows)), text, str(number or ""), h=1)


def add_bytecode(
    floor: Floor, lines: Iterable[Line], sources: Sources
) -> dict[Line | None, list[int]]:
    """Add the instructions of these lines; returns the rows of each line."""
    return {
        line: [
            floor.add((line, index), text, str(line.number))
            for index, text in enumerate(instructions(line, sources))
        ]
        for line in lines
    }


def _names(chain: Chain) -> dict[str, str]:
    """The key of a chain's row on each floor below the bytecode."""
    return {
        "fx": chain.fx,
        "decomposed": chain.decomposed,
        "onnx": chain.node,
        "optimized": chain.kernel,
        "kernel": chain.kernel,
    }


def encoded_value(value: Summary) -> dict[str, Any]:
    names = "least", "mean", "greatest", "error", "tolerance"
    numbers = {name: for_json(getattr(value, name)) for name in names}
    picture = value.picture.encoded() if value.picture else None
    return {"shape": list(value.shape), "dtype": value.dtype, **numbers, "picture": picture}


def fold(floor: Floor, chains: Mapping[Any, Chain]) -> None:
    """Give rows that repeat the same ``g``: at least three of one line, operator and module path,
    where numbers in the path count as equal."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    turns: Counter[tuple[Any, ...]] = Counter()
    for key, row in floor.at.items():
        chain = chains.get(key)
        if chain and chain.line and (path := starred(chain.module)) != chain.module:
            kind = floor.rows[row]["m"] or floor.rows[row]["t"]
            turns[chain.line, chain.module, kind] += 1
            turn = turns[chain.line, chain.module, kind]
            groups[chain.line, path, kind, turn].append(row)
    for number, members in enumerate(m for m in groups.values() if len(m) >= _FOLDS_FROM):
        for row in members:
            floor.rows[row]["g"] = number + 1


def operator_name(target: Any) -> str:
    """An operator without its namespace and overload: ``aten.relu.default`` -> ``relu``."""
    name = getattr(target, "_opname", None) or getattr(target, "__name__", str(target))
    return str(name)
