"""ONNX Runtime: session options, sessions, providers, dtypes, and its errors in plain words.

torch is imported only where a tensor comes in, and onnxruntime only where a session is made: a
process that races a file never imports torch.
"""

from __future__ import annotations

import ctypes
import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import ml_dtypes
import numpy as np
import onnx

from . import reader
from .calls import Mode, PreparedCall
from .errors import InputError, LoadError, RunError, WorkbenchError, refused_by_machine, usual_hint
from .files import Stamp
from .formatting import kind_of, shaped
from .proto import dims_of, dtype_name, mislabeled, tensors_of

if TYPE_CHECKING:
    import onnxruntime
    import torch

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
T = TypeVar("T")
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
Level = Literal["off", "basic", "extended", "all"]
LEVELS: dict[Level, str] = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
"""Level of graph optimization -> ONNX Runtime's name for it."""

_TIMED = {
    "run": "session.run: NumPy in and out, no copies from or to tensors",
    "run_with_ort_values": "run_with_ort_values: NumPy lacks a dtype of this call; no copies",
}


# Options and sessions


def check_level(level: object) -> None:
    """Raises InputError unless ``level`` is one of :data:`LEVELS`."""
    if not isinstance(level, str) or level not in LEVELS:
        raise InputError(
            f"`level` is {level!r:.80}, but it says how far ONNX Runtime may optimize the graph.",
            f"Pass one of {', '.join(map(repr, LEVELS))}.",
        )


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
            f"{', '.join(available)}.",
            advice,
        )


@dataclass(frozen=True)
class Options:
    """Session options that change the speed of a session but not its results.

    Args:
        level: graph optimization.
        spinning: idle threads of the pool spin instead of sleeping.
        arena: CPU memory is kept for the next call.
        parallel: independent nodes may run at the same time (execution mode ORT_PARALLEL).
        bound: IOBinding: inputs and outputs are bound once, and their buffers reused.

    >>> Options()
    ONNX Runtime's defaults
    >>> Options(spinning=False, bound=True)
    spinning off, IOBinding
    """

    level: Level = "all"
    spinning: bool = True
    arena: bool = True
    parallel: bool = False
    bound: bool = False

    def __post_init__(self) -> None:
        check_level(self.level)
        for name in ("spinning", "arena", "parallel", "bound"):
            if not isinstance(given := getattr(self, name), bool):
                raise InputError(f"`{name}` is {given!r:.80}.", "Pass True or False.")

    def __repr__(self) -> str:
        words = {
            f"graph optimization {self.level}": self.level != "all",
            "spinning off": not self.spinning,
            "arena off": not self.arena,
            "parallel nodes": self.parallel,
            "IOBinding": self.bound,
        }
        changed = [word for word, is_changed in words.items() if is_changed]
        return ", ".join(changed) or "ONNX Runtime's defaults"

    def for_session(self, threads: int = 0) -> onnxruntime.SessionOptions:
        """The SessionOptions of a quiet session; 0 threads leaves their number to ONNX Runtime."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors arrive as exceptions
        options.intra_op_num_threads = threads
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, LEVELS[self.level]
        )
        options.enable_cpu_mem_arena = self.arena
        if self.parallel:
            options.inter_op_num_threads = threads
            options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        if not self.spinning:
            for pool in ("intra", "inter"):
                options.add_session_config_entry(f"session.{pool}_op.allow_spinning", "0")
        return options


def session_of(
    model: str | bytes, provider: str = CPU, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """A quiet InferenceSession of a path or of bytes, by default with ONNX Runtime's defaults; its
    errors are raised unchanged."""
    import onnxruntime

    options = options or Options().for_session()
    return onnxruntime.InferenceSession(model, options, providers=[provider])


def model_bytes(model: onnx.ModelProto, path: Path, options: onnxruntime.SessionOptions) -> bytes:
    """The bytes of a model that was read from ``path`` and then changed, for a session.

    Sets the folder of the external data in ``options``, with links resolved: ONNX Runtime refuses
    links that lead out of that folder.
    """
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    places = [e for t in tensors_of(moved) for e in t.external_data if e.key == "location"]
    files = {e.value: (path.parent / e.value).resolve() for e in places}
    if files:
        home = os.path.commonpath([file.parent for file in files.values()])
        options.add_session_config_entry(WEIGHTS_FOLDER, home)
        for entry in places:
            entry.value = files[entry.value].relative_to(home).as_posix()
    return moved.SerializeToString()


# What a session takes and gives


@dataclass(frozen=True)
class Value:
    """An input or output of a model. ``shape`` has a name for each dynamic dimension; it is None if
    the file declares no shape. A non-tensor has no shape, and ``dtype`` has its type.

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

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether the file takes a tensor of that shape."""
        if self.shape is None or len(shape) != len(self.shape):
            return self.shape is None
        sizes = zip(shape, self.shape, strict=True)
        return all(isinstance(want, str) or size == want for size, want in sizes)


def values(infos: Iterable[onnx.ValueInfoProto]) -> tuple[Value, ...]:
    """The inputs or outputs of a graph, with torch's names of dtypes."""
    return tuple(Value(info.name, _kind(info.type), dims_of(info)) for info in infos)


