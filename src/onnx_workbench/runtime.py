"""ONNX Runtime: sessions, what they take and give, and their errors in plain words."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ml_dtypes
import numpy as np
import torch

from . import reader
from .errors import InputError, LoadError, RunError, WorkbenchError, refused_by_machine
from .formatting import kind_of, shaped
from .proto import dims_of, dtype_name, mislabelled, tensors_of

if TYPE_CHECKING:
    import onnx
    import onnxruntime

CPU = "CPUExecutionProvider"
T = TypeVar("T")
LEAST_READ = 1024
"""Bytes of a weight that is read where only the graph is asked for: names are shorter."""


@dataclass(frozen=True)
class Value:
    """An input or output of a model: ``shape`` has a name where a dimension is dynamic, and is None
    where the file promises none. What is no tensor has no shape, and ``dtype`` says what it is.

    >>> Value("images", "float32", ("batch", 1, 8, 8)), Value("boxes", "sequence(float32)")
    (images float32[batch, 1, 8, 8], boxes sequence(float32))
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None = None

    @property
    def is_tensor(self) -> bool:
        return "(" not in self.dtype

    def __repr__(self) -> str:
        if self.shape is not None:
            return f"{self.name} {shaped(self.dtype, self.shape)}"
        return f"{self.name} {self.dtype}{' of any shape' if self.is_tensor else ''}"


def check_provider(name: str) -> None:
    """Raises InputError unless this onnxruntime has an execution provider of that name."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if name not in available:
        close = difflib.get_close_matches(str(name), available, n=1, cutoff=0.94)
        advice = (
            f"Did you mean {close[0]!r}?"
            if close
            else "Choose one of these, or install the onnxruntime package that has it "
            "(CUDAExecutionProvider comes with onnxruntime-gpu)."
        )
        raise InputError(
            f"The execution provider {name!r} is not in this onnxruntime, which has "
            f"{', '.join(available)}. {advice}"
        )


def open_session(path: str | os.PathLike[str], provider: str = CPU) -> onnxruntime.InferenceSession:
    """An InferenceSession that is quiet.

    Raises:
        LoadError: the file is no model, lacks its weights, or asks for what this version lacks.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors arrive as exceptions, that is enough
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=[provider])
    except Exception as error:
        raise refused(Path(path), error) from error


def refused(path: Path, error: Exception) -> LoadError:
    """What ONNX Runtime raised when it was to load a file, in plain words."""
    why, hint = _why(path, error)
    return LoadError(f"{path.name} could not be loaded: {why}", hint)


def values(infos: Iterable[onnx.ValueInfoProto]) -> tuple[Value, ...]:
    """The inputs or outputs of a graph, in torch's words for a dtype."""
    return tuple(Value(info.name, _kind(info.type), _shape(info)) for info in infos)


def check_names(values: Sequence[Value], tensors: Sequence[torch.Tensor]) -> None:
    """Raises InputError unless each name of a dimension stands for one size in this call."""
    known: dict[str, tuple[int, str]] = {}
    for value, tensor in zip(values, tensors, strict=True):
        for axis, (name, size) in enumerate(zip(value.shape, tensor.shape, strict=True)):
            place = f"{value.name}.shape[{axis}]"
            other, first = known.setdefault(str(name), (size, place))
            if isinstance(name, str) and name.isidentifier() and other != size:
                raise InputError(
                    f"{first} is {other} and {place} is {size}, and both are {name!r} in the file: "
                    "one name is one size. Pass tensors of one size there, or export with two "
                    "names."
                )


def check_input(value: Value, tensor: object) -> None:
    """Raises InputError unless ONNX Runtime would take ``tensor`` for ``value`` as it is."""
    if not isinstance(tensor, torch.Tensor):
        raise InputError(
            f"The input {value.name!r} is {kind_of(tensor)}, and the file takes {value!r}. "
            "Pass a torch.Tensor."
        )
    if tensor.layout is not torch.strided:
        raise InputError(
            f"The input {value.name!r} is a sparse tensor ({tensor.layout}), and the file takes a "
            "dense one. Pass it with .to_dense()."
        )
    if tensor.device.type != "cpu":
        raise InputError(
            f"The input {value.name!r} lies on {tensor.device}, and it is handed over as a NumPy "
            "array, which lies on the CPU. Pass it with .cpu()."
        )
    if tensor.layout is not torch.strided:
        raise InputError(
            f"The input {value.name!r} is sparse ({tensor.layout}), and the file takes {value!r}, "
            "which is dense.",
            "Pass it with .to_dense().",
        )
    if tensor.is_complex():
        raise InputError(
            f"The input {value.name!r} is {shaped(tensor.dtype, tensor.shape)}, and the file takes "
            f"{value!r}: ONNX has no complex numbers, and torch.onnx writes each as two real ones.",
            "Pass torch.view_as_real(z); the call torch.view_as_complex(z) as the first line of "
            "forward() makes the model take the same.",
        )
    if not value.is_tensor:
        raise InputError(
            f"The input {value.name!r} is a Tensor, and the file takes {value!r}, which an "
            "Artifact is not called with. Run the session itself, with NumPy arrays: "
            f"artifact.session.run(None, {{{value.name!r}: [array, ...]}})."
        )
    have, dtype = shaped(tensor.dtype, tensor.shape), str(tensor.dtype).removeprefix("torch.")
    fits = value.shape is None or (
        len(tensor.shape) == len(value.shape)
        and all(
            isinstance(want, str) or size == want
            for size, want in zip(tensor.shape, value.shape, strict=True)
        )
    )
    if dtype == value.dtype and fits:
        return
    advice = (
        f"Pass it with .to(torch.{value.dtype})."
        if fits
        else "Pass that shape, or export with `dynamic_shapes` for the dimensions that change."
    )
    raise InputError(f"The input {value.name!r} is {have}, and the file takes {value!r}. {advice}")


