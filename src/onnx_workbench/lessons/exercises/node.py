"""04: which ONNX node did this line of the encoder become?"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from ... import artifact
from ...lines.lineage import Origin, trace
from ..task import Exercise
from ..transformer import encoder

LINE = "scores = query @ key.transpose(-2, -1)"
OPERATOR = "MatMul"
BLOCK = "blocks.1"


@cache
def origins() -> dict[str, Origin]:
    """ONNX node name -> origin, from a file exported for the purpose."""
    small = encoder()
    with tempfile.TemporaryDirectory() as folder:
        file = artifact.export(small.model, small.inputs, Path(folder) / "encoder.onnx")
        return {origin.node: origin for origin in trace(file).origins}


def wanted(origin: Origin) -> bool:
    inside = f"{origin.module}.".startswith(f"{BLOCK}.")
    return _text(origin) == LINE and origin.operator == OPERATOR and inside


def _text(origin: Origin) -> str:
    return origin.line.text if origin.line else ""


def judge(answer: Any) -> str | None:
    if not isinstance(answer, str):
        return f"The name of a node is asked for, as a string; this is a {type(answer).__name__}."
    known = origins()
    origin = known.get(answer)
    if origin is None:
        return _not_a_node(answer, known)
    if wanted(origin):
        return None
    if _text(origin) == LINE:
        return _same_line(answer, origin)
    return (
        f"{answer!r} exists, and it comes from another line:\n    {origin.line!r}\n"
        f"Look for the node whose line is\n    {LINE}"
    )


def _same_line(answer: str, origin: Origin) -> str:
    if origin.operator != OPERATOR:
        return (
            f"The right line: it became more than one node, and {answer!r} is its "
            f"{origin.operator}. The {OPERATOR} is asked for."
        )
    return (
        f"The right line and the right operator, in another block: {answer!r} belongs to "
        f"{origin.module!r}, and {BLOCK!r} is asked for. Every block runs the same line."
    )


def _not_a_node(answer: str, known: dict[str, Origin]) -> str:
    if answer in {origin.fx for origin in known.values()}:
        return (
            f"{answer!r} is the name of an FX node. The ONNX node that was made from it has a name "
            "of its own: see `node.name` in the exported file."
        )
    if answer in {origin.operator for origin in known.values()}:
        count = sum(origin.operator == answer for origin in known.values())
        return (
            f"{answer!r} is an operator, and {count} nodes of this graph have it. The name of one "
            "node is asked for: click it, or see `node.name`."
        )
    return (
        f"There is no node {answer!r} in the encoder as ow.export(encoder.model, "
        "encoder.inputs, path) writes it. Copy the name from the graph."
    )


EXERCISE = Exercise(
    number="04",
    title="Which node is this line?",
    text=(
        "Export the encoder (`encoder = lessons.encoder()`, then `ow.export(encoder.model, "
        "encoder.inputs, path)`) and look at it. Its attention has the line\n\n"
        f"    {LINE}\n\n"
        f"**Name the ONNX node that is its {OPERATOR} in `{BLOCK}`.** Answer with the name of the "
        "node, a string."
    ),
    start=(
        "Open the exported encoder with ow.view() and click a node, or read the metadata of "
        "`artifact.proto.graph.node`: each has a `name` and, in `metadata_props`, a stack trace."
    ),
    judge=judge,
    source=f"""
        import onnx_workbench as ow

        encoder = ow.lessons.encoder()
        file = ow.export(encoder.model, encoder.inputs, "encoder.onnx")

        def told(node):
            return " ".join(entry.value for entry in node.metadata_props)

        [answer] = [
            node.name
            for node in file.proto.graph.node
            if node.op_type == "{OPERATOR}" and "{LINE}" in told(node) and "{BLOCK}" in told(node)
        ]
        """,
)
