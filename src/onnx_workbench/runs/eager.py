"""The captured graph in PyTorch, node by node: what each FX node takes."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch
from torch import fx

from ..graph import Graph

COVERS = "the captured graph, node by node"


class Stopwatch(fx.Interpreter):
    """Runs the captured graph and keeps what each node took, one dict a run.

    >>> from onnx_workbench import capture
    >>> graph = capture(torch.nn.ReLU().eval(), torch.ones(2))
    >>> watch = Stopwatch(graph)
    >>> watch.lap((torch.ones(2),), {})
    >>> list(watch.laps[0])
    ['relu']
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.program.module(), garbage_collect_values=False)
        self.laps: list[dict[str, float]] = []

    def lap(self, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """One run."""
        self.laps.append({})
        leaves = torch.utils._pytree.tree_leaves((args, dict(kwargs)))
        with torch.inference_mode():
            self.run(*leaves, enable_io_processing=False)

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        start = perf_counter()
        result = super().run_node(n)
        self.laps[-1][n.name] = perf_counter() - start
        return result
