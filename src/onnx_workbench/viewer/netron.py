"""Netron as a widget: the kernel's side of ``bridge.js``."""

from __future__ import annotations

import io
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import traitlets

from .. import files
from ..errors import InputError
from ..formatting import kind_of, table
from ..machine import trim_memory
from ..source import Line
from ..stack import needs
from . import frontend, matching, origin, saved
from .diagram import constants
from .drawing import beside, draw, legend
from .fold import Folded, drawable
from .frontend import FrontendWidget
from .heat import Heat, contrast, scale
from .live import Live, Together
from .model import Model, compressed, read
from .still import SCRIPT
from .summary import counted, listed, one_line

_HERE = Path(__file__).parent

_SCRIPTS = "panel.js", "bridge.js"

LEFT, RIGHT = "#c44e00", "#0072b2"
"""Vermilion and blue, which most color-blind readers can distinguish, and all against gray: after
Okabe and Ito (2008), https://jfly.uni-koeln.de/color/."""


def _reference(page: FrontendWidget | None, _: Any) -> str:
    """The reference that ipywidgets' widget managers resolve to the widget."""
    return f"IPY_MODEL_{page.model_id}" if page else ""


class Netron(Live):
    """A graph in a notebook cell: Netron if the page is live, else a picture and a text.

    A click on a node opens the panel: its FX node, module and line, what Netron says of it, and its
    numbers. A node is identified by its name, else by its first output, with the name of its
    function before it: ``function/node``.

    Traits:
        selected: the node that was last clicked in the page, at first ``""``. Observe it with
            ``view.observe(function, "selected")``; ``view.origins[view.selected]`` has its line.
        marked: the marked nodes: by :meth:`select`, or by a click on a line in the page.
        facts: ``"Values"`` and ``"Times"``, tabs of the panel: for each node pairs of words.
        height: pixels of the frame; a smaller graph gets a smaller frame.
    """

    _esm = "\n".join([SCRIPT, *((_HERE / name).read_text("utf-8") for name in _SCRIPTS)])
    _sent: traitlets.Dict = traitlets.Dict().tag(sync=True)
    _page = traitlets.Instance(FrontendWidget, allow_none=True).tag(sync=True, to_json=_reference)
    _picture = traitlets.Unicode().tag(sync=True)
    _summary = traitlets.Unicode().tag(sync=True)
    _heat: traitlets.Dict = traitlets.Dict().tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    _open = traitlets.Unicode("").tag(sync=True)  # selected, until its panel is closed
    marked: traitlets.List = traitlets.List(traitlets.Unicode()).tag(sync=True)
    facts: traitlets.Dict = traitlets.Dict().tag(sync=True)
    height = traitlets.Int(640, min=160).tag(sync=True)

    def __init__(self, model: Model, *, folded: bool = False, **traits: Any) -> None:
        self._model, self._folded = model, folded
        self._screen: tuple[str, bytes | None] | None = None
        super().__init__(**self._first(folded), **traits)
        self.on_msg(self._answer)
        trim_memory()

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def origins(self) -> Mapping[str, origin.OnnxNode]:
        """Node name -> its FX node, module and line."""
        return self._model.origins

    def close(self) -> None:
        """Remove the view from every page and free the model; the text and the picture stay.

        Called when the cell that made the view runs again.
        """
        super().close()
        self._model = replace(self._model, packed=b"", origins={})
        self._screen = None
        self._sent = {}

    def select(self, what: Line | str) -> tuple[str, ...]:
        """Mark nodes, scroll to the first of them, and return their names.

        Args:
            what: the name of a node, the path of a module (``"blocks.0.attention"``) or a source
                line: its text, a :class:`~onnx_workbench.source.Line` or ``"model.py:12"``; for a
                library line, ``"torchvision/models/resnet.py:92"``.

        Raises:
            InputError: no node matches.
        """
        self._must_be_open()
        names = origin.find(what, self.origins)
        if not names:
            raise InputError(
                f"select() was given {what!r}, which matches no node of {self.name}. It "
                "expected the name of a node, the path of a module, or a line: its text, or its "
                "place as in 'model.py:12'.",
                "Click a node to see its name.",
            )
        self.marked = list(names)
        return names

    def heat(self, values: Mapping[str, float] | None, unit: str = "") -> None:
        """Color nodes by a number each (latency, error, bytes); None removes the colors.

        Args:
            values: a number for each node, by name; other nodes are gray.
            unit: ``"s"`` and ``"B"`` are scaled (``4.20 ms``), any other follows the number.

        Raises:
            InputError: a name is not a node's, a value is not finite, or ``values`` is empty.
        """
        self._must_be_open()
        self._color(None if values is None else scale(self._numbers(values), unit))

    def _color(self, heat: Heat | None) -> None:
        with self.hold_sync():
            self._picture = draw(self.name, self._diagram, heat)
            self._heat = {**heat.encoded(), "legend": legend(heat)} if heat else {}
        self._screen = None

    def compare(self, other: Any) -> Comparison:
        """Compare this graph with another in two new views, side by side.

        A node is in both graphs if the other has a node with the same operator and the same name,
        else an output of the same name, else the same FX node, else the same line of the same
        module. Each node has at most one twin, and a name or an output does not count between two
        different FX nodes. Nodes that only one graph has are colored. A click in one view marks the
        node's twin in the other; if it has none, all nodes of its FX node, else of its line, else
        of its name, else of its outputs.

        Args:
            other: a view, or anything that :func:`view` takes; it opens folded if this view does.

        Raises:
            InputError: ``other`` is none of these.
            LoadError: the file cannot be read, is truncated, or is no ONNX model.

        >>> from onnx import parser
        >>> from onnx_workbench import view
        >>> old, new = (parser.parse_model(
        ...     '<ir_version: 10, opset_import: ["": 20]> '
        ...     f'{name} (float[2] x) => (float[2] y) {{ h = Relu(x) y = {last}(h) }}')
        ...     for name, last in [("old", "Neg"), ("new", "Abs")])
        >>> view(old).compare(new)
                   old  new
        ---------  ---  ---
        nodes        2    2
        in both      1    1
        only here    1    1
        <BLANKLINE>
        lost         Neg
        gained       Abs
        only in old  y
        only in new  y
        """
        self._must_be_open()
        model, folded = None, self._folded
        if isinstance(other, Netron):
            other._must_be_open()
            model, folded = other._model, other._folded
        return Comparison(
            Netron(self._model, height=self.height, folded=self._folded),
            Netron(model or read(other, "compare"), height=self.height, folded=folded),
        )

    def _must_be_open(self) -> None:
        if not self._model.packed:
            raise InputError(
                f"This view of {self.name} was closed: the cell that made it ran again.",
                "Use the new view, or call view() again.",
            )

    def _numbers(self, values: Mapping[str, float]) -> dict[str, float]:
        if not isinstance(values, Mapping):
            raise InputError(
                f"heat() was given {kind_of(values)}, but it takes a number for each node.",
                "Pass a dict: the name of a node, and its number.",
            )
        wrong = [name for name in values if name not in self.origins]
        if wrong or not values:
            given = f"the name {wrong[0]!r}" if wrong else "no values"
            raise InputError(
                f"heat() was given {given}, but {self.name} has nodes such as "
                f"{next(iter(self.origins), '')!r}.",
                "Pass a number for each node, by its name.",
            )
        numbers = {}
        for name, value in values.items():
            with suppress(TypeError, ValueError, OverflowError):
                numbers[name] = float(value)
            if not math.isfinite(numbers.get(name, math.nan)):
                raise InputError(
                    f"heat() was given {value!r} for {name!r}, but it takes finite numbers.",
                    "Leave the node out.",
                )
        return numbers

    def svg(self) -> str:
        """The graph as an SVG document, with its heat.

        It is Netron's drawing once a page has shown the view (in a later cell, and up to 1,000
        nodes); until then, or without a page, it is the static picture.
        """
        return self._screen[0] if self._screen else self._picture

    def png(self) -> bytes:
        """The picture on the screen as a PNG file, at twice its resolution.

        Raises:
            InputError: no page has drawn this view.
        """
        if self._screen is None or self._screen[1] is None:
            raise InputError(
                "png() takes the picture from the page, but no page has drawn this view yet.",
                "Show the view and call png() in a later cell; svg() works anywhere.",
            )
        return self._screen[1]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file that opens offline: the view as it is now, with source and heat.

        Returns:
            The path. The file has no weights above 64 KB and no paths of this machine.

        Raises:
            InputError: the folder does not exist, or the installed netron cannot be shown.
        """
        goal = files.writable_page(path)
        views = [self._saved()]  # raises with a reason if there is no page
        text = saved.document(self.name, views, self._esm, frontend.shared().packed)
        return files.write(goal, text)

    def _saved(self) -> dict[str, Any]:
        """The data of this view in a saved file."""
        self._must_be_open()
        if why := self._sent.get("why"):
            raise InputError("save() needs Netron's front-end for the file.", why)
        shared = ("_picture", "_summary", "_heat", "facts", "marked", "selected", "height")
        traits = {name: getattr(self, name) for name in shared}
        whole = self._model.packed if self._sent["folded"] else b""
        return {"traits": traits, "sent": self._sent, "whole": whole}

    def __repr__(self) -> str:
        return self._summary

    def _still(self) -> str:
        return self._picture

    def _answer(self, _: object, message: dict[str, Any], buffers: list[Any]) -> None:
        """Handle a message from the page: a request, or Netron's drawing."""
        if isinstance(picture := message.get("picture"), str):
            self._screen = picture, bytes(buffers[0]) if buffers else None
        if (asked := message.get("ask")) in ("whole", "page"):
            part = self._model.packed if asked == "whole" else frontend.shared().packed
            self.send({"id": message.get("id")}, [part])

    def _first(self, folded: bool) -> dict[str, Any]:
        """The first state of the page: the graph, folded if it is big."""
        model, proto = self._model, self._model.proto
        drawn = drawable(proto, always=folded)
        self._diagram = drawn.diagram()
        shown = {"_picture": draw(model.name, self._diagram), "_summary": model.summary}
        try:
            return {**shown, "_sent": self._drawn(proto, drawn), "_page": frontend.shared()}
        except frontend.UnfitError as error:
            why = (
                f"The installed netron cannot be shown in a cell ({error}), so this is a static "
                "picture; pip install 'netron>=9,<10' fixes it."
            )
            return {**shown, "_sent": {"why": why}}

    def _drawn(self, proto: onnx.ModelProto, drawn: Folded) -> dict[str, Any]:
        """What the page draws first: ``parts`` are the bytes of the graph, the operators' manual
        and the source, compressed."""
        makers = {name: origin.key(node) for node in proto.graph.node for name in node.output}
        source = {
            **origin.encoded(self.origins, self._model.sources),
            "stubs": {label: makers.get(value, "") for label, value in drawn.stubs.items()},
            "modules": drawn.modules,
            "constants": constants(proto.graph),
        }
        whole = drawn.proto is proto
        graph = self._model.packed if whole else compressed(drawn.proto.SerializeToString())
        rest = (frontend.operators(proto).encode(), json.dumps(source).encode())
        return {
            "name": self.name,
            "nodes": len(proto.graph.node),
            "folded": not whole,
            "parts": [graph, *map(compressed, rest)],
        }


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """Two views, in which nodes that only one graph has are colored. A click in one marks the
    node's twin in the other."""

    left: Netron
    right: Netron

    def __post_init__(self) -> None:
        only, colors = (self.here, self.there), (LEFT, RIGHT)
        for side, names, name, color in zip(self._sides, only, self._names, colors, strict=True):
            side._color(contrast(names, name, len(self.both), color))
        _link(self._sides, self._related)

    @cached_property
    def both(self) -> tuple[tuple[str, str], ...]:
        """The names of the nodes that both graphs have, in the order of the left one."""
        return tuple(matching.pairs(self.left.origins, self.right.origins).items())

    @cached_property
    def here(self) -> tuple[str, ...]:
        """The nodes that only the left graph has."""
        paired = dict(self.both)
        return tuple(name for name in self.left.origins if name not in paired)

    @cached_property
    def there(self) -> tuple[str, ...]:
        """The nodes that only the right graph has."""
        paired = {right for _, right in self.both}
        return tuple(name for name in self.right.origins if name not in paired)

    @cached_property
    def lost(self) -> Counter[str]:
        """Operators that the left graph has more often, and how many more."""
        return _operators(self.left) - _operators(self.right)

    @cached_property
    def gained(self) -> Counter[str]:
        """Operators that the right graph has more often, and how many more."""
        return _operators(self.right) - _operators(self.left)

    def svg(self) -> str:
        """Both graphs as one SVG document, from each view's :meth:`Netron.svg`."""
        return beside([side.svg() for side in self._sides])

    def png(self) -> bytes:
        """Both pictures on the screen as one PNG file.

        Raises:
            InputError: no page has drawn them, as for :meth:`Netron.png`.
        """
        with needs("A picture of two views", "plot"):
            from PIL import Image

        left, right = (Image.open(io.BytesIO(s.png())).convert("RGBA") for s in self._sides)
        size = left.width + right.width, max(left.height, right.height)
        both = Image.new("RGBA", size, "white")
        both.alpha_composite(left)
        both.alpha_composite(right, (left.width, 0))
        both.save(stream := io.BytesIO(), "PNG")
        return stream.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file that opens offline: both views, linked as they are here.

        Returns:
            The path. The contents are as for :meth:`Netron.save`.

        Raises:
            InputError: the folder does not exist, or the installed netron cannot be shown.
        """
        goal, pairs = files.writable_page(path), zip(self._sides, self._related, strict=True)
        views = [{**side._saved(), "related": related} for side, related in pairs]
        page = frontend.shared().packed
        return files.write(goal, saved.document(" | ".join(self._names), views, Netron._esm, page))

    def __repr__(self) -> str:
        common = f"{len(self.both):,}"
        counts = [
            ("nodes", *(f"{len(side.origins):,}" for side in self._sides)),
            ("in both", common, common),
            ("only here", f"{len(self.here):,}", f"{len(self.there):,}"),
        ]
        rows = [("lost", counted(self.lost)), ("gained", counted(self.gained))]
        for name, only in zip(self._names, (self.here, self.there), strict=True):
            rows.append((f"only in {name}", listed(only)))
        return f"{table(counts, header=('', *self._names), right=[1, 2])}\n\n{table(rows)}"

    def _still(self) -> str:
        """The static picture of both, as SVG."""
        return beside([side._still() for side in self._sides])

    def _ipython_display_(self) -> None:
        self._box._ipython_display_()

    @cached_property
    def _box(self) -> Together:
        for side in self._sides:
            side.layout = {"flex": "1 1 420px", "min_width": "0"}
        return Together(self._sides, self, flex_flow="row wrap", width="100%")

    @property
    def _sides(self) -> tuple[Netron, Netron]:
        return self.left, self.right

    @cached_property
    def _related(self) -> tuple[Mapping[str, tuple[str, ...]], ...]:
        """Each node -> the nodes that a click on it marks on the other side."""
        left, right = (side.origins for side in self._sides)
        ahead, back = dict(self.both), {theirs: ours for ours, theirs in self.both}
        return matching.related(left, right, ahead), matching.related(right, left, back)

    @cached_property
    def _names(self) -> tuple[str, str]:
        left, right = (one_line(side.name, 30) for side in self._sides)
        return (left, right) if left != right else (f"{left} (left)", f"{right} (right)")


def _operators(view: Netron) -> Counter[str]:
    return Counter(origin.op for origin in view.origins.values())


def _link(views: tuple[Netron, Netron], related: tuple[Mapping[str, tuple[str, ...]], ...]) -> None:
    """Let a choice in one view mark the related nodes in the other."""
    busy: list[Netron] = []  # the view that is being marked, whose changes are ignored

    def follow(change: Any) -> None:
        at = views.index(change.owner)
        one, other = views[at], views[1 - at]
        if one in busy:
            return
        busy.append(other)
        chosen = one.marked if change.name == "marked" else []
        names = (twin for name in chosen or [one._open] for twin in related[at].get(name, ()))
        other.marked = list(dict.fromkeys(names))
        busy.remove(other)

    for view in views:
        view.observe(follow, ["_open", "marked"])
