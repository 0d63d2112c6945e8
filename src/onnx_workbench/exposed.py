"""Any value of an ONNX graph on demand: the same nodes, with other outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from .errors import LoadError, RunError
from .proto import sites

_SMALL = 1024
"""Bytes up to which a weight stays in the graph: shapes, axes and scalars are read there."""


class Exposed:
    """A model whose values can be asked for by name.

    Each :meth:`run` opens a session with those values as outputs. All of them share one copy of the
    weights: the artifact's own bytes, or its file of weights mapped into memory. The graph runs as
    it was written, without ONNX Runtime's optimiser (functions alone need its basic level).

    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> half (float[2] x) '
    ...     '=> (float[2] y) { h = Neg(x)  y = Relu(h) }')
    >>> Exposed(Path("half.onnx"), model, "CPUExecutionProvider").run(
    ...     ["h"], {"x": np.ones(2, np.float32)})
    {'h': tensor([-1., -1.])}
    """

    def __init__(self, path: Path, model: onnx.ModelProto, provider: str) -> None:
        self._path, self._model, self._provider = path, model, provider

    @cached_property
    def names(self) -> frozenset[str]:
        """The values that can be asked for: what the nodes of the main graph make."""
        return frozenset(v for node in self._model.graph.node for v in node.output if v)

    @cached_property
    def hidden(self) -> tuple[str, ...]:
        """Those that cannot: they are made in the body of a node or of a function."""
        return tuple(v for site in sites(self._model) if site.inside for v in site.outputs)

    def weight(self, name: str) -> torch.Tensor | None:
        """An initializer, None where there is none of that name."""
        tensor = self._initializers.get(name)
        array = None if tensor is None else _array(tensor, self._path.parent)
        return None if array is None else torch.from_numpy(np.array(array))

    def run(self, names: Sequence[str], feeds: Mapping[str, Any]) -> dict[str, Any]:
        """These values for these inputs; a tensor each, or a list where it is a sequence.

        Raises:
            LoadError, RunError: ONNX Runtime refused.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        level = "ORT_ENABLE_BASIC" if self._model.functions else "ORT_DISABLE_ALL"
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        shared = {name: _ort_value(array) for name, array in self._shared.items()}
        options.add_external_initializers(list(shared), list(shared.values()))
        model = self._with_outputs(names).SerializeToString()
        try:
            session = onnxruntime.InferenceSession(model, options, providers=[self._provider])
        except Exception as error:
            raise LoadError(
                f"{self._path.name} could not be loaded with {len(names)} of its values as "
                f"outputs: {str(error).splitlines()[0]}\n"
                "What helps: compare the outputs alone, without values=True."
            ) from error
        try:
            results = session.run_with_ort_values(
                list(names), {key: _ort_value(array) for key, array in feeds.items()}
            )
        except Exception as error:
            raise RunError(
                f"ONNX Runtime failed while running {self._path.name} without its optimiser: "
                f"{str(error).splitlines()[0]}\nWhat helps: try the sizes of the export."
            ) from error
        return {name: _tensor(result) for name, result in zip(names, results, strict=True)}

    @cached_property
    def _initializers(self) -> dict[str, onnx.TensorProto]:
        return {tensor.name: tensor for tensor in self._model.graph.initializer}

    @cached_property
    def _shared(self) -> dict[str, np.ndarray]:
        """The weights that all sessions share."""
        found = {}
        for name, tensor in self._initializers.items():
            array = _array(tensor, self._path.parent)
            if array is not None and array.nbytes > _SMALL:
                found[name] = array
        return found

    def _with_outputs(self, names: Sequence[str]) -> onnx.ModelProto:
        graph, helper = self._model.graph, onnx.helper
        outputs = [onnx.ValueInfoProto(name=name) for name in names]
        light = helper.make_graph(graph.node, graph.name, graph.input, outputs, list(self._light()))
        opsets = self._model.opset_import
        model = helper.make_model(light, opset_imports=opsets, functions=self._model.functions)
        model.ir_version = self._model.ir_version
        return model

    def _light(self) -> Iterator[onnx.TensorProto]:
        """Each weight, in place or as a promise that the session's own options keep."""
        for name, tensor in self._initializers.items():
            light = onnx.TensorProto(name=name, data_type=tensor.data_type, dims=tensor.dims)
            if name in self._shared:
                light.data_location = onnx.TensorProto.EXTERNAL
                light.external_data.add(key="location", value="shared")
            else:
                light.CopyFrom(tensor)
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    folder = str(self._path.parent)
                    onnx.external_data_helper.load_external_data_for_tensor(light, folder)
                    light.data_location = onnx.TensorProto.DEFAULT
                    del light.external_data[:]
            yield light


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


def _ort_value(array: np.ndarray) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _tensor(result: Any) -> Any:
    if not result.is_tensor():
        return result
    if result.data_type() != "tensor(bfloat16)":
        return torch.from_numpy(np.asarray(result.numpy()))
    public = getattr(result, "__dlpack__", None)  # since ONNX Runtime 1.27
    return torch.utils.dlpack.from_dlpack((public or result._ortvalue.to_dlpack)())
