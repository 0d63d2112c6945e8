"""FX graph -> a checked ``.onnx`` file that is called like the model it came from."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import IO, TYPE_CHECKING, Any, Protocol, Unpack, runtime_checkable

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.onnx import ONNXProgram
from torch.utils._pytree import tree_map_only

from . import exporter_metadata, files, ort, progress, protobuf_reader, reader
from .calls import Mode, normalize_call, number, whole
from .comparison import answer, compare
from .errors import ExportError, InputError, LoadError, WorkbenchError
from .files import Stamp
from .formatting import Code, Part, Report, Table, kind_of, plural, size
from .graph import Graph, capture, check_module, exporter, module_and_call
from .graph.dims import from_dynamic_axes, name_of, parse_shapes
from .graph.options import ExportOptions, with_defaults
from .graph.signature import Signature, arguments, kwargs_name, parameters
from .isolated import TIMEOUT, IsolatedFile
from .machine import trim_memory
from .ort import LEVELS, Options, SessionCall, call_of
from .proto import dtype_name, mislabeled, opset_of, strip, tensors_of, weight_bytes, weights
from .source import Line, node_line
from .torch_state import evaluating

if TYPE_CHECKING:
    import onnxruntime

MOST_SECONDS = threading.TIMEOUT_MAX
"""The longest timeout that a timer accepts."""

ONE_FILE_LIMIT = 2_000_000_000
"""Bytes of weights above which they go into a second file: protobuf's limit is 2 GiB."""


@normalize_call
def export(
    model: nn.Module | ExportedProgram | Graph,
    args: Any = (),
    f: str | os.PathLike[str] | IO[bytes] | None = None,
    *,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    custom_translation_table: exporter.Translations | None = None,
    external_data: bool | None = None,
    dynamo: bool = True,
    dynamic_axes: Mapping[str, Any] | None = None,
    provider: str = ort.CPU,
    **options: Unpack[ExportOptions],
) -> Artifact:
    """Export a model with ``torch.onnx.export``'s own call, then check and load the file.

    The export succeeds if the file has the opset asked for, ``onnx.checker`` accepts it and ONNX
    Runtime loads it. Until then the file is in a hidden folder beside ``f``: if anything fails, the
    old file at ``f`` is still there, and nothing half-written is left. Only a process that is
    killed while it writes or checks leaves the folder behind.

    Args:
        model: a module, or a captured model: a Graph or an ExportedProgram.
        args: the inputs of one call, as torch.onnx.export reads them: a tuple, or one tensor. A
            dict at its end holds keyword arguments, unless ``kwargs`` does.
        f: the path of the file. None writes a temporary file, removed with the Artifact. A binary
            stream gets one file, with the weights.
        kwargs: keyword arguments of the call.
        dynamic_shapes: as for :func:`~onnx_workbench.capture`.
        input_names, output_names: names for the inputs and outputs of the file, in order.
        opset_version: the version of the ONNX operator set; None is the exporter's default.
        custom_translation_table: torch operator -> the onnxscript function that translates it:
            ``{torch.ops.demo.swishy.default: swishy}``. They take precedence over the exporter's.
        external_data: None writes one file up to 2 GB of weights, and above that torch's layout:
            ``f`` with the weights in ``f.data`` beside it. True always uses that layout.
        dynamo: False uses the old exporter, the TorchScript tracer. It records one run of the
            model, so a branch or loop on data stays as it was in that run.
        dynamic_axes: dynamic dimensions by input name, for the old exporter's call.
        provider: the execution provider that the artifact runs on.
        options: the other options of torch.onnx.export. ``verify=True`` compares the file's
            outputs with the model's; options for reports or profiles warn and name the function to
            call instead.

    Raises:
        InputError: the arguments, the path, the provider or a translation do not fit.
        CaptureError: torch.export refused the model.
        ExportError: there is no translation, the file has another opset than asked for, onnx or
            ONNX Runtime rejects the file, or it could not be written.

    >>> folder = getfixture("tmp_path")
    >>> relu = export(nn.ReLU().eval(), torch.ones(2), folder / "relu.onnx")
    >>> relu(torch.tensor([-1.0, 3.0]))
    tensor([0., 3.])
    """
    settings = with_defaults(options, getattr(model, "training", False))
    captured = isinstance(model, (Graph, ExportedProgram))
    dynamo = dynamo or captured
    if not captured and (dynamo or not isinstance(model, torch.jit.ScriptModule)):
        check_module("export", model)  # the tracer takes a ScriptModule, too
    _check_options(dynamo, opset_version, input_names, output_names, custom_translation_table)
    ort.check_provider(provider)
    args, kwargs = _as_torch_reads(model, args, kwargs or {})
    if dynamic_shapes is None and dynamic_axes is not None:
        known = arguments(*module_and_call(model, args, kwargs, None)[:3])
        dynamic_shapes = from_dynamic_axes(
            dynamic_axes, known, input_names or (), output_names or ()
        )
    names = input_names, output_names
    if isinstance(f, _Stream):
        external_data = False  # a stream has no file beside it
    with _target(model, f) as target, progress.bar("export", total=5) as step:
        _check_weights(model, target, external_data)
        if dynamo:
            step("capture")
            graph = capture(model, args, kwargs, dynamic_shapes=dynamic_shapes)
            step("translate")
            program = exporter.translate(
                graph.program,
                opset=opset_version,
                labels=graph.labels,
                optimize=settings["optimize"],
                translations=custom_translation_table,
                names=names,
                verbose=settings["verbose"] or False,
            )
            artifact = Artifact(target, provider, graph.signature, graph, program.exported_program)
            write: Callable[[Path], None] = partial(
                _write, program, external_data, settings["keep_initializers_as_inputs"]
            )
            del program  # its weights need not outlive the write
        else:
            step("trace")
            traced: Any = {**settings, "opset_version": opset_version}
            signature, write = _torchscript(model, args, kwargs, dynamic_shapes, names, traced)
            artifact = Artifact(target, provider, signature)
        # opened only now: a process that is killed before leaves no hidden folder behind
        with _replacing_model(target, ExportError) as folder:
            path = folder / target.name
            step("write")
            write(path)
            del write
            draft = replace(artifact, path=path)
            call = (model, args, kwargs) if settings["verify"] else None
            _check(draft, opset_version, call, step)
            # taken before the rename: another export may then replace the files
            stamp = Stamp.of(folder.iterdir()).at(target.parent)
        artifact = replace(artifact, path=target, stamp=stamp)
        for name in ("session", "inputs", "outputs"):  # which do not depend on the path
            artifact.__dict__[name] = getattr(draft, name)
    if f is None or isinstance(f, _Stream):
        # a copy has the same stamp, and needs the file as long
        weakref.finalize(artifact.stamp, shutil.rmtree, target.parent, ignore_errors=True)
    if isinstance(f, _Stream):
        f.write(target.read_bytes())
    trim_memory()
    return artifact


