"""04: which ONNX node did this line of the encoder become?"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from ... import artifact
from ...source import Line, user_line
from ..task import Exercise
from ..transformer import encoder

LINE = "scores = query @ key.transpose(-2, -1)"
OPERATOR = "MatMul"
BLOCK = "blocks.1"

_METADATA = "pkg.torch.onnx."


@dataclass(frozen=True)
class Origin:
    """What the metadata of an ONNX node says: operator, FX node, module and source line."""

    operator: str
    fx: str
    module: str
    line: Line | None

    @property
    def text(self) -> str:
        return self.line.text if self.line else ""

    @property
    def wanted(self) -> bool:
        return self.text == LINE and self.operator == OPERATOR and self.in_block

    @property
    def in_block(self) -> bool:
        return f"{self.module}.".startswith(f"{BLOCK}.")


@cache
def origins() -> dict[str, Origin]:
    """ONNX node name -> origin, from a file exported for the purpose."""
    small = encoder()
    with tempfile.TemporaryDirectory() as folder:
        file = artifact.export(small.model, Path(folder) / "encoder.onnx", *small.inputs)
        return {node.name: _origin(node) for node in file.proto.graph.node}


def _origin(node: onnx.NodeProto) -> Origin:
    said = {entry.key.removeprefix(_METADATA): entry.value for entry in node.metadata_props}
    scopes = [s.strip(" '\"") for s in said.get("name_scopes", "").strip("[]").split(",")]
    return Origin(
        operator=node.op_type,
        fx=said.get("fx_node", "").partition(" ")[0].removeprefix("%"),
        module=scopes[-2] if len(scopes) > 1 else "",
        line=user_line(said.get("stack_trace", "")),
    )


def judge(answer: Any) -> str | None:
    if not isinstance(answer, str):
        return f"The name of a node is asked for, as a string; this is a {type(answer).__name__}."
    known = origins()
    origin = known.get(answer)
    if origin is None:
        return _not_a_node(answer, known)
    if origin.wanted:
        return None
    if origin.text == LINE:
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
        f"There is no node {answer!r} in the encoder as ow.export(encoder.model, path, "
        "*encoder.inputs) writes it. Copy the name from the graph."
    )


EXERCISE = Exercise(
    number="04",
    title="Which node is this line?",
    text=(
        "Export the encoder (`encoder = lessons.encoder()`, then `ow.export(encoder.model, path, "
        "*encoder.inputs)`) and look at it. Its attention has the line\n\n"
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
        file = ow.export(encoder.model, "encoder.onnx", *encoder.inputs)

        def told(node):
            return " ".join(entry.value for entry in node.metadata_props)

        [answer] = [
            node.name
            for node in file.proto.graph.node
            if node.op_type == "{OPERATOR}" and "{LINE}" in told(node) and "{BLOCK}" in told(node)
        ]
        """,
)
