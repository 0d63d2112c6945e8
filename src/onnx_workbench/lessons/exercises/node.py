"""04: which ONNX node did this line of the encoder become?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from ...artifact import export
from ...lineage.table import Origin, join
from ..transformer import encoder
from . import Hint, hint

ANSWER = str
LINE = "scores = query @ key.transpose(-2, -1)"
OPERATOR = "MatMul"
BLOCK = "blocks.1"


@cache
def origins() -> dict[str, Origin]:
    """ONNX node name -> its origin, in a freshly exported encoder."""
    small = encoder()
    return {origin.node: origin for origin in join(export(small.model, small.inputs)).origins}


def judge(answer: Any) -> Iterator[Hint]:
    known, name = origins(), repr(answer)
    operators = [origin.operator for origin in known.values()]
    if any(answer == origin.fx for origin in known.values()):
        yield hint("fx", name=name)
    if answer in operators:
        yield hint("operator", name=name, count=operators.count(answer))
    if answer not in known:
        yield hint("unknown", name=name)
    origin = known[answer]
    if origin.line is None or origin.line.text != LINE:
        yield hint("line", name=name, line=repr(origin.line), asked=LINE)
    if origin.operator != OPERATOR:
        yield hint("several", name=name, operator=origin.operator, asked=OPERATOR)
    if not f"{origin.module}.".startswith(f"{BLOCK}."):
        yield hint("block", name=name, module=repr(origin.module), asked=repr(BLOCK))