def load(
    path: str | os.PathLike[str],
    provider: str = ort.CPU,
    *,
    like: Artifact | None = None,
    isolated: bool = False,
    timeout: float = TIMEOUT,
) -> Artifact:
    """Load any ``.onnx`` file as a callable that takes tensors in order or by input name.

    It returns a tensor, or a tuple of tensors if the file has several outputs.

    Args:
        path: of the file.
        provider: the execution provider that it runs on.
        like: the artifact from which another tool, such as a quantizer, made the file. The result
            is called like it, and ``verify(values=True)`` compares with the same captured graph.
        isolated: run it in its own process, as :func:`~onnx_workbench.audit` and
            :func:`~onnx_workbench.probe` do. ONNX Runtime crashes on some files: the call then
            raises an error that names the node, and this process goes on.
        timeout: seconds after which that process is killed. The search for the node at fault then
            runs parts of the model for up to a minute.

    Raises:
        InputError: there is no such file, or no such provider.
        LoadError: it is not a valid ONNX model, or its weights are not beside it. If ONNX Runtime
            rejects the file, the first call raises, since it opens the session.
    """
    file = files.existing(path).absolute()
    ort.check_provider(provider)
    if not isinstance(like, Artifact | None):
        raise InputError(
            f"`like` is {kind_of(like)}, but must be an Artifact.", "Pass what export() returned."
        )
    made = {n: getattr(like, n) for n in ("signature", "graph", "exported_program")} if like else {}
    limit = min(number("timeout", timeout), MOST_SECONDS)
    artifact = Artifact(file, provider, **made, isolated=isolated, timeout=limit)
    reader.check_weights(file, artifact.proto)
    stamped = replace(artifact, stamp=Stamp.of(artifact.files))
    stamped.__dict__["_read"] = artifact._read  # do not read the file twice
    trim_memory()  # a tool may have written the file just now
    return stamped


