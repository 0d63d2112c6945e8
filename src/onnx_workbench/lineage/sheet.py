"""The floors as plain data: what the widget, the saved page and the static picture show.

A sheet is a dict that becomes JSON:

* ``title``;
* ``floors``, always seven: source, bytecode, FX, decomposed FX, ONNX, optimized ONNX, kernel; each
  of ``name``, ``title``, ``open``, ``note`` (shown above its rows) and ``rows``;
* ``links``, each of seven row numbers that belong together, -1 where a floor has none;
* ``values``: the row number on the ONNX floor, as a string -> ``facts``, pairs of words, and
  ``picture``: None, or ``w``, ``h``, ``label``, ``data``, a byte for each pixel in base 64, and
  ``ends``, the least and the greatest value in words;
* ``flame``: None, or the trees ``stack`` and ``module`` of ``name``, ``seconds``, ``row`` (of the
  source, or -1) and ``children``;
* ``stop``: None, or ``row``, ``reason`` and ``hint`` of the error that stopped the export.

A row has ``t``, its text, and of these what it needs: ``m``, what stands before it (a line number,
an operator); ``h``, it is a heading and cannot be chosen; ``d``, the depth of a library line below
its caller; ``g``, the number of its group of repeated blocks; ``s`` and ``b``, seconds and bytes;
``x``, a remark; ``k``, the rule of a kernel.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from ..exporter_metadata import operator_nodes
from ..formatting import plural, shaped
from ..runs.summary import Summary
from ..source import Line, without_folders
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

Sheet = dict[str, Any]


class _Floor:
    """The rows of one floor, each under a key."""

    def __init__(self, name: str, note: str) -> None:
        self.name, self.note = name, note
        self.rows: list[dict[str, Any]] = []
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


def sheet(shown: Any) -> Sheet:
    """The sheet of a :class:`~.widget.Shown`."""
    return _Builder(shown).encoded()


class _Builder:
    def __init__(self, shown: Any) -> None:
        self.shown, self.call, self.chains = shown, shown.call, shown.chains
        self.floors = {name: _Floor(name, shown.notes.get(name, "")) for name in FLOORS}
        self.codes: dict[Line | None, list[int]] = {}  # the rows of a line's instructions
        self.library: dict[str, int] = {}  # node -> the row of the library's line
        self._source()
        self._bytecode()
        self._graphs()
        self._kernels()
        self._fold()

    def _source(self) -> None:
        floor = self.floors["source"]
        spent: dict[Line | str | None, float] = defaultdict(float)
        held: dict[Line | None, int] = defaultdict(int)
        for chain in self.chains:
            for key in (chain.line, chain.node):
                spent[key] += chain.seconds or 0.0
        for line, node in dict.fromkeys((chain.line, chain.node) for chain in self.chains):
            held[line] += sum(value.size for value in self._values(node).values())
        lines = dict.fromkeys(chain.line for chain in self.chains if chain.line)
        for title, rows in stretches(lines, self.shown.sources):
            floor.add((title, "title"), title, h=1)
            for number, text, line in rows:
                if line is None:
                    floor.add((title, len(floor.rows)), text, str(number or ""), h=1)
                    continue
                floor.add(line, text, str(line.number), s=spent[line], b=held[line])
                for group in self.shown.below(line):
                    time = sum(spent[item.node] for item in group.items)
                    words = f"{group.line.text}  {group.module}".rstrip()
                    row = floor.add((line, group), words, group.line.place, d=1, s=time)
                    self.library.update({item.node: row for item in group.items})

    def _values(self, node: str) -> dict[str, Summary]:
        return self.shown.values.get(node, {})

    def _bytecode(self) -> None:
        floor = self.floors["bytecode"]
        if floor.note:
            return
        for line in sorted({chain.line for chain in self.chains if chain.line}):
            self.codes[line] = [
                floor.add((line, index), text, str(line.number))
                for index, text in enumerate(instructions(line, self.shown.sources))
            ]
        if not floor.rows:
            floor.note = "The source of these lines is not at hand, or does not compile by itself."

    def _graphs(self) -> None:
        why = {operation.fx: operation.why for operation in self.shown.operations}
        for name, graph in self.shown.graphs.items():
            for node in operator_nodes(graph) if graph else ():
                remark = why.get(node.name) if name == "fx" else ""
                self.floors[name].add(node.name, node.name, _operator_name(node.target), x=remark)
        ran = self.call.by_node if self.call else {}
        for origin in self.shown.origins:
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

    def _fold(self) -> None:
        """Give rows that repeat, as in the blocks of an encoder, the same ``g``: at least three of
        one line, operator and module path, where numbers in the path count as equal."""
        chains: dict[tuple[str, str], Chain] = {}
        for chain in self.chains:
            for name, key in _names(chain).items():
                chains.setdefault((name, key), chain)
        for name, floor in self.floors.items():
            groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
            turns: Counter[tuple[Any, ...]] = Counter()
            for key, at in floor.at.items():
                chain = chains.get((name, key), Chain())
                if chain.line and (path := starred(chain.module)) != chain.module:
                    kind = floor.rows[at]["m"] or floor.rows[at]["t"]
                    turns[chain.line, chain.module, kind] += 1
                    turn = turns[chain.line, chain.module, kind]
                    groups[chain.line, path, kind, turn].append(at)
            for number, members in enumerate(m for m in groups.values() if len(m) >= _FOLDS_FROM):
                for at in members:
                    floor.rows[at]["g"] = number + 1

    def encoded(self) -> Sheet:
        return {
            "title": self.shown.title,
            "floors": [floor.encoded() for floor in self.floors.values()],
            "links": [list(rows) for rows in dict.fromkeys(self._links())],
            "values": dict(self._encoded_values()),
            "flame": self._flame(),
            "stop": self._stop(),
        }

    def _links(self) -> Iterator[tuple[int, ...]]:
        """The links of each chain: one for each pair of a source row, its line's or the library
        line's, and an instruction."""
        for chain in self.chains:
            source = [self.floors["source"].at.get(chain.line, -1)]
            source += [self.library[chain.node]] if chain.node in self.library else []
            bytecode = self.codes.get(chain.line) or [-1]
            nodes = [self.floors[name].at.get(key, -1) for name, key in _names(chain).items()]
            for line, code in product(source, bytecode):
                yield (line, code, *nodes)

    def _encoded_values(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The row of each ONNX node, and the first value that it makes."""
        for node, row in self.floors["onnx"].at.items():
            for name, value in [*self._values(node).items()][:1]:
                yield str(row), _encoded(name, value)

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

    def _stop(self) -> Mapping[str, Any] | None:
        if not (error := self.shown.stop):
            return None
        row = self.floors["source"].at.get(error.line, -1)
        return {"row": row, "reason": error.reason, "hint": error.hint}


def _names(chain: Chain) -> dict[str, str]:
    """The key of a chain's row on each floor below the bytecode, in their order."""
    return {
        "fx": chain.fx,
        "decomposed": chain.decomposed,
        "onnx": chain.node,
        "optimized": chain.kernel,
        "kernel": chain.kernel,
    }


def _encoded(name: str, value: Summary) -> dict[str, Any]:
    """A value in words, and its picture."""
    facts = [("value", f"{name}  {shaped(value.dtype, value.shape)}")]
    picture = None
    if value.least is not None:
        least, mean, most = map(_figures, (value.least, value.mean, value.greatest))
        facts.append(("range", f"{least} to {most}, mean {mean}"))
        if value.picture:
            label = f"{name}, {value.picture.width} by {value.picture.height}"
            picture = {**value.picture.encoded(), "label": label, "ends": [least, most]}
    if value.error is not None:
        facts.append(("vs PyTorch", _agreement(value.error, value.tolerance)))
    return {"facts": facts, "picture": picture}


def _agreement(error: float, tolerance: float | None) -> str:
    if tolerance is None:
        return f"off by {_figures(error)}"
    far = f"{_figures(error)} of {_figures(tolerance)} allowed"
    return f"agrees: {far}" if error <= tolerance else f"✗ differs: {far}"


def _figures(number: Any) -> str:
    """Three figures; a size or an index is not written with an exponent.

    >>> _figures(31999.0), _figures(0.25), _figures(-1.234e-7)
    ('32000', '0.25', '-1.23e-07')
    """
    return f"{float(f'{number:.3g}'):g}"


def _operator_name(target: Any) -> str:
    """An operator without its namespace and overload: ``aten.relu.default`` -> ``relu``."""
    name = getattr(target, "_opname", None) or getattr(target, "__name__", str(target))
    return str(name)
