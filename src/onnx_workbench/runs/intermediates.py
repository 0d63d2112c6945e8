"""Any value of an ONNX graph on demand: the nodes that make it, in a session of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from ..errors import LoadError, RunError
from ..ort import model_bytes, ort_value, tensor_view, to_numpy
from ..proto import NodeRef, walk

if TYPE_CHECKING:
    import onnxruntime


class Exposed:
    """A model and one call of it, whose values can be asked for by name.

    Each :meth:`run` opens a session over the nodes that make those values, out of the inputs and of
    what earlier runs made and nodes to come still read: runs that go along the graph compute each
    node once, and hold no more than the values asked for and those that the model itself would
    hold. Weights that the model has as external data are mapped into memory from their file. The
    graph runs as it was written, without ONNX Runtime's optimizer
    (functions alone need its basic level).

    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> half (float[2] x) '
    ...     '=> (float[2] y) { h = Neg(x)  y = Relu(h) }')
    >>> feeds = {"x": np.ones(2, np.float32)}
    >>> Exposed(Path("half.onnx"), model, "CPUExecutionProvider", feeds).run(["h"])
    {'h': tensor([-1., -1.])}
    """

    def __init__(
        self, path: Path, model: onnx.ModelProto, provider: str, feeds: Mapping[str, np.ndarray]
    ) -> None:
        self._path, self._model, self._provider = path, model, provider
        self._feeds = {name: ort_value(array) for name, array in feeds.items()}
        self._there = self._feeds
        self._nodes = [ref for ref in walk(model) if not ref.inside]
        self._done: set[str] = set()

    @cached_property
    def names(self) -> frozenset[str]:
        """The values that can be asked for: what the nodes of the main graph make."""
        return frozenset(self._makers)

    @cached_property
    def hidden(self) -> tuple[str, ...]:
        """Those that cannot: they are made in the body of a node or of a function."""
        return tuple(v for ref in walk(self._model) if ref.inside for v in ref.outputs)

    def weight(self, name: str) -> torch.Tensor | None:
        """An initializer, None where there is none of that name."""
        tensor = self._initializers.get(name)
        array = None if tensor is None else _array(tensor, self._path.parent)
        return None if array is None else torch.from_numpy(np.array(array))

    def run(self, names: Sequence[str]) -> dict[str, Any]:
        """These values; a tensor each, in ONNX Runtime's memory, or a list where it is a sequence.

        Raises:
            LoadError, RunError: ONNX Runtime refused.
        """
        part = self._part(names)
        self._done |= {ref.name for ref in part}
        later = {v for ref in self._nodes if ref.name not in self._done for v in ref.inputs}
        made = {value for ref in part for value in ref.outputs}
        wanted = [*dict.fromkeys([*names, *sorted(made & later)])]
        found = self._there | self._made(part, [v for v in wanted if v not in self._there])
        kept = {v: x for v, x in found.items() if v in later and x.is_tensor()}
        self._there = self._feeds | kept
        return {name: _tensor(found[name]) for name in names}

    def alone(self, name: str, given: Mapping[str, torch.Tensor]) -> Any:
        """One value, computed from these values instead of what earlier runs made.

        Raises:
            LoadError, RunError: ONNX Runtime refused.
        """
        there = self._there
        self._there = self._feeds | {
            key: ort_value(to_numpy(value)) for key, value in given.items()
        }
        try:
            return _tensor(self._made(self._part([name]), [name])[name])
        finally:
            self._there = there

    def _part(self, names: Sequence[str]) -> list[NodeRef]:
        """The nodes that make these values out of what is there."""
        needed: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            ref = self._makers.get(name)
            if ref and name not in self._there and ref.name not in needed:
                needed.add(ref.name)
                waiting += ref.inputs
        return [ref for ref in self._nodes if ref.name in needed]

    def _made(self, part: Sequence[NodeRef], names: Sequence[str]) -> dict[str, Any]:
        if not names:
            return {}
        session, feeds = self._session(part, names)
        try:
            results = session.run_with_ort_values(list(names), feeds)
        except Exception as error:
            raise RunError(
                f"ONNX Runtime failed while running {self._path.name} without its optimizer: "
                f"{str(error).splitlines()[0]}",
                "try the sizes of the export.",
            ) from error
        return dict(zip(names, results, strict=True))

    def _session(
        self, part: Sequence[NodeRef], names: Sequence[str]
    ) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
        """One over these nodes, and what it is to be fed."""
        import onnxruntime

        read = {value for ref in part for value in ref.inputs}
        feeds = {name: value for name, value in self._there.items() if name in read}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False  # which grows by doubling, for one run
        # which copies each weight into another layout, for one run
        options.add_session_config_entry("session.disable_prepacking", "1")
        level = "ORT_ENABLE_BASIC" if self._model.functions else "ORT_DISABLE_ALL"
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        graph = onnx.helper.make_graph(
            [ref.node for ref in part],
            self._model.graph.name,
            [_info(name, value) for name, value in feeds.items()],
            [onnx.ValueInfoProto(name=name) for name in names],
            [tensor for name, tensor in self._initializers.items() if name in read],
        )
        opsets, functions = self._model.opset_import, self._model.functions
        model = onnx.helper.make_model(graph, opset_imports=opsets, functions=functions)
        model.ir_version = self._model.ir_version
        try:
            data = model_bytes(model, self._path, options)
            return onnxruntime.InferenceSession(data, options, providers=[self._provider]), feeds
        except Exception as error:
            raise LoadError(
                f"{self._path.name} could not be loaded with {len(names)} of its values as "
                f"outputs: {str(error).splitlines()[0]}",
                "compare the outputs alone, without values=True.",
            ) from error

    @cached_property
    def _makers(self) -> dict[str, NodeRef]:
        return {value: ref for ref in self._nodes for value in ref.outputs}

    @cached_property
    def _initializers(self) -> dict[str, onnx.TensorProto]:
        return {tensor.name: tensor for tensor in self._model.graph.initializer}


def _array(tensor: onnx.TensorProto, folder: Path) -> np.ndarray | None:
    """A view of a weight where it lies; None for a dtype that NumPy lacks, such as bfloat16."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if dtype.kind not in "fiub" or tensor.data_type in _PACKED:
        return None
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        info = onnx.external_data_helper.ExternalDataInfo(tensor)
        start = int(info.offset or 0)
        return np.memmap(folder / info.location, dtype, "c", start, tuple(tensor.dims))
    return onnx.numpy_helper.to_array(tensor)


_PACKED = {onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.BFLOAT16}


def _info(name: str, value: Any) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, value.element_type(), value.shape())


def _tensor(result: Any) -> Any:
    return tensor_view(result) if result.is_tensor() else result