def _kind(kind: onnx.TypeProto) -> str:
    """A dtype, or a type such as ``sequence(float32)`` if it is not a tensor."""
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        return dtype_name(getattr(kind, which).elem_type)
    if which in ("sequence_type", "optional_type"):
        return f"{which.removesuffix('_type')}({_kind(getattr(kind, which).elem_type)})"
    return f"{(which or 'unknown_type').removesuffix('_type')}()"


def check_input(value: Value, tensor: object) -> None:
    """Raises InputError unless ONNX Runtime accepts ``tensor`` as ``value``."""
    import torch

    takes_tensor = isinstance(getattr(torch, value.dtype, None), torch.dtype)
    if not (takes_tensor and isinstance(tensor, torch.Tensor)):
        array = "array" if value.is_tensor else "[array, ...]"
        session = (
            "An Artifact accepts only tensors. Run the session itself, with NumPy arrays: "
            f"artifact.session.run(None, {{{value.name!r}: {array}}})."
        )
        raise InputError(
            f"The input {value.name!r} is {kind_of(tensor)}, but the file takes {value!r}.",
            "Pass a torch.Tensor." if takes_tensor else session,
        )
    dtype = str(tensor.dtype).removeprefix("torch.")
    have = "a nested tensor" if tensor.is_nested else shaped(tensor.dtype, tensor.shape)
    if tensor.is_nested:
        advice = "Pass its parts one by one: nested.unbind(), or nested.to_padded_tensor(0.0)."
    elif tensor.is_meta:
        have = "on the meta device"
        advice = "Pass a tensor with numbers: torch.empty_like(x, device='cpu').normal_()."
    elif tensor.layout is not torch.strided:
        have, advice = f"a sparse tensor ({tensor.layout})", "Pass it with .to_dense()."
    elif tensor.device.type != "cpu":
        have, advice = f"on {tensor.device}", "NumPy arrays are on the CPU: pass it with .cpu()."
    elif tensor.is_complex():
        advice = (
            "ONNX has no complex numbers, so torch.onnx writes each as two real ones: pass "
            "torch.view_as_real(z). With torch.view_as_complex(z) as the first line of forward(), "
            "the model takes the same."
        )
    elif not value.fits(tensor.shape):
        advice = "Pass that shape, or export with `dynamic_shapes` for the dimensions that change."
    elif dtype != value.dtype:
        advice = f"Pass it with .to(torch.{value.dtype})."
    else:
        return
    raise InputError(f"The input {value.name!r} is {have}, but the file takes {value!r}", advice)


