"""04: which ONNX node did this line of the encoder become?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from ...artifact import export
from ...formatting import kind_of
from ...lineage.table import Origin, trace
from ..transformer import encoder

LINE = "scores = query @ key.transpose(-2, -1)"
OPERATOR = "MatMul"
BLOCK = "blocks.1"


@cache
def origins() -> dict[str, Origin]:
    """ONNX node name -> where it came from, in an encoder exported for the purpose."""
    small = encoder()
    return {origin.node: origin for origin in trace(export(small.model, small.inputs)).origins}


def judge(answer: Any) -> Iterator[str]:
    if not isinstance(answer, str):
        yield f"Answer with the name of a node, a string; this is {kind_of(answer)}."
    known = origins()
    operators = [origin.operator for origin in known.values()]
    if any(answer == origin.fx for origin in known.values()):
        yield (
            f"{answer!r} is the name of an FX node. The ONNX node made from it has its own name: "
            "see `node.name` in the exported file."
        )
    if answer in operators:
        yield (
            f"{answer!r} is an operator, and {operators.count(answer)} nodes of this graph have "
            "it. Answer with the name of one node: click it, or see `node.name`."
        )
    if answer not in known:
        yield (
            f"The encoder as ow.export(encoder.model, encoder.inputs, path) writes it has no node "
            f"{answer!r}. Copy the name from the graph."
        )
    found = known[answer]
    if found.line is None or found.line.text != LINE:
        yield (
            f"{answer!r} comes from another line:\n    {found.line!r}\n"
            f"Look for the node whose line is\n    {LINE}"
        )
    if found.operator != OPERATOR:
        yield (
            f"The right line: it became several nodes, and {answer!r} is its {found.operator}. "
            f"Find its {OPERATOR}."
        )
    if not f"{found.module}.".startswith(f"{BLOCK}."):
        yield (
            f"The right line and operator, in another block: {answer!r} belongs to "
            f"{found.module!r}. Every block runs the same line; find the one in {BLOCK!r}."
        )
