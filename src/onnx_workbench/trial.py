"""Python statements tried in a process of their own: one that kills it does not hide the others.

The file is both sides of the trial. :func:`run` starts this very file as the child, hands it the
statements, and reads one line of JSON for each. Where the child dies, the statement that it was at
is the culprit, and a new child goes on behind it.

Standard library alone: what is tried here may be broken or absent. The functions below the child's
``main`` read the clocks of the ONNX stack, off files that were really written and loaded.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PATIENCE = 120.0
"""Seconds that one child may take."""


@dataclass(frozen=True)
class Outcome:
    """``trouble`` is empty where the statement ran; ``found`` is what it assigned to that name."""

    trouble: str = ""
    found: Any = None


def run(statements: Mapping[str, str], patience: float = PATIENCE) -> dict[str, Outcome]:
    """Try each statement, in order and as this process would run it; by name.

    >>> run({"json": "import json", "gone": "import no_such_module"})["gone"].trouble
    "ModuleNotFoundError: No module named 'no_such_module'"
    """
    outcomes: dict[str, Outcome] = {}
    while waiting := {name: code for name, code in statements.items() if name not in outcomes}:
        lines, death = _child(waiting, patience)
        outcomes |= {name: Outcome(trouble, found) for name, trouble, found in lines}
        culprit = next((name for name in waiting if name not in outcomes), None)
        if culprit is not None:
            outcomes[culprit] = Outcome(death)
    return {name: outcomes[name] for name in statements}


def _child(statements: Mapping[str, str], patience: float) -> tuple[list[Any], str]:
    """What a child reported, and how it ended."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    child = subprocess.Popen(
        [sys.executable, "-P", __file__],  # -P: the rooms of this package are no top-level modules
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
    )
    try:
        output, _ = child.communicate(json.dumps(statements), timeout=patience)
        death = _death(child.returncode)
    except subprocess.TimeoutExpired:
        child.kill()
        output, _ = child.communicate()
        death = f"did not come back within {patience:.0f} s"
    except BaseException:
        child.kill()
        raise
    return [json.loads(line) for line in output.splitlines()], death


def _death(code: int) -> str:
    if code < 0:
        return f"the process was killed by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"


def main() -> None:
    """The child: a line of JSON for each statement, and nothing else, on standard output."""
    gc.disable()  # imports make objects that live until the end: 15 % of the time for nothing
    report = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what an import prints, from C too
    for name, code in json.load(sys.stdin).items():
        print(json.dumps([name, *_attempt(code)]), file=report, flush=True)
    report.close()
    os._exit(0)  # a library that crashes while Python shuts down has nothing to say here


def _attempt(code: str) -> tuple[str, Any]:
    names = dict(globals())
    try:
        exec(code, names)
    except BaseException as error:  # SystemExit too: some packages call sys.exit() when imported
        first = next(iter(str(error).strip().splitlines()), "")
        return f"{type(error).__name__}: {first}".rstrip(": "), None
    return "", names.get("found")


def knows() -> tuple[int, int]:
    """The highest opset and IR version that onnx has definitions for."""
    import onnx

    return onnx.defs.onnx_opset_version(), int(onnx.IR_VERSION)


def loads() -> tuple[int, int]:
    """The highest opset and IR version at which ONNX Runtime loads a model of one node."""
    import onnx

    opset, ir = knows()
    oldest = onnx.helper.VERSION_TABLE[0][1]
    return (
        _highest(lambda asked: _accepts(_identity(asked, oldest)), range(opset + 8)),
        _highest(lambda asked: _accepts(_identity(7, asked)), range(ir + 8)),
    )


def writes() -> dict[str, tuple[int, int]]:
    """The opset and IR version of a real export: by default, and the highest that holds.

    An export holds where the file is of the opset that was asked for, and both the checker of onnx
    and ONNX Runtime accept it: asked for more than it knows, the exporter writes another one.
    """
    import torch

    class Tiny(torch.nn.Module):
        def forward(self, x: Any) -> Any:  # Gelu is young: opset 20
            return torch.nn.functional.gelu(x)

    program = torch.export.export(Tiny(), (torch.ones(2),))

    def export(opset: int | None) -> Any:
        return torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)

    for asked in range(knows()[0], 0, -1):
        written = export(asked).model_proto
        if _stamp(written)[0] == asked and _valid(written) and _accepts(written):
            return {"default": _stamp(export(None).model_proto), "highest": _stamp(written)}
    raise RuntimeError("no export is accepted by both onnx.checker and ONNX Runtime")


def _stamp(model: Any) -> tuple[int, int]:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return opset, model.ir_version


def _highest(holds: Callable[[int], bool], candidates: Iterable[int]) -> int:
    return max(filter(holds, candidates))


def _identity(opset: int, ir: int) -> Any:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    stamp = [helper.make_operatorsetid("", opset)]
    return helper.make_model(graph, opset_imports=stamp, ir_version=ir)


def _valid(model: Any) -> bool:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:
        return False
    return True


def _accepts(model: Any) -> bool:
    import onnxruntime

    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises a class of its own for each cause
        return False
    return True


if __name__ == "__main__":
    main()
