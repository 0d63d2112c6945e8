"""Any value of an ONNX graph on demand, from a session over the nodes that compute it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import torch

from ..errors import LoadError, RunError
from ..ort import (
    Options,
    explained,
    model_bytes,
    ort_value,
    session_of,
    tensor_view,
    to_numpy,
    to_torch,
)
from ..proto import NodeRef, node_refs, producers


class Intermediates:
    """Computes values inside a model by name, for one call of it.

    Each :meth:`run` opens a session over the nodes between the known values and the requested
    values. A value stays known while a later node reads it, so runs in the order of the graph
    compute each node once and need no more memory than the model itself. ONNX Runtime maps weights
    from their file. The graph runs as written, without the optimizer (a model with functions needs
    its basic level).

    Attributes:
        names: the values that :meth:`run` takes: all values of the main graph.
        hidden: the values in bodies of nodes and functions, which cannot be outputs.

    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> half (float[2] x) '
    ...     '=> (float[2] y) { h = Neg(x)  y = Relu(h) }')
    >>> feeds = {"x": np.ones(2, np.float32)}
    >>> Intermediates(Path("half.onnx"), model, "CPUExecutionProvider", feeds).run(["h"])
    {'h': tensor([-1., -1.])}
    """

    def __init__(
        self, path: Path, model: onnx.ModelProto, provider: str, feeds: Mapping[str, np.ndarray]
    ) -> None:
        self._path, self._model, self._provider = path, model, provider
        self._feeds = {name: ort_value(array) for name, array in feeds.items()}
        self._known = self._feeds
        refs = node_refs(model)
        self._nodes = [ref for ref in refs if not ref.inside]
        self._makers = producers(self._nodes)
        self._order = {ref.name: index for index, ref in enumerate(self._nodes)}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._done: set[str] = set()
        self.names = frozenset(self._makers)
        self.hidden = tuple(value for ref in refs if ref.inside for value in ref.outputs)

    def weight(self, name: str) -> torch.Tensor | None:
        """An initializer; None if there is none of that name, or torch lacks its dtype."""
        if name not in self._weights:
            return None
        weight = self._weights[name]
        if weight.data_location == onnx.TensorProto.EXTERNAL:
            # a copy, since to_array() loads the values into the message
            weight = onnx.TensorProto.FromString(weight.SerializeToString())
        array = onnx.numpy_helper.to_array(weight, os.fspath(self._path.parent))
        tensor = to_torch(np.array(array))
        return tensor if isinstance(tensor, torch.Tensor) else None

    def run(self, names: Sequence[str], every: bool = False) -> dict[str, Any]:
        """Compute these values: tensors in ONNX Runtime's memory; a sequence is a list.

        With ``every``, also return the other values of the nodes that ran for them.

        Raises:
            LoadError, RunError: ONNX Runtime refused.
        """
        part = self._nodes_between(names, self._known)
        if every:
            names = list(dict.fromkeys([*names, *(v for ref in part for v in ref.outputs)]))
        self._done |= {ref.name for ref in part}
        later = {v for ref in self._nodes if ref.name not in self._done for v in ref.inputs}
        needed = sorted(later & {value for ref in part for value in ref.outputs})
        wanted = [v for v in dict.fromkeys([*names, *needed]) if v not in self._known]
        values = self._known | self._compute(part, wanted, self._known)
        kept = {v: x for v, x in values.items() if v in later and x.is_tensor()}
        self._known = self._feeds | kept
        return {name: _tensor(values[name]) for name in names}

    def rest(self) -> list[str]:
        """The results of the nodes that no run has computed, in the order of the graph."""
        return [v for ref in self._nodes if ref.name not in self._done for v in ref.outputs]

    def recomputed(self, given: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Any]:
        """Compute each of these values from the values given for it, not from those of earlier
        runs, all in one session.

        Raises:
            LoadError, RunError: ONNX Runtime refused.
        """
        known = dict(self._feeds)
        copies: list[NodeRef] = []
        for name, values in given.items():
            for key in values.keys() - known.keys():
                known[key] = ort_value(to_numpy(values[key]))
            part = self._nodes_between([name], self._feeds.keys() | values.keys())
            graph = onnx.helper.make_graph([ref.node for ref in part], "", [], [])
            # what one copy makes may be given to another
            graph = onnx.compose.add_prefix_graph(graph, f"{name}/", inplace=True)
            copies += (NodeRef(node.name, node) for node in graph.node)
        made = self._compute(copies, [f"{name}/{name}" for name in given], known)
        return {name: _tensor(made[f"{name}/{name}"]) for name in given}

    def operators(self, name: str, known: Collection[str]) -> set[str]:
        """The operators that compute a value from these."""
        return {ref.node.op_type for ref in self._nodes_between([name], known)}

    def _nodes_between(self, names: Sequence[str], known: Collection[str]) -> list[NodeRef]:
        """The nodes between the known values and these, in the order of the graph."""
        needed: dict[str, NodeRef] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            ref = self._makers.get(name)
            if ref and name not in known and ref.name not in needed:
                needed[ref.name] = ref
                waiting += ref.inputs
        return sorted(needed.values(), key=lambda ref: self._order[ref.name])

    def _compute(
        self, part: Sequence[NodeRef], names: Sequence[str], known: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Run these nodes in a session that ends with this call."""
        if not names:
            return {}
        read = {value for ref in part for value in ref.inputs}
        feeds = {name: value for name, value in known.items() if name in read}
        # an arena grows by doubling and prepacking copies each weight: too much for one run
        functions = bool(self._model.functions)
        options = Options("basic" if functions else "off", arena=False).for_session()
        options.add_session_config_entry("session.disable_prepacking", "1")
        name = self._path.name
        failed = f"{name} could not be loaded with {len(names)} of its values as outputs"
        with explained(LoadError, failed, "Compare the outputs alone, without values=True."):
            data = model_bytes(self._submodel(part, feeds, names, read), self._path, options)
            session = session_of(data, self._provider, options)
        failed = f"ONNX Runtime failed while running {name} without its optimizer"
        with explained(RunError, failed, "Try the sizes of the export."):
            results = session.run_with_ort_values(list(names), feeds)
        return dict(zip(names, results, strict=True))

    def _submodel(
        self,
        part: Sequence[NodeRef],
        feeds: Mapping[str, Any],
        names: Sequence[str],
        read: set[str],
    ) -> onnx.ModelProto:
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [ref.node for ref in part],
            self._model.graph.name,
            [info(name, value.element_type(), value.shape()) for name, value in feeds.items()],
            [onnx.ValueInfoProto(name=name) for name in names],
            [tensor for name, tensor in self._weights.items() if name in read],
            sparse_initializer=[
                sparse
                for sparse in self._model.graph.sparse_initializer
                if sparse.values.name in read
            ],
        )
        return onnx.helper.make_model(
            graph,
            opset_imports=self._model.opset_import,
            functions=self._model.functions,
            ir_version=self._model.ir_version,
        )


def _tensor(result: Any) -> Any:
    return tensor_view(result) if result.is_tensor() else result
