"""Session options, and one call of a file as it is timed. No torch: a worker opens this."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .calls import Mode, PreparedCall
from .errors import InputError, LoadError
from .files import Stamp
from .proto import tensors_of

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnxruntime

CUDA = "CUDAExecutionProvider"
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_FOREIGN = 2
"""``dtype.isbuiltin`` of one that another library registered with NumPy."""
_TIMED = {
    "run": "session.run: NumPy in and out, no copies from or to tensors",
    "run_with_ort_values": "run_with_ort_values: NumPy lacks a dtype of this call; no copies",
}
LEVELS = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
"""How far ONNX Runtime optimizes a graph before it runs it -> ONNX Runtime's own word."""


def check_level(level: object) -> None:
    """Raises InputError unless ``level`` is one of :data:`LEVELS`."""
    if level not in LEVELS if isinstance(level, str) else True:
        raise InputError(
            f"`level` is {level!r:.80}, and it takes one of {', '.join(map(repr, LEVELS))}: how "
            "far ONNX Runtime may optimize the graph before it runs."
        )


@dataclass(frozen=True)
class Options:
    """Session options that change how fast a session is, and not what it computes.

    Args:
        level: graph optimization.
        spinning: idle threads of the pool wait for work in a loop instead of sleeping.
        arena: memory of the CPU is kept for the next call.
        parallel: independent nodes may run at the same time (execution mode ORT_PARALLEL).
        bound: IOBinding: inputs and outputs are bound once, and their buffers used again.

    >>> Options()
    ONNX Runtime's defaults
    >>> Options(spinning=False, bound=True)
    spinning off, IOBinding
    """

    level: Literal["off", "basic", "extended", "all"] = "all"
    spinning: bool = True
    arena: bool = True
    parallel: bool = False
    bound: bool = False

    def __post_init__(self) -> None:
        check_level(self.level)
        for name in ("spinning", "arena", "parallel", "bound"):
            if not isinstance(given := getattr(self, name), bool):
                raise InputError(f"`{name}` is {given!r:.80}, and it takes True or False.")

    def __repr__(self) -> str:
        words = {
            f"graph optimization {self.level}": self.level != "all",
            "spinning off": not self.spinning,
            "arena off": not self.arena,
            "parallel nodes": self.parallel,
            "IOBinding": self.bound,
        }
        return ", ".join(word for word, said in words.items() if said) or "ONNX Runtime's defaults"

    def for_session(self, threads: int) -> onnxruntime.SessionOptions:
        """What ``InferenceSession`` takes, quiet."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = threads if self.parallel else 1
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, LEVELS[self.level]
        )
        options.enable_cpu_mem_arena = self.arena
        if self.parallel:
            options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        if not self.spinning:
            for pool in ("intra", "inter"):
                options.add_session_config_entry(f"session.{pool}_op.allow_spinning", "0")
        return options


@dataclass(frozen=True)
class SessionCall:
    """One call of an ``.onnx`` file, ready to be sent to a process of its own.

    ``prepare()`` opens the session there, and gives ``session.run`` to be timed, or with
    ``options.bound`` ``run_with_iobinding`` over buffers that are used again. ``mode`` is "" where
    the copies are what is compared, so that both count as one. With CUDA's provider both return
    when the GPU is done, and the bound buffers lie there. An ``isolated`` file is for a process of
    its own only.

    Raises:
        LoadError: the provider is missing, or finds no device; or the file is another than that
            of the ``stamp``.
    """

    path: str
    feeds: Mapping[str, np.ndarray]
    provider: str = "CPUExecutionProvider"
    threads: int = 1
    options: Options = field(default_factory=Options)
    mode: Mode | None = None
    stamp: Stamp = field(default_factory=partial(Stamp, ()))
    isolated: bool = False

    modules = ("onnxruntime",)
    """What a worker imports before the call arrives."""

    def prepare(self) -> PreparedCall:
        self.stamp.check()
        session = self._session()
        bound = self.options.bound
        words = ""
        if self.provider == CUDA:
            ends = "on the GPU" if bound else "with the copies to the GPU and back"
            words = f", {ends}, synchronized"
        words += f", {self.options}"
        common = {
            "threads": session.get_session_options().intra_op_num_threads,
            "mode": self.mode if self.mode is not None else "compute" if bound else "API",
        }
        if not bound:
            call = call_of(session, self.feeds)
            return PreparedCall(call, _TIMED[call.func.__name__] + words, **common)
        binding = _binding(session, self.feeds)
        return PreparedCall(
            partial(session.run_with_iobinding, binding),  # which waits for its device
            f"run_with_iobinding: buffers bound once and used again, no copies{words}",
            first=partial(_allocate, session, binding),
            **common,
        )

    def _session(self) -> onnxruntime.InferenceSession:
        """On the provider asked for: where it is missing, onnxruntime silently takes the CPU."""
        import onnxruntime

        if self.provider in onnxruntime.get_available_providers():
            options = self.options.for_session(self.threads)
            session = onnxruntime.InferenceSession(self.path, options, providers=[self.provider])
            if session.get_providers()[0] == self.provider:
                return session
        raise LoadError(
            f"{self.provider} cannot be used here.",
            "install the onnxruntime package that has it, with its device, or race without it.",
        )

    def is_bound_form_of(self, other: object) -> bool:
        """Whether the other is the same call, and only without IOBinding."""
        if not isinstance(other, SessionCall) or not self.options.bound:
            return False
        unbound = replace(self.options, bound=False)
        mine = (self.path, self.provider, self.threads, unbound)
        return mine == (other.path, other.provider, other.threads, other.options)


def bytes_of(model: onnx.ModelProto, path: Path, options: onnxruntime.SessionOptions) -> bytes:
    """What a session of a model takes that was at ``path`` and has been changed since.

    Its options are told where its external data lies, with links resolved: ONNX Runtime refuses
    those that lead out of that folder.
    """
    moved = type(model)()
    moved.CopyFrom(model)
    places = [e for t in tensors_of(moved) for e in t.external_data if e.key == "location"]
    files = {e.value: (path.parent / e.value).resolve() for e in places}
    if files:
        home = os.path.commonpath([file.parent for file in files.values()])
        options.add_session_config_entry(WEIGHTS_FOLDER, home)
        for entry in places:
            entry.value = files[entry.value].relative_to(home).as_posix()
    return moved.SerializeToString()


def call_of(
    session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]
) -> partial[list[Any]]:
    """One ``session.run``; where NumPy lacks a dtype that goes in or out, ``run_with_ort_values``
    over values that are made here."""
    taken = any(array.dtype.isbuiltin == _FOREIGN for array in feeds.values())
    if taken or any(re.search("bfloat16|float8", out.type) for out in session.get_outputs()):
        values = {name: ort_value(array) for name, array in feeds.items()}
        return partial(session.run_with_ort_values, None, values)
    return partial(session.run, None, dict(feeds))


def ort_value(array: np.ndarray, device: str = "cpu") -> onnxruntime.OrtValue:
    """An array as ONNX Runtime takes it, those of ml_dtypes too: bfloat16 and float8."""
    from numpy import asarray
    from onnxruntime import OrtValue

    array = asarray(array, order="C")  # which ONNX Runtime takes for granted
    if array.dtype.isbuiltin != _FOREIGN:
        return OrtValue.ortvalue_from_numpy(array, device, 0)
    from onnx.helper import np_dtype_to_tensor_dtype

    bits = array.view(f"uint{8 * array.itemsize}")
    kind = np_dtype_to_tensor_dtype(array.dtype)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)


def _binding(
    session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]
) -> onnxruntime.IOBinding:
    """Inputs bound to buffers on the session's own device, outputs to that device."""
    device = "cuda" if session.get_providers()[0] == CUDA else "cpu"
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort_value(array, device))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    return binding


def _allocate(session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding) -> None:
    """The first run: ONNX Runtime allocates the outputs, so that any shape is met; then those
    buffers are bound for good."""
    session.run_with_iobinding(binding)
    for output, value in zip(session.get_outputs(), binding.get_outputs(), strict=True):
        binding.bind_ortvalue_output(output.name, value)
