"""How much of ONNX Runtime's time finds its line, and what finding it costs."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import models
import onnx
import torch

import onnx_workbench as ow
from onnx_workbench.formatting import seconds, table
from onnx_workbench.lineage.kernels import NEIGHBOR

HEADER = (
    *("model", "nodes", "kernels", "with a line", "joined, no neighbor", "kernels / run"),
    "as the profiler counts",
    *("unprofiled run", "profile() beyond its runs"),
)
BUDGET = 2.0


def report() -> Iterator[str]:
    """Two tables: the join on each architecture, and the time of ``trace``."""
    joined = [_joined(name, models.case(name)) for name in models.MAKERS]
    joined.append(_joined("500 nodes", models.Case(models.Deep(500).eval(), (torch.ones(8),), {})))
    traced = table(list(_traced()), ("nodes", "trace()", "per node"), right=(0, 1, 2))
    yield f"{table(joined, HEADER, right=range(1, 9))}\n\n{traced}"


def _joined(name: str, case: models.Case) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        path = Path(folder) / "model.onnx"
        artifact = ow.export(case.model, case.inputs, path, dynamic_shapes=case.dynamic or None)
        start = perf_counter()
        spots = ow.profile(artifact, case.inputs, seconds=BUDGET)
        repr(spots)
        beyond = perf_counter() - start - BUDGET
    silent = sum(not origin.why for origin in spots.lineage.without)
    return (
        name,
        f"{len(spots.lineage.origins)}{f' ({silent} unexplained)' if silent else ''}",
        str(len(spots.recording.kernels)),
        f"{1 - spots.unattributed:.1%}",
        f"{1 - spots.rules[NEIGHBOR] - spots.rules['unattributed']:.1%}",
        f"{spots.covered:.1%}",
        f"{spots.counted:.1%}",
        seconds(spots.whole),
        seconds(beyond) if beyond > 0 else "none",
    )


def _traced() -> Iterator[tuple[str, str, str]]:
    """Files of a known size: two nodes in three have the metadata that the exporter writes."""
    for count in (1_000, 5_000, 20_000):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "deep.onnx"
            onnx.save(_deep(count), file)
            artifact = ow.load(file)
            start = perf_counter()
            ow.trace(artifact)
            spent = perf_counter() - start
        yield f"{count:,}", seconds(spent), seconds(spent / count)


def _deep(count: int) -> onnx.ModelProto:
    helper = onnx.helper
    nodes = [helper.make_node("Sin", [f"v{i}"], [f"v{i + 1}"], name=f"n{i}") for i in range(count)]
    for index, node in enumerate(nodes):
        if index % 3:
            trace = f'File "/home/ada/net.py", line {index}, in forward'
            node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=trace)
            node.metadata_props.add(
                key="pkg.torch.onnx.name_scopes", value=f"['', 'b.{index}', 's']"
            )
    ends = [helper.make_tensor_value_info(name, 1, [1]) for name in ("v0", f"v{count}")]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