def weight_files(proto: onnx.ModelProto) -> list[str]:
    """The files, relative to the model's, that hold initializers which are not in it."""
    entries = [entry for tensor in tensors_of(proto) for entry in tensor.external_data]
    return list(dict.fromkeys(entry.value for entry in entries if entry.key == "location"))


def check_weights(path: Path, proto: onnx.ModelProto) -> None:
    """Raises LoadError unless the files of weights lie beside a model."""
    for name in weight_files(proto):
        if not (path.parent / name).is_file():
            raise LoadError(
                f"{path.name} could not be loaded: its weights are in a file of their own, "
                f"{name!r}, which is not beside it.",
                "copy both files, or export again into one.",
            )


def array(tensor: torch.Tensor) -> np.ndarray:
    """The same numbers in the same memory; bfloat16 and float8 are those of ml_dtypes."""
    plain = tensor.detach()
    name = str(plain.dtype).removeprefix("torch.")
    if name != "bfloat16" and not name.startswith("float8"):
        return plain.numpy()
    bits = plain.view(torch.int16 if plain.itemsize == 2 else torch.uint8).numpy()
    return bits.view(getattr(ml_dtypes, name))


def view(value: onnxruntime.OrtValue) -> torch.Tensor:
    """A tensor in ONNX Runtime's own memory, of any dtype that both have."""
    public = getattr(value, "__dlpack__", None)  # since ONNX Runtime 1.27
    return torch.utils.dlpack.from_dlpack((public or value._ortvalue.to_dlpack)())


def tensor(result: Any) -> Any:
    """What a session returned, in memory of its own; a sequence as a list, an empty optional as
    None, and strings as NumPy has them."""
    import onnxruntime

    if isinstance(result, onnxruntime.OrtValue):
        if not result.is_tensor():
            return tensor(result.numpy())
        return view(result).clone()
    if isinstance(result, list):
        return [tensor(item) for item in result]
    name = str(getattr(result, "dtype", ""))
    if name == "bfloat16" or name.startswith("float8"):  # of ml_dtypes: the inverse of array()
        bits = np.ascontiguousarray(result).view(f"uint{8 * result.itemsize}")
        return torch.from_numpy(bits.copy()).view(getattr(torch, name))
    if not isinstance(result, (np.ndarray, np.generic)) or result.dtype.kind not in "biufc":
        return result
    return torch.from_numpy(np.asarray(result))


def run(call: Callable[[], T], feeds: Mapping[str, np.ndarray], name: str) -> T:
    """What a call of a session returns, with an error that says on what it failed."""
    try:
        return call()
    except WorkbenchError:
        raise
    except Exception as error:
        told = ", ".join(
            f"{key} {shaped(given.dtype, given.shape)}" for key, given in feeds.items()
        )
        if machine := refused_by_machine(error):
            said = f"The machine refuses to run {name} on {told}."
            raise RunError(said, machine[1], reason=machine[0]) from error
        raise RunError(
            f"ONNX Runtime failed while running {name} on {told}: {_short(error)}",
            "try the sizes of the export. If those run, a dimension that the file "
            "calls dynamic is not: export with other sizes, or name it in `dynamic_shapes`.",
        ) from error


def _why(path: Path, error: Exception) -> tuple[str, str]:
    """Read off the file itself where that can be: ONNX Runtime's words change with its version."""
    if machine := refused_by_machine(error):
        return machine
    proto = reader.read(path, "load", largest=LEAST_READ).model
    check_weights(path, proto)
    if foreign := mislabelled(proto):
        return (
            f"{foreign[0].lower()}{foreign[1:]}",
            "export it again with export(), which refuses such a file.",
        )
    if re.search(r"opset|IR version", str(error), re.IGNORECASE):
        return (
            f"it asks for more than this onnxruntime knows: {_short(error)}",
            "export with a lower `opset_version` (check() shows the highest that loads), or "
            "upgrade onnxruntime.",
        )
    if re.search(r"NOT_IMPLEMENTED|Could not find an implementation", str(error)):
        return (
            f"{_short(error)}",
            "the operator is right, and the provider has no kernel for its dtypes: "
            "compute that step in float32, export model.float(), or take another `provider`.",
        )
    return _short(error), "check the file with onnx.checker.check_model."


def _short(error: Exception) -> str:
    """The first line of what ONNX Runtime says, without its code and without paths."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    return re.sub(r"/[^\s:\"']*/([^\s/:\"']+)", r"\1", line)


def _kind(kind: onnx.TypeProto) -> str:
    """A dtype, or such as ``sequence(float32)`` for what is no tensor."""
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        return dtype_name(getattr(kind, which).elem_type)
    if which in ("sequence_type", "optional_type"):
        return f"{which.removesuffix('_type')}({_kind(getattr(kind, which).elem_type)})"
    return f"{(which or 'unknown_type').removesuffix('_type')}()"


def _shape(info: onnx.ValueInfoProto) -> tuple[int | str, ...] | None:
    dims = dims_of(info)
    return None if dims is None else tuple(_free(dim) for dim in dims)


def _free(dim: int | str) -> int | str:
    return "?" if isinstance(dim, int) and dim < 0 else dim