def check_names(values: Sequence[Value], tensors: Sequence[torch.Tensor]) -> None:
    """Raises InputError unless each named dimension has one size in this call."""
    known: dict[str, tuple[int, str]] = {}
    for value, tensor in zip(values, tensors, strict=True):
        for axis, (name, size) in enumerate(zip(value.shape or (), tensor.shape, strict=True)):
            place = f"{value.name}.shape[{axis}]"
            other, first = known.setdefault(str(name), (size, place))
            if isinstance(name, str) and name.isidentifier() and other != size:
                raise InputError(
                    f"{first} is {other} and {place} is {size}, but both are {name!r} in the file: "
                    "one name means one size.",
                    "Pass tensors of one size there, or export with two names.",
                )


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as an array in the same memory; bfloat16 and float8 become ml_dtypes' dtypes.

    >>> import torch
    >>> to_numpy(torch.tensor([2j]).conj().imag).tolist()
    [-2.0]
    """
    plain = tensor.detach().resolve_conj().resolve_neg()
    name = str(plain.dtype).removeprefix("torch.")
    if not _is_foreign(name):
        return plain.numpy()
    import torch

    bits = plain.view(torch.int16 if plain.itemsize == 2 else torch.uint8).numpy()
    return bits.view(getattr(ml_dtypes, name))


def to_torch(result: Any) -> Any:
    """A session's result as tensors. A sequence becomes a list, an empty optional None; strings
    stay a NumPy array."""
    import torch

    result = as_arrays(result)
    if isinstance(result, list):
        return [to_torch(item) for item in result]
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    name = result.dtype.name
    if _is_foreign(name):
        bits = np.ascontiguousarray(result).view(f"uint{8 * result.itemsize}")
        return torch.from_numpy(bits).view(getattr(torch, name))
    return torch.from_numpy(np.asarray(result)) if result.dtype.kind in "biufc" else result


def as_arrays(result: Any) -> Any:
    """A session's result as NumPy arrays; bfloat16 and float8 become ml_dtypes' dtypes."""
    if isinstance(result, Sequence) and not isinstance(result, (str, bytes)):
        return [as_arrays(item) for item in result]
    if not hasattr(result, "data_ptr"):  # no OrtValue
        return result
    if not result.is_tensor():
        return as_arrays(result.numpy())
    dtype = onnx.helper.tensor_dtype_to_np_dtype(result.element_type())
    if not _is_foreign(dtype.name):
        return result.numpy()
    shape = result.shape()
    data = ctypes.string_at(result.data_ptr(), int(np.prod(shape)) * dtype.itemsize)
    return np.frombuffer(bytearray(data), dtype).reshape(shape)


def tensor_view(value: onnxruntime.OrtValue) -> torch.Tensor:
    """A tensor in ONNX Runtime's memory, of any dtype that torch has, too."""
    import torch

    public = getattr(value, "__dlpack__", None)  # since ONNX Runtime 1.27
    return torch.utils.dlpack.from_dlpack((public or value._ortvalue.to_dlpack)())


def ort_value(array: np.ndarray, device: str = "cpu") -> onnxruntime.OrtValue:
    """An array as an OrtValue, also with one of ml_dtypes' dtypes."""
    from onnxruntime import OrtValue

    array = np.asarray(array, order="C")  # ONNX Runtime assumes it
    if not _is_foreign(array.dtype.name):
        return OrtValue.ortvalue_from_numpy(array, device, 0)
    bits = array.view(f"uint{8 * array.itemsize}")
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)


def _is_foreign(name: str) -> bool:
    """Whether NumPy lacks a dtype of that name, and ml_dtypes has it."""
    return hasattr(ml_dtypes, name)


# Calls and their errors


def call_of(
    session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]
) -> partial[list[Any]]:
    """One ``session.run``, or ``run_with_ort_values`` if NumPy lacks a dtype of the call."""
    needed = any(_is_foreign(array.dtype.name) for array in feeds.values())
    if needed or any(re.search("bfloat16|float8", out.type) for out in session.get_outputs()):
        values = {name: ort_value(array) for name, array in feeds.items()}
        return partial(session.run_with_ort_values, None, values)
    return partial(session.run, None, dict(feeds))


def run(call: Callable[[], T], feeds: Mapping[str, np.ndarray], name: str) -> T:
    """Run a call of a session; an error says what the call was given."""
    try:
        return call()
    except WorkbenchError:
        raise
    except Exception as error:
        given = ", ".join(f"{key} {shaped(a.dtype, a.shape)}" for key, a in feeds.items())
        why, hint = _why(
            error,
            "Try the sizes of the export. If they work, a dimension is dynamic in the file but "
            "not in the model: export with other sizes, or name it in `dynamic_shapes`.",
        )
        message = f"ONNX Runtime failed while running {name} on {given}: {why}"
        raise RunError(message, hint) from error