@dataclass(frozen=True, repr=False, eq=False)
class Artifact(Report):
    """A model on disk, called with the tensors and keyword arguments of the model it came from.

    Made by :func:`export` and :func:`load`. It returns torch tensors, nested as the model returns
    them. An ``isolated`` artifact runs in its own process, for at most ``timeout`` seconds a call.
    ``graph`` is the captured graph, ``exported_program`` the decomposed one that the exporter
    translated node by node; both are None if the tracer made the file or it was loaded. If the file
    has changed since its ``stamp``, reading it raises LoadError.
    """

    path: Path
    provider: str = ort.CPU
    signature: Signature | None = None
    graph: Graph | None = None
    exported_program: ExportedProgram | None = None
    isolated: bool = False
    timeout: float = TIMEOUT
    stamp: Stamp = field(default_factory=Stamp)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        feeds = self.feeds(*args, **kwargs)
        results = ort.run(self._call(feeds), feeds, self.path.name)
        tensors = [ort.to_torch(result) for result in results]
        if self.signature:
            return self.signature.unflatten(tensors)
        return tensors[0] if len(tensors) == 1 else tuple(tensors)

    def __getstate__(self) -> dict[str, Any]:
        """Copied and pickled without the session, which the copy opens again."""
        return {name: value for name, value in vars(self).items() if name != "session"}

    def _call(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], list[Any]]:
        if not self.isolated:
            return call_of(self.session, feeds)
        with ort.loading(self.path):
            self.worker_file.open(self.proto)
        return partial(self.worker_file.run, self.proto, feeds)

    @property
    def unchanged(self) -> Path:
        """:attr:`path`, if its files are unchanged.

        Raises:
            LoadError: the file, or one of its weights, has changed since it was made or loaded.
        """
        self.stamp.check()
        return self.path

    @property
    def model_proto(self) -> onnx.ModelProto:
        """The whole ``onnx.ModelProto`` with its weights: a fresh copy, as in ONNXProgram."""
        return self._loaded(weights=True)

    def _loaded(self, weights: bool) -> onnx.ModelProto:
        try:
            return onnx.load(self.unchanged, load_external_data=weights)
        except (OSError, onnx.checker.ValidationError) as error:
            raise LoadError(
                f"{self.path.name} could not be read with its weights: {error}",
                "Copy the files into one folder: onnx does not follow links to weights.",
            ) from error

    @property
    def worker_file(self) -> IsolatedFile:
        """The file, as the worker process takes it."""
        return IsolatedFile(self.unchanged, self.provider, self.timeout)

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The InferenceSession of the calls, with ONNX Runtime's defaults.

        Raises:
            InputError: the artifact is ``isolated``, so its session is in another process.
            LoadError: ONNX Runtime refuses the file, or it has changed.
        """
        if self.isolated:
            raise InputError(
                f"{self.path.name} runs in its own process and has no session in this one.",
                "Call the Artifact itself, or load() a file that you trust without isolated=True.",
            )
        path = self.unchanged
        with ort.loading(path):
            return ort.session_of(os.fspath(path), self.provider)

    @cached_property
    def inputs(self) -> tuple[ort.Value, ...]:
        """The inputs of the file, in order."""
        known = {name for name, _, _ in weights(self.proto.graph)}
        return ort.values(value for value in self.proto.graph.input if value.name not in known)

    @cached_property
    def outputs(self) -> tuple[ort.Value, ...]:
        """The outputs of the file, in order."""
        return ort.values(self.proto.graph.output)

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The ``onnx.ModelProto``, without weights if they are in another file or the file is
        larger than 16 MB: each is external data then, located in the file itself.
        :attr:`model_proto` has all weights."""
        return self._read.model

    @property
    def cut(self) -> str:
        """Which metadata of the file was too long and is cut; empty if none."""
        return self._read.cut

    @cached_property
    def _read(self) -> reader.Checked:
        read = reader.read(self.unchanged, "load")
        for entry in (e for t in read.model.graph.initializer for e in t.external_data):
            if entry.value == protobuf_reader.NOT_SENT:
                entry.value = self.path.name
        return read

    @property
    def opset(self) -> int:
        """The version of the ONNX operator set that the file needs."""
        return opset_of(self.proto)

    @property
    def operations(self) -> Counter[str]:
        """The number of nodes of each operator in the main graph."""
        return Counter(node.op_type for node in self.proto.graph.node)

    @property
    def files(self) -> tuple[Path, ...]:
        """The ``.onnx`` file, and the files with its external weights."""
        weights = [self.path.parent / name for name in reader.weight_files(self.proto)]
        return tuple(dict.fromkeys([self.path, *weights]))

    @property
    def weight_bytes(self) -> int:
        """Bytes of all initializers, in this file or another."""
        return weight_bytes(self.proto.graph)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        external_data: bool | None = None,
        metadata: bool = True,
    ) -> Path:
        """Write a copy of the file and of its external weights, and return its path.

        Args:
            path: of the copy. A single file of external weights becomes ``path`` plus ``.data``.
            external_data: True puts the weights into that file, False into the copy itself; None
                leaves them as they are.
            metadata: False leaves out the metadata of nodes, which no runtime reads. torch writes
                absolute paths and source lines there; ``trace``, ``profile`` and ``view`` need them
                to name a line.

        Raises:
            InputError: the path is not valid, or the files cannot be copied there.
            LoadError: the file has changed, or its weights are not beside it.

        >>> folder = getfixture("tmp_path")
        >>> relu = export(nn.ReLU().eval(), torch.ones(2), folder / "relu.onnx")
        >>> bare = load(relu.save(folder / "bare.onnx", metadata=False))
        >>> str(folder).encode() in bare.path.read_bytes(), bare(torch.ones(2))
        (False, tensor([1., 1.]))
        """
        goal = files.writable_model(path)
        if goal.exists() and goal.samefile(self.unchanged):
            raise InputError(
                f"{goal.name!r} is the artifact's own file.", "Save to another path, and load() it."
            )
        reader.check_weights(self.unchanged, self.proto)
        model = self._loaded(weights=external_data is not None)
        names = reader.weight_files(model)
        if names or external_data:
            _data_of(goal)
        ends = [".data"] if len(names) == 1 else [f".{i}.data" for i in range(len(names))]
        moved = {name: goal.name + end for name, end in zip(names, ends, strict=True)}
        for entry in (entry for t in tensors_of(model) for entry in t.external_data):
            if entry.key == "location":
                entry.value = moved[entry.value]
        if not metadata:
            strip(model)
        with _replacing_model(goal, InputError) as folder:
            outside: Any = {"save_as_external_data": True, "location": f"{goal.name}.data"}
            onnx.save(model, folder / goal.name, **outside if external_data else {})
            for name, new in moved.items():
                shutil.copyfile(self.path.parent / name, folder / new)
        return goal

    def feeds(self, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        """The feeds of one ``session.run``: NumPy arrays by input name, which share the tensors'
        memory if they can. Arrays of bfloat16 and float8 have ml_dtypes' dtypes; they need
        ``run_with_ort_values``.

        Raises:
            InputError: the call does not fit the model.
        """
        tensors = self.tensors(*args, **kwargs)
        taken = [*zip(self.inputs, tensors, strict=True)]
        for value, tensor in taken:
            ort.check_input(value, tensor)
        if self.signature:
            ort.check_names(self.inputs, tensors)
        return {value.name: ort.to_numpy(tensor) for value, tensor in taken}

    def timed_call(self, args: tuple, kwargs: Mapping[str, Any], threads: int = 1) -> SessionCall:
        """One call of this file, to be raced in another process.

        It gets a new session, so that its thread pool has the requested size and serves no other
        call. Tensors may be on any device: they are copied before anything is timed.
        """
        return Variant(self).timed_call(args, kwargs, threads)

    def using(self, provider: str = "", **options: Any) -> Variant:
        """This file as another target of a race, with other session options.

        Args:
            provider: the execution provider, such as ``CUDAExecutionProvider``; if it cannot be
                used, the race says so and goes on without this target.
            options: those of :class:`~onnx_workbench.ort.Options`: ``level``, ``spinning``,
                ``arena``, ``parallel``, ``bound``.

        >>> import onnx_workbench as ow
        >>> relu = ow.export(nn.ReLU().eval(), torch.ones(2), getfixture("tmp_path") / "relu.onnx")
        >>> relu.using(bound=True)
        relu.onnx with IOBinding
        """
        return Variant(self, Options(**options), provider)

    def variants(self) -> dict[str, Variant]:
        """This file with ONNX Runtime's defaults, and with each session option changed once.

        ``race(onnx.variants(), x)`` says which change is faster here. A single win is partly luck:
        race the winners again. IOBinding avoids the copies of a call; here that counts as a change
        like any other.

        >>> import onnx_workbench as ow
        >>> relu = ow.export(nn.ReLU().eval(), torch.ones(2), getfixture("tmp_path") / "relu.onnx")
        >>> list(relu.variants())  # doctest: +NORMALIZE_WHITESPACE
        ['defaults', 'graph optimization off', 'graph optimization basic',
         'graph optimization extended', 'spinning off', 'arena off', 'parallel nodes', 'IOBinding']
        """
        changes = [Options(level=level) for level in LEVELS if level != "all"]
        changes += [Options(spinning=False), Options(arena=False)]
        changes += [Options(parallel=True), Options(bound=True)]
        named = {"defaults": Options(), **{repr(change): change for change in changes}}
        return {name: Variant(self, options, mode="") for name, options in named.items()}

    def _parts(self) -> list[Part]:
        try:
            return [self._headline(), Table(self._rows())]
        except LoadError as error:
            return [f"{self.path.name}: {error.message}"]

    def _rows(self) -> list[tuple[str, str]]:
        ops = ", ".join(f"{op} {count}" for op, count in sorted(self.operations.items()))
        rows: list[tuple[str, str]] = [("input", Code(value)) for value in self.inputs]
        rows += [("output", Code(value)) for value in self.outputs]
        rows.append(("nodes", ops))
        if self.graph and self.graph.specialized:
            rows.append(("specialized", ", ".join(self.graph.specialized)))
        return rows

    def _headline(self) -> str:
        return (
            f"{self.path.name}: opset {self.opset}, IR {self.proto.ir_version}, "
            f"{plural(self.operations.total(), 'node')}, weights {size(self.weight_bytes)} in "
            f"{plural(len(self.files), 'file')}, {self.provider}"
        )

    def tensors(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        """The tensors of a call, in the order of :attr:`inputs`."""
        if self.signature is None:
            return self._by_input_name(args, kwargs)
        tensors = self.signature.flatten(args, kwargs)
        if len(tensors) == len(self.inputs):  # by position: the exporter may rename an input
            return tensors
        # The tracer drops unused inputs and keeps the names of the others.
        named = dict(zip(self.signature.tensor_inputs, tensors, strict=True))
        return [named[value.name] for value in self.inputs]

    def _by_input_name(self, args: tuple, kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        names = [value.name for value in self.inputs]
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        if len(args) > len(names) or set(given) != set(names):
            raise InputError(
                f"{self.path.name} takes {', '.join(map(repr, names))}, but was called with "
                f"{plural(len(args), 'positional argument')} and the names {sorted(kwargs)}.",
                "Pass one tensor for each input, in that order or by name.",
            )
        return [given[name] for name in names]


@dataclass(frozen=True, repr=False)
class Variant:
    """An Artifact with other session options; made by :meth:`Artifact.using`."""

    artifact: Artifact
    options: Options = field(default_factory=Options)
    provider: str = ""
    mode: Mode | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.artifact(*args, **kwargs)

    def timed_call(self, args: tuple, kwargs: Mapping[str, Any], threads: int = 1) -> SessionCall:
        file = self.artifact
        args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.cpu, (args, kwargs))
        return SessionCall(
            os.fspath(file.unchanged),
            file.feeds(*args, **kwargs),
            self.provider or file.provider,
            threads,
            self.options,
            self.mode,
            file.stamp,
            file.isolated,
        )

    def __repr__(self) -> str:
        where = f" on {self.provider}" if self.provider else ""
        return f"{self.artifact.path.name} with {self.options}{where}"


def _as_torch_reads(
    model: Any, args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """A dict at the end of ``args`` holds the keyword arguments, unless ``kwargs`` does."""
    if kwargs or not (args and isinstance(args[-1], dict)):
        return args, kwargs
    *args_, last = args
    if isinstance(model, nn.Module):
        forward = parameters(model)
        try:
            forward.bind(*args_, **last)
        except TypeError as error:  # for other arguments, or keys that are no strings
            raise InputError(
                "export() reads a dict at the end of `args` as keyword arguments, as "
                f"torch.onnx.export does, but forward{forward} does not take "
                f"{', '.join(map(repr, last))}.",
                "Append an empty dict to pass it as an argument: args=(value, {}).",
            ) from error
    return tuple(args_), last


@runtime_checkable
class _Stream(Protocol):
    """A binary stream, which torch.onnx.export also takes as ``f``, such as ``io.BytesIO``."""

    def write(self, data: bytes, /) -> Any: ...


@contextmanager
def _target(model: Any, f: Any) -> Iterator[Path]:
    """The path to write to; for None, in a temporary folder that is removed if the export fails."""
    if f is not None and not isinstance(f, _Stream):
        yield files.writable_model(f).absolute()
        return
    try:
        if f is not None:
            f.write(b"")
    except (TypeError, ValueError, OSError) as error:
        raise InputError(
            f"`f` is {kind_of(f)}, but must be a binary stream that is open for writing.",
            "Pass a path, or an open stream of bytes such as io.BytesIO().",
        ) from error
    folder = Path(tempfile.mkdtemp(prefix="onnx-workbench-"))
    name = model.name if isinstance(model, Graph) else type(model).__name__
    try:
        yield folder / f"{name}.onnx"
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_weights(model: Any, target: Path, external_data: bool | None) -> None:
    """Raises InputError, before any work, if the weights cannot be written as asked."""
    program = model.program if isinstance(model, Graph) else model
    module = isinstance(program, nn.Module)
    tensors = program.state_dict() if module else program.state_dict
    if meta := [name for name, v in tensors.items() if getattr(v, "is_meta", False)]:
        raise InputError(
            f"The model's weights have no values: {meta[0]!r} is on the meta device.",
            "Load them first: model.to_empty(device='cpu'), then model.load_state_dict(...).",
        )
    dense = (v for v in tensors.values() if isinstance(v, torch.Tensor) and not v.is_sparse)
    total = sum(tensor.nbytes for tensor in dense)
    if total > ONE_FILE_LIMIT and external_data is False:
        raise InputError(
            f"The weights take {size(total)}, but one file holds {size(ONE_FILE_LIMIT)} at most.",
            "Leave `external_data` out to get the weights in a second file.",
        )
    if external_data or total > ONE_FILE_LIMIT:
        _check_foreign(target, [_data_of(target)])


def _data_of(target: Path) -> Path:
    """The file with a model's external weights; raises InputError if no model can name it."""
    data = files.writable(target.with_name(f"{target.name}.data"))
    if not reader.stays_inside(data.name):
        raise InputError(
            f"The weights would be in {data.name!r}, a name that no model can refer to.",
            "Pass a name without ':', '*' and line breaks.",
        )
    return data


def _check_foreign(target: Path, files: Sequence[Path]) -> None:
    """Raises InputError if one of the files exists and holds no weights of ``target``'s model."""
    for file in files:
        if file != target and file.exists() and file.name not in _weights_at(target):
            raise InputError(
                f"{file.name!r} is already in {str(file.parent)!r} and holds no weights of "
                f"{target.name!r}.",
                "Move it away, or pass another path.",
            )


def _weights_at(target: Path) -> tuple[str, ...]:
    """The files with external weights of the model that is now at a path."""
    try:
        return tuple(reader.weight_files(reader.read(target, "export").model))
    except (WorkbenchError, OSError):
        return ()


def _check_options(
    dynamo: bool, opset: object, inputs: Any, outputs: Any, translations: object
) -> None:
    if opset is not None:
        whole("opset_version", opset)
    for option, names in {"input_names": inputs, "output_names": outputs}.items():
        listed = isinstance(names, Sequence) and not isinstance(names, str)
        if names is not None and not (
            listed and all(isinstance(n, str) for n in names) and len({*names}) == len(names)
        ):
            raise InputError(
                f"`{option}` is {names!r}, but must be a list of different names.",
                "Write for example ['x'].",
            )
    if translations is not None:
        _check_translations(translations, dynamo)


def _check_translations(table: object, dynamo: bool) -> None:
    message, hint = "", "Write {torch.ops.demo.swishy.default: swishy}."
    if not isinstance(table, Mapping):
        message = f"is {kind_of(table)}, but must be a dict: torch operator -> onnxscript function"
    elif not dynamo:
        message = "was given with dynamo=False, but the tracer takes none"
        hint = "Leave dynamo out, or use torch.onnx.register_custom_op_symbolic."
    else:
        for operator, function in table.items():
            packet = isinstance(operator, torch._ops.OpOverloadPacket)
            if packet or not callable(operator) or not callable(function):
                message = f"has {operator!s}: {function!r}, but takes one operator -> one function"
            if packet:
                hint = f"Name the overload: torch.ops.{operator}.{operator.overloads()[0]}."
            if name := _of_torch(operator):
                message = f"has {name!r}, a function of torch, but takes operators of a graph"
                hint = "Name the operator as capture() shows it."
                if known := getattr(torch.ops.aten, name, None):
                    hint = f"Name the operator: torch.ops.{known}.{known.overloads()[0]}."
    if message:
        raise InputError(f"`custom_translation_table` {message}.", hint)


def _of_torch(operator: object) -> str:
    """The name of a function such as ``torch.sin``, of which a graph has only the operators."""
    plain = isinstance(operator, (BuiltinFunctionType, FunctionType))
    name = getattr(operator, "__name__", "")
    own = (getattr(operator, "__module__", None) or "torch").partition(".")[0] == "torch"
    return name if plain and own and not name.startswith("sym_") else ""


@contextmanager
def _replacing_model(target: Path, kind: type[WorkbenchError]) -> Iterator[Path]:
    """Yield a folder whose files replace the model at ``target``. If the old model has a ``.data``
    file and the new one has none, it is removed.

    Raises:
        WorkbenchError: of this ``kind``, if that fails.
    """
    with files.replacing(target, kind) as folder:
        yield folder
        new = [target.with_name(file.name) for file in folder.iterdir()]
        _check_foreign(target, new)
        data = target.with_name(f"{target.name}.data")
        stale = data not in new and data.name in _weights_at(target)
    if stale:
        data.unlink(missing_ok=True)


def _write(
    program: ONNXProgram, external_data: bool | None, keep_as_inputs: bool, draft: Path
) -> None:
    """Write weight by weight: torch would copy all weights into a message, then into bytes."""
    import onnx_ir

    graph = program.model.graph
    weights: dict[Any, Any] = {
        v: v.const_value for v in graph.initializers.values() if v.const_value is not None
    }
    if external_data is None:
        external_data = sum(tensor.nbytes for tensor in weights.values()) > ONE_FILE_LIMIT
    if external_data:
        program.save(draft, external_data=True, keep_initializers_as_inputs=keep_as_inputs)
        return
    if keep_as_inputs:
        graph.inputs.extend(graph.initializers.values())
    large = {v: tensor for v, tensor in weights.items() if tensor.nbytes > reader.INLINE}
    for value, tensor in large.items():
        value.const_value = onnx_ir.ExternalTensor(
            draft.name, None, None, tensor.dtype, shape=tensor.shape, name=value.name
        )
    with draft.open("wb") as file:
        model = onnx_ir.to_proto(program.model)
        protobuf_reader.write(file, model, {value.name: tensor for value, tensor in large.items()})


_TRACER_OPTIONS = (
    "opset_version",
    "verbose",
    "keep_initializers_as_inputs",
    "do_constant_folding",
    "custom_opsets",
    "autograd_inlining",
)


def _torchscript(
    model: Any,
    args: tuple,
    kwargs: dict[str, Any],
    dynamic_shapes: Any,
    names: exporter.Names,
    options: Mapping[str, Any],
) -> tuple[Signature, Callable[[Path], None]]:
    """The signature of the call as the tracer sees it, and a function that writes the file."""
    shapes = parse_shapes(dynamic_shapes, arguments(model, args, kwargs), kwargs_name(model))
    signature = Signature.of_call(model, args, kwargs, answer(model, args, kwargs))
    new_names = iter(names[0] or ())
    inputs = tuple(
        name if i in signature.baked_inputs else next(new_names, name)
        for i, name in enumerate(signature.inputs)
    )
    signature = replace(signature, inputs=inputs)
    tensors = signature.tensor_inputs
    axes = {
        name: {axis: name_of(label) or f"{name}_{axis}" for axis, label in dims.items()}
        for name, dims in zip(tensors, signature.axes(shapes), strict=True)
        if dims
    }

    def write(draft: Path) -> None:
        with evaluating(model, warn=False):
            exporter.export_torchscript(
                model,
                draft,
                args,
                kwargs,
                input_names=list(tensors),
                output_names=names[1],
                dynamic_axes=axes,
                **{name: options[name] for name in _TRACER_OPTIONS},
            )

    return signature, write


def _check(
    draft: Artifact, asked: int | None, call: tuple | None, step: Callable[[str], None]
) -> None:
    """Raises ExportError unless onnx accepts the file, ONNX Runtime loads it, and it gives the
    numbers of the ``call``, if there is one."""
    try:
        step("check")
        _check_file(draft, asked)
        step("load")
        _check_session(draft)
        _check_inputs(draft)
        if call:
            _check_numbers(draft, *call)
    except ExportError as error:
        if graph := draft.graph:
            error.partial_graph = lambda: (graph.program, "torch.export")
        raise


def _check_inputs(draft: Artifact) -> None:
    """Raises ExportError if a traced file has an input that is no tensor of the call."""
    if draft.graph or not draft.signature:
        return
    known = draft.signature.tensor_inputs
    if extra := [value.name for value in draft.inputs if value.name not in known]:
        raise ExportError(
            f"The file has an input {extra[0]!r} that the model does not have: the tracer makes "
            "one of a number in the call, or of the default of an argument.",
            "Export with dynamo=True, which writes the number into the graph, or pass a tensor, "
            "such as torch.tensor(2).",
            step="load",
        )


def _check_session(draft: Artifact) -> None:
    try:
        _ = draft.session
    except LoadError as error:
        reason = error.message.replace(f"{draft.path.parent.name}{os.sep}", "")  # draft's folder
        line = _line_of_rejected(draft, reason)
        message = f"ONNX Runtime rejects the exporter's file. {reason}"
        raise ExportError(message, error.hint, line, step="load", got=draft.opset) from error


def _check_numbers(draft: Artifact, model: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    if draft.graph:
        model = draft.graph.model
        args, kwargs = (args, kwargs) if args or kwargs else draft.graph.example
    if not (result := compare(answer(model, args, kwargs), draft(*args, **kwargs))):
        raise ExportError(
            f"The file's results differ from the model's: {result.worst.path} differs, "
            f"{result.worst.summary}.",
            "Leave verify=True out, and look for the first value that differs: "
            "verify(model, onnx, args, values=True).",
            step="verify",
            got=draft.opset,
        )


def _check_file(draft: Artifact, asked: int | None) -> None:
    """Raises ExportError unless onnx accepts the file, with the opset that was asked for."""
    try:
        proto, path = draft.proto, draft.path
    except LoadError as error:
        raise ExportError(error.message, error.hint, step="check") from error
    got, foreign = opset_of(proto), mislabeled(proto)
    if not proto.graph.output:
        message = "The model returns no tensor, so the file has no output."
        raise ExportError(message, "Return a tensor from forward().", step="check", got=got)
    if asked is not None and asked != got:
        direction = "down" if asked < got else "up"
        raise ExportError(
            f"You asked for opset {asked} and the exporter wrote opset {got} without raising an "
            f"error: it could not convert the graph {direction}.{f' {foreign}' * bool(foreign)}",
            f"Ask for opset {got}, or leave `opset_version` out; check() shows the highest "
            "that this stack writes and loads.",
            step="opset",
            got=got,
        )
    light = path
    if path.stat().st_size > reader.STEP_OVER_ABOVE:  # onnx.checker would copy the weights twice
        light = path.with_name(".light")
        light.write_bytes(proto.SerializeToString())
    try:
        onnx.checker.check_model(os.fspath(light))
    except Exception as error:
        reason = foreign or ort.short_reason(error)
        message = f"The exporter wrote a file that onnx.checker rejects: {reason}"
        hint = "Ask for another opset; check() shows which this stack writes and loads."
        raise ExportError(message, hint, step="check", got=got) from error
    if light != path:
        light.unlink()


def _line_of_rejected(draft: Artifact, reason: str) -> Line | None:
    """The line of the node that ONNX Runtime names in its ``reason``.

    If dtypes clash there, the node at fault is an earlier one, whose dtype in the file differs from
    the FX node's.
    """
    proto, program = draft.proto, draft.exported_program
    if program and "bound to different types" in reason:
        values = onnx.shape_inference.infer_shapes(proto).graph.value_info
        dtypes = {v.name: v.type.tensor_type.elem_type for v in values}
        for node in program.graph.nodes:
            dtype, in_file = getattr(node.meta.get("val"), "dtype", None), dtypes.get(node.name)
            if dtype and in_file and f"torch.{dtype_name(in_file)}" != str(dtype):
                return node_line(node)
    matches = re.findall(r"name '([^']+)'|in node \(([^)]+)\)", reason)
    named = {name for groups in matches for name in groups}
    node = next((node for node in proto.graph.node if node.name in named), None)
    return exporter_metadata.read(node).line if node else None