@contextmanager
def explained(kind: type[WorkbenchError], failed: str, instead: str) -> Iterator[None]:
    """Turn an error of ONNX Runtime into one of this ``kind``; ``instead`` is the hint if its words
    are unknown."""
    try:
        yield
    except Exception as error:
        why, hint = _why(error, instead)
        raise kind(f"{failed}: {why}", hint) from error


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Turn what ONNX Runtime raises when it loads a file into a LoadError.

    The reason is from the file itself if possible: ONNX Runtime's words vary by version.
    """
    try:
        yield
    except WorkbenchError:
        raise
    except Exception as error:
        why, hint = _why(error, "Write that step with other operators.")
        if not refused_by_machine(error):
            proto = reader.read(path, "load").model
            reader.check_weights(path, proto)
            if foreign := mislabeled(proto):
                why = f"{foreign[0].lower()}{foreign[1:]}"
                hint = "Export it again with export(), which refuses such a file."
            elif re.search(r"opset|IR version", str(error), re.IGNORECASE):
                why = f"it needs a newer onnxruntime: {why}"
                hint = (
                    "Export with a lower `opset_version` (check() shows the highest that loads), "
                    "or upgrade onnxruntime."
                )
        raise LoadError(f"{path.name} could not be loaded: {why}", hint) from error


def _why(error: Exception, instead: str) -> tuple[str, str]:
    """Reason and hint; ``instead`` is the hint if the words of the error are unknown."""
    return refused_by_machine(error) or (short_reason(error), usual_hint(error, instead))


def short_reason(error: Exception) -> str:
    """The first line of ONNX Runtime's error, without its code and without folders.

    >>> short_reason(RuntimeError("Load model from a/draft/half.onnx failed: in /src/mul.cc:3"))
    'Load model from half.onnx failed: in mul.cc:3'
    >>> short_reason(MemoryError())
    'MemoryError'
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    return re.sub(r"[^\s/:\"'(]*(?:/[^\s/:\"']*)+/([^\s/:\"']+)", r"\1", line)


# A call as it is timed


@dataclass(frozen=True)
class SessionCall:
    """One call of an ``.onnx`` file, to be sent to another process.

    ``prepare()`` opens the session there. It times ``session.run``, or with ``options.bound``
    ``run_with_iobinding`` over buffers that are reused. ``mode`` is "" if the race compares both,
    so that they count as one mode. With the CUDA provider both return when the GPU is done, and the
    bound buffers are on the GPU. An ``isolated`` file must not run in this process.

    Raises:
        LoadError: the provider is missing or finds no device, or the file has changed since its
            ``stamp``.
    """

    path: str
    feeds: Mapping[str, np.ndarray]
    provider: str = CPU
    threads: int = 1
    options: Options = field(default_factory=Options)
    mode: Mode | None = None
    stamp: Stamp = field(default_factory=Stamp)
    isolated: bool = False

    modules = ("onnxruntime",)
    """What a worker imports before the call arrives."""

    def prepare(self) -> PreparedCall:
        self.stamp.check()
        session, bound = self._session(), self.options.bound
        words = f", {self.options}"
        if self.provider == CUDA:
            ends = "on the GPU" if bound else "with the copies to the GPU and back"
            words = f", {ends}, synchronized{words}"
        threads = session.get_session_options().intra_op_num_threads
        mode = self.mode if self.mode is not None else "compute" if bound else "API"
        if not bound:
            call = call_of(session, self.feeds)
            return PreparedCall(call, _TIMED[call.func.__name__] + words, threads, mode)
        binding = _binding(session, self.feeds)
        return PreparedCall(
            partial(session.run_with_iobinding, binding),  # which waits for its device
            f"run_with_iobinding: buffers bound once and reused, no copies{words}",
            threads,
            mode,
            first=partial(_allocate, session, binding),
        )

    def _session(self) -> onnxruntime.InferenceSession:
        """Open a session, and check its provider: onnxruntime silently uses the CPU instead."""
        import onnxruntime

        if self.provider in onnxruntime.get_available_providers():
            options = self.options.for_session(self.threads)
            session = session_of(self.path, self.provider, options)
            if session.get_providers()[0] == self.provider:
                return session
        raise LoadError(
            f"{self.provider} cannot be used here.",
            "Install its onnxruntime package and its device, or race without it.",
        )

    def is_bound_form_of(self, other: object) -> bool:
        """Whether ``other`` is the same call without IOBinding."""
        if not isinstance(other, SessionCall) or not self.options.bound:
            return False
        unbound = replace(self.options, bound=False)
        mine = (self.path, self.provider, self.threads, unbound)
        return mine == (other.path, other.provider, other.threads, other.options)


def _binding(
    session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]
) -> onnxruntime.IOBinding:
    """Bind inputs to buffers on the session's device, and outputs to that device."""
    device = "cuda" if session.get_providers()[0] == CUDA else "cpu"
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort_value(array, device))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    return binding


def _allocate(session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding) -> None:
    """The first run, in which ONNX Runtime allocates the outputs; their buffers then stay bound."""
    session.run_with_iobinding(binding)
    for output, value in zip(session.get_outputs(), binding.get_outputs(), strict=True):
        binding.bind_ortvalue_output(output.name, value)
