"""FX graph -> a checked ``.onnx`` file that is called like the model it came from."""

from __future__ import annotations

import mmap
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
from typing import IO, TYPE_CHECKING, Any, Protocol, Unpack, runtime_checkable

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.onnx import ONNXProgram
from torch.utils._pytree import tree_map_only

from . import exporter_metadata, files, ort, progress, protobuf_reader, reader
from .calls import Mode, door
from .comparison import answer, compare
from .errors import ExportError, InputError, LoadError, WorkbenchError
from .files import Stamp
from .formatting import kind_of, plural, size, table
from .graph import Graph, capture, check_module, exporter
from .graph.dims import from_dynamic_axes, of_shapes
from .graph.options import Options as Rare
from .graph.options import checked
from .graph.signature import Signature, arguments, parameters, rest_of
from .isolated import TIMEOUT, File
from .ort import LEVELS, Options, SessionCall, call_of
from .proto import dtype_name, mislabeled, opset_of, strip, tensors_of, weight_bytes, weights
from .source import Line, user_line
from .torch_state import evaluating

if TYPE_CHECKING:
    import onnxruntime

MOST_SECONDS = threading.TIMEOUT_MAX
"""The longest timeout that a timer takes."""

ONE_FILE_LIMIT = 2_000_000_000
"""Bytes of weights above which a second file holds them: a protobuf message ends at 2 GiB."""

_SMALL = 1024
"""Bytes of a weight that stays in the graph: shapes, axes and scalars are read there."""


@door
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
    **options: Unpack[Rare],
) -> Artifact:
    """Export a model with ``torch.onnx.export``'s own call, then check and load the file.

    The file is done when its opset is the one asked for, ``onnx.checker`` accepts it and ONNX
    Runtime has loaded it. Until then it stands in a hidden folder beside ``f``: whatever fails,
    what was at ``f`` before is still there, and nothing half-written is left. Only a process that
    is killed while it writes or checks the file leaves that folder behind.

    Args:
        model: a module, or one that is captured already: a Graph or an ExportedProgram.
        args: the inputs of one call, as torch.onnx.export reads them: a tuple, or one tensor. A
            dict at its end holds keyword arguments, unless ``kwargs`` does.
        f: the path of the file. None writes a temporary file, removed with the Artifact.
        kwargs: keyword arguments of the call.
        dynamic_shapes: as for :func:`~onnx_workbench.capture`.
        input_names, output_names: names for the inputs and outputs of the file, in order.
        opset_version: the version of the ONNX operator set; the default is the exporter's own.
        custom_translation_table: torch operator -> the onnxscript function that translates it:
            ``{torch.ops.demo.swishy.default: swishy}``; they come before the exporter's own.
        external_data: None writes one file up to 2 GB of weights, and above that torch's layout:
            ``f`` with the weights in ``f.data`` beside it. True always takes that layout.
        dynamo: False takes the old exporter, the TorchScript tracer. It records one run of the
            model, so a branch or loop on data is frozen the way it went in that run.
        dynamic_axes: dynamic dimensions by name of an input, as the old exporter takes them.
        provider: the execution provider that the artifact runs on.
        options: the other options of torch.onnx.export. ``verify=True`` compares the file's
            outputs with the model's; an option for reports or profiles warns and names the function
            that does it.

    Raises:
        InputError: the arguments, the path, the provider or a translation do not fit.
        CaptureError: torch.export refused the model.
        ExportError: no translation, another opset than asked for, a file that onnx or ONNX Runtime
            rejects, or one that could not be written.

    >>> folder = getfixture("tmp_path")
    >>> relu = export(nn.ReLU().eval(), torch.ones(2), folder / "relu.onnx")
    >>> relu(torch.tensor([-1.0, 3.0]))
    tensor([0., 3.])
    """
    rare = checked(options, getattr(model, "training", False))
    dynamo = dynamo or isinstance(model, (Graph, ExportedProgram))
    _check_model(model, dynamo)
    _check_options(dynamo, opset_version, input_names, output_names, custom_translation_table)
    ort.check_provider(provider)
    args, kwargs = _as_torch_reads(model, args, kwargs or {})
    if dynamic_shapes is None and dynamic_axes is not None:
        names = (input_names or (), output_names or ())
        dynamic_shapes = from_dynamic_axes(dynamic_axes, _arguments(model, args, kwargs), *names)
    call = _Call(model, args, kwargs, dynamic_shapes, (input_names, output_names), opset_version)
    with _target(model, f) as target, _progress(total=5) as step:
        _check_weights(model, target, external_data)
        if dynamo:
            step("capture")
            graph = capture(model, args, kwargs, dynamic_shapes=dynamic_shapes)
            step("translate")
            program = _translated(graph, call, custom_translation_table, rare)
            made = Artifact(target, provider, graph.signature, graph, program.exported_program)
            write = partial(_write, program, external_data, rare["keep_initializers_as_inputs"])
            del program  # its weights need not outlive the write
        else:
            step("trace")
            signature, write = _traced(call, rare)
            made = Artifact(target, provider, signature)
        with _written(target) as draft:  # starts late: a killed process leaves the folder
            step("write")
            write(draft)
            del write
            made = _checked(replace(made, path=draft), call, rare["verify"], step)
            drafts = list(draft.parent.iterdir())
            _check_foreign(target, [target.with_name(file.name) for file in drafts])
            stamp = Stamp.of(drafts).at(target.parent)  # not of a later export's files
        made = _opened(replace(made, path=target, stamp=stamp), made)
    if f is None or isinstance(f, _Stream):
        weakref.finalize(made, shutil.rmtree, target.parent, ignore_errors=True)
    if isinstance(f, _Stream):
        f.write(target.read_bytes())
    return made


def load(
    path: str | os.PathLike[str],
    provider: str = ort.CPU,
    *,
    isolated: bool = False,
    timeout: float = TIMEOUT,
) -> Artifact:
    """Load any ``.onnx`` file as a callable that takes tensors in order or by input name.

    It returns a tensor, or a tuple of tensors where the file has several outputs.

    Args:
        path: of the file.
        provider: the execution provider that it runs on.
        isolated: run it in a process of its own, as :func:`~onnx_workbench.audit` and
            :func:`~onnx_workbench.probe` do. ONNX Runtime dies on some files: then the call raises
            an error that names the node, and this process goes on.
        timeout: seconds after which such a process is ended. To find the node that takes them, it
            then runs parts of the model for up to a minute.

    Raises:
        InputError: there is no such file, or no such provider.
        LoadError: it is not a valid ONNX model, or its weights are not beside it. If ONNX Runtime
            rejects it, the first call raises that, since it opens the session.
    """
    file = files.existing(path)
    ort.check_provider(provider)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise InputError(f"`timeout` is {timeout!r}, but must be a number of seconds above 0.")
    artifact = Artifact(file, provider, isolated=isolated, timeout=min(timeout, MOST_SECONDS))
    reader.check_weights(file, artifact.proto)
    stamped = replace(artifact, stamp=Stamp.of(artifact.files))
    stamped.__dict__["_read"] = artifact._read  # so that it is read once
    return stamped


@dataclass(frozen=True, repr=False, eq=False)
class Artifact:
    """A model on disk, called with the tensors and keyword arguments of the model it came from.

    Made by :func:`export` and :func:`load`. It returns torch tensors in the structure that the
    model returns. An ``isolated`` one is run in a process of its own, for at most ``timeout``
    seconds a call. ``graph`` is None for a file that the tracer made or that was loaded, and so is
    ``translated``: that graph as the exporter decomposed and translated it, node by node. The file
    is the one of the ``stamp``: what is read of it later raises LoadError if it has changed since.
    """

    path: Path
    provider: str = ort.CPU
    signature: Signature | None = None
    graph: Graph | None = None
    translated: ExportedProgram | None = None
    isolated: bool = False
    timeout: float = TIMEOUT
    stamp: Stamp = field(default_factory=partial(Stamp, ()))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        feeds = self.feeds(*args, **kwargs)
        results = ort.run(self._call(feeds), feeds, self.path.name)
        tensors = [ort.to_torch(result) for result in results]
        if self.signature:
            return self.signature.unflatten(tensors)
        return tensors[0] if len(tensors) == 1 else tuple(tensors)

    def _call(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], list[Any]]:
        if not self.isolated:
            return call_of(self.session, feeds)
        try:
            self.file.open(self.proto)
        except WorkbenchError:
            raise
        except Exception as error:
            raise ort.refused(self.path, error) from error
        return partial(self.file.run, self.proto, feeds)

    @property
    def unchanged(self) -> Path:
        """:attr:`path`, to be read.

        Raises:
            LoadError: the file, or one of its weights, has changed since it was made or loaded.
        """
        self.stamp.check()
        return self.path

    @property
    def exported_program(self) -> ExportedProgram | None:
        """:attr:`translated`, by the name that it has in ``torch.onnx.ONNXProgram``."""
        return self.translated

    @property
    def model_proto(self) -> onnx.ModelProto:
        """The whole ``onnx.ModelProto``, weights included: a fresh copy, as ONNXProgram has it."""
        return self._loaded(weights=True)

    def _loaded(self, weights: bool) -> onnx.ModelProto:
        try:
            return onnx.load(self.unchanged, load_external_data=weights)
        except (OSError, onnx.checker.ValidationError) as error:
            raise LoadError(
                f"{self.path.name} could not be read with its weights: {error}",
                "copy the files themselves into one folder: onnx follows no link to weights.",
            ) from error

    @property
    def file(self) -> File:
        """The file as the worker process runs it."""
        return File(self.unchanged, self.provider, self.timeout)

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The InferenceSession that calls run in, with ONNX Runtime's own defaults.

        Raises:
            InputError: the file is ``isolated``: its session is not in this process.
            LoadError: ONNX Runtime refuses the file, or it has changed.
        """
        if self.isolated:
            raise InputError(
                f"{self.path.name} is run in a process of its own, and so it has no session here. "
                "Call the Artifact itself, or load() a file that you trust without isolated=True."
            )
        return ort.open_session(self.unchanged, self.provider)

    @cached_property
    def inputs(self) -> tuple[ort.Value, ...]:
        """What the file takes, in order."""
        return _inputs(self.proto)

    @cached_property
    def outputs(self) -> tuple[ort.Value, ...]:
        """What the file gives, in order."""
        return _outputs(self.proto)

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The ``onnx.ModelProto`` without its weights where they lie in a file of their own, or the
        file is larger than 16 MB: then each is external data, in the file itself.
        :attr:`model_proto` has them."""
        return self._read.model

    @property
    def cut(self) -> str:
        """Which metadata of the file is cut because it is too long; empty if none is."""
        return self._read.cut

    @cached_property
    def _read(self) -> reader.Checked:
        read = reader.read(self.unchanged, "load", largest=_SMALL)
        if self.path.stat().st_size > reader.STEP_OVER_ABOVE:
            _locate(read.model, self.path)
        return read

    @property
    def opset(self) -> int:
        """The version of the ONNX operator set that the file asks a runtime for."""
        return opset_of(self.proto)

    @property
    def operations(self) -> Counter[str]:
        """How many nodes of each operator the main graph has."""
        return Counter(node.op_type for node in self.proto.graph.node)

    @property
    def files(self) -> tuple[Path, ...]:
        """The ``.onnx`` file, and the files of weights that it cannot be loaded without."""
        found = [self.path.parent / name for name in reader.weight_files(self.proto)]
        return tuple(dict.fromkeys([self.path, *found]))

    @property
    def weight_bytes(self) -> int:
        """Bytes that the initializers take, in this file or another."""
        return weight_bytes(self.proto.graph)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        external_data: bool | None = None,
        metadata: bool = True,
    ) -> Path:
        """Write a copy of the file, and of the files of its weights, and return its path.

        Args:
            path: of the copy. Weights in one file of their own go to ``path`` and ``.data``.
            external_data: True puts the weights into that file, False into the copy itself; None
                leaves them as they are.
            metadata: False leaves out the metadata of nodes, which no runtime reads. torch writes
                absolute paths and lines of source there; ``trace``, ``profile`` and ``view`` need
                them to name a line.

        Raises:
            InputError: the path does not fit, or the files cannot be copied there.
            LoadError: the file has changed, or its weights are not beside it.

        >>> folder = getfixture("tmp_path")
        >>> relu = export(nn.ReLU().eval(), torch.ones(2), folder / "relu.onnx")
        >>> bare = load(relu.save(folder / "bare.onnx", metadata=False))
        >>> str(folder).encode() in bare.path.read_bytes(), bare(torch.ones(2))
        (False, tensor([1., 1.]))
        """
        goal = files.target(path)
        try:
            reader.check_weights(self.unchanged, self.proto)
            model = self._loaded(weights=external_data is not None)
            names = reader.weight_files(model)
            ends = [".data"] if len(names) == 1 else [f".{i}.data" for i in range(len(names))]
            moved = {name: goal.name + end for name, end in zip(names, ends, strict=True)}
            for entry in (entry for t in tensors_of(model) for entry in t.external_data):
                if entry.key == "location":
                    entry.value = moved[entry.value]
            if not metadata:
                strip(model)
            with files.replacing(goal) as folder:
                outside = {"save_as_external_data": True, "location": f"{goal.name}.data"}
                onnx.save(model, folder / goal.name, **outside if external_data else {})
                for name, new in moved.items():
                    shutil.copyfile(self.path.parent / name, folder / new)
                _check_foreign(goal, [goal.with_name(file.name) for file in folder.iterdir()])
        except OSError as error:
            raise InputError(
                f"{self.path.name} could not be saved as {goal.name!r}: {error.strerror or error}. "
                "Free space or get write permission, or pass another path."
            ) from error
        return goal

    def feeds(self, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        """One call as ``session.run`` takes it: NumPy arrays by input name, sharing the tensors'
        memory where they can. Those of bfloat16 and float8 are of ml_dtypes, and
        ``run_with_ort_values`` takes them.

        Raises:
            InputError: the call does not fit the model.
        """
        tensors = self.tensors(args, kwargs)
        for value, tensor in zip(self.inputs, tensors, strict=True):
            ort.check_input(value, tensor)
        if self.signature:
            ort.check_names(self.inputs, tensors)
        return {
            value.name: ort.to_numpy(tensor)
            for value, tensor in zip(self.inputs, tensors, strict=True)
        }

    def timed_call(
        self,
        args: tuple,
        kwargs: Mapping[str, Any],
        threads: int = 1,
        options: Options | None = None,
        provider: str = "",
    ) -> SessionCall:
        """One call of this file, ready to be sent to a process of its own and raced there.

        The session is a new one, so that its thread pool has the size asked for and no other call
        shares it. Tensors may lie on any device: they are copied before anything is timed.
        """
        args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.cpu, (args, kwargs))
        return SessionCall(
            os.fspath(self.unchanged.absolute()),
            self.feeds(*args, **kwargs),
            provider or self.provider,
            threads,
            options or Options(),
            stamp=self.stamp,
            isolated=self.isolated,
        )

    def using(self, provider: str = "", **options: Any) -> Variant:
        """This file as another target of a race, with other session options.

        Args:
            provider: the execution provider, such as ``CUDAExecutionProvider``; where it cannot be
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
        """This file with ONNX Runtime's defaults, and with one session option changed each time.

        ``race(onnx.variants(), x)`` says which change is faster here. A single win is in part
        chance: race the winners again. With IOBinding the copies of a call are left out; here that
        counts as a change like the others.

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

    def __repr__(self) -> str:
        try:
            return self._report()
        except LoadError as error:
            return f"{self.path.name}: {error.message}"

    def _report(self) -> str:
        ops = ", ".join(f"{op} {count}" for op, count in sorted(self.operations.items()))
        rows = [("input", repr(value)) for value in self.inputs]
        rows += [("output", repr(value)) for value in self.outputs]
        rows.append(("nodes", ops))
        if self.graph and self.graph.specialized:
            rows.append(("specialized", ", ".join(self.graph.specialized)))
        return f"{self._headline()}\n{table(rows)}"

    def _headline(self) -> str:
        return (
            f"{self.path.name}: opset {self.opset}, IR {self.proto.ir_version}, "
            f"{plural(self.operations.total(), 'node')}, weights {size(self.weight_bytes)} in "
            f"{plural(len(self.files), 'file')}, {self.provider}"
        )

    def tensors(self, args: tuple, kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The tensors of a call ``artifact(*args, **kwargs)``, in the order of :attr:`inputs`."""
        if self.signature is None:
            return self._by_input_name(args, kwargs)
        tensors = self.signature.flatten(args, kwargs)
        if len(tensors) == len(self.inputs):  # in order: the exporter renames an input that it must
            return tensors
        # The tracer drops an input that the model does not use, and keeps the names of the others.
        named = dict(zip(self.signature.tensor_inputs, tensors, strict=True))
        return [named[value.name] for value in self.inputs]

    def _by_input_name(self, args: tuple, kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        names = [value.name for value in self.inputs]
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        if len(args) > len(names) or set(given) != set(names):
            raise InputError(
                f"{self.path.name} takes {', '.join(map(repr, names))}, and was called with "
                f"{plural(len(args), 'positional argument')} and the names {sorted(kwargs)}. "
                "Pass one tensor for each input, in that order or by name."
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
        call = self.artifact.timed_call(args, kwargs, threads, self.options, self.provider)
        return replace(call, mode=self.mode)

    def __repr__(self) -> str:
        where = f" on {self.provider}" if self.provider else ""
        return f"{self.artifact.path.name} with {self.options}{where}"


@dataclass(frozen=True)
class _Call:
    """What is exported: a model and one call of it, as torch.onnx.export takes them."""

    model: Any
    args: tuple
    kwargs: dict[str, Any]
    dynamic_shapes: Any
    names: tuple[Sequence[str] | None, Sequence[str] | None]
    opset: int | None


def _as_torch_reads(
    model: Any, args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """A dict at the end of ``args`` holds the keyword arguments, unless ``kwargs`` does."""
    if kwargs or not (args and isinstance(args[-1], dict)):
        return args, kwargs
    *args_, last = args
    if isinstance(model, nn.Module):
        takes = parameters(model)
        try:
            takes.bind(*args_, **last)
        except TypeError as error:  # of other arguments, or of keys that are no strings
            raise InputError(
                "export() reads a dict at the end of `args` as keyword arguments, as "
                f"torch.onnx.export does, and forward{takes} does not take "
                f"{', '.join(map(repr, last))}.",
                "append an empty dict to pass it as an argument: args=(value, {}).",
            ) from error
    return tuple(args_), last


def _arguments(model: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(model, nn.Module):
        graph = capture(model)
        model, (args, kwargs) = graph.model, graph.example
    return arguments(model, args, kwargs)


@runtime_checkable
class _Stream(Protocol):
    """What torch.onnx.export still takes in place of a path, such as ``io.BytesIO``."""

    def write(self, data: bytes, /) -> Any: ...


@contextmanager
def _target(model: Any, f: Any) -> Iterator[Path]:
    """Where to write the file; for None, in a folder that is removed if the export fails."""
    if f is not None and not isinstance(f, _Stream):
        yield files.target(f)
        return
    folder = Path(tempfile.mkdtemp(prefix="onnx-workbench-"))
    name = model.name if isinstance(model, Graph) else type(model).__name__
    try:
        yield folder / f"{name}.onnx"
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _opened(artifact: Artifact, other: Artifact) -> Artifact:
    """The artifact with what a call of the other needs: no longer what is at the path then."""
    for name in ("session", "inputs", "outputs"):
        artifact.__dict__[name] = getattr(other, name)
    return artifact


def _locate(model: onnx.ModelProto, path: Path) -> None:
    """Give each skipped weight its place in the file, as for external data."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for tensor, found in zip(
            model.graph.initializer, protobuf_reader.initializers(data), strict=True
        ):
            if all(entry.value != protobuf_reader.NOT_SENT for entry in tensor.external_data):
                continue
            parts = {
                part.number: part for part in protobuf_reader.fields(data, found.value, found.end)
            }
            if raw := parts.get(onnx.TensorProto.RAW_DATA_FIELD_NUMBER):
                place = {"location": path.name, "offset": raw.value, "length": raw.end - raw.value}
                del tensor.external_data[:]
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=str(value))
            else:
                tensor.ParseFromString(data[found.value : found.end])


def _inputs(proto: onnx.ModelProto) -> tuple[ort.Value, ...]:
    known = {name for name, _, _ in weights(proto.graph)}
    return ort.values(value for value in proto.graph.input if value.name not in known)


def _outputs(proto: onnx.ModelProto) -> tuple[ort.Value, ...]:
    return ort.values(proto.graph.output)


def _check_weights(model: Any, target: Path, external_data: bool | None) -> None:
    """Raises InputError before the work if the weights cannot be written as asked."""
    program = model.program if isinstance(model, Graph) else model
    module = isinstance(program, nn.Module)
    tensors = program.state_dict() if module else program.state_dict
    dense = (v for v in tensors.values() if isinstance(v, torch.Tensor) and not v.is_sparse)
    held = sum(tensor.nbytes for tensor in dense)
    if held > ONE_FILE_LIMIT and external_data is False:
        raise InputError(
            f"The weights take {size(held)}, and one file holds {size(ONE_FILE_LIMIT)} at most. "
            "Leave `external_data` out: the weights then lie beside the file."
        )
    if external_data or held > ONE_FILE_LIMIT:
        _check_foreign(target, [target.with_name(f"{target.name}.data")])


def _check_foreign(target: Path, made: Sequence[Path]) -> None:
    """Raises InputError if a file is there that holds no weights of the model at ``target``."""
    for file in made:
        if file != target and file.exists() and file.name not in _weights_at(target):
            raise InputError(
                f"{file.name!r} is in {str(file.parent)!r} already, and holds no weights of "
                f"{target.name!r}. Move it away, or pass another path."
            )


def _weights_at(target: Path) -> tuple[str, ...]:
    """The files of weights of the model that is at a path now."""
    try:
        return tuple(reader.weight_files(reader.read(target, "export").model))
    except (WorkbenchError, OSError):
        return ()


def _check_model(model: Any, dynamo: bool) -> None:
    if isinstance(model, (Graph, ExportedProgram)):
        return
    if dynamo or not isinstance(model, torch.jit.ScriptModule):  # which the tracer takes
        check_module("export", model)


def _check_options(
    dynamo: bool, opset: object, inputs: object, outputs: object, translations: object
) -> None:
    if opset is not None and (type(opset) is not int or opset < 1):
        raise InputError(f"`opset_version` is {opset!r}, but must be a whole number such as 18.")
    for option, names in {"input_names": inputs, "output_names": outputs}.items():
        listed = isinstance(names, Sequence) and not isinstance(names, str)
        if names is not None and not (
            listed and all(isinstance(n, str) for n in names) and len({*names}) == len(names)
        ):
            raise InputError(
                f"`{option}` is {names!r}, but must be a list of different names, such as ['x']."
            )
    if translations is not None:
        _check_translations(translations, dynamo)


def _check_translations(table: object, dynamo: bool) -> None:
    message, hint = "", "write {torch.ops.demo.swishy.default: swishy}."
    if not isinstance(table, Mapping):
        message = f"is {kind_of(table)}, and it takes a dict: torch operator -> onnxscript function"
    elif not dynamo:
        message = "was given with dynamo=False, and the tracer takes none"
        hint = "leave dynamo out, or use torch.onnx.register_custom_op_symbolic."
    else:
        for operator, function in table.items():
            packet = isinstance(operator, torch._ops.OpOverloadPacket)
            if packet or not callable(operator) or not callable(function):
                message = f"has {operator!s}: {function!r}, and takes one operator -> one function"
            if packet:
                hint = f"name the overload: torch.ops.{operator}.{operator.overloads()[0]}."
    if message:
        raise InputError(f"`custom_translation_table` {message}.", hint)


@contextmanager
def _written(target: Path) -> Iterator[Path]:
    """A path to write to, in a hidden folder; what is there at the end replaces ``target``."""
    try:
        with files.replacing(target) as folder:
            yield folder / target.name
    except OSError as error:
        raise ExportError(
            f"{target.name} could not be written to {str(target.parent)!r}: "
            f"{error.strerror or error}. What was there before is still there.",
            "free space or get write permission, or pass another path.",
        ) from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A line that names the step, for exports that take longer than two seconds."""
    with progress.bar(total=total, desc="export", delay=2) as bar:

        def step(name: str) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update()

        yield step


def _write(
    program: ONNXProgram, external_data: bool | None, keep_as_inputs: bool, draft: Path
) -> None:
    """Writes weight by weight: torch would copy all weights into a message, then into bytes."""
    import onnx_ir

    graph = program.model.graph
    weights = {v: v.const_value for v in graph.initializers.values() if v.const_value is not None}
    if external_data is None:
        external_data = sum(tensor.nbytes for tensor in weights.values()) > ONE_FILE_LIMIT
    if external_data:
        program.save(draft, external_data=True, keep_initializers_as_inputs=keep_as_inputs)
        return
    if keep_as_inputs:
        graph.inputs.extend(graph.initializers.values())
    large = {v: tensor for v, tensor in weights.items() if tensor.nbytes > _SMALL}
    for value, tensor in large.items():
        value.const_value = onnx_ir.ExternalTensor(
            draft.name, None, None, tensor.dtype, shape=tensor.shape, name=value.name
        )
    with draft.open("wb") as file:
        model = onnx_ir.to_proto(program.model)
        protobuf_reader.write(file, model, {value.name: tensor for value, tensor in large.items()})


_TRACER_OPTIONS = (
    "verbose",
    "keep_initializers_as_inputs",
    "do_constant_folding",
    "custom_opsets",
    "autograd_inlining",
)


def _translated(graph: Graph, call: _Call, translations: Any, rare: Rare) -> ONNXProgram:
    return exporter.translate(
        graph.program,
        opset=call.opset,
        axes=graph.labels,
        optimize=rare["optimize"],
        translations=translations,
        names=call.names,
        verbose=rare["verbose"] or False,
    )


def _traced(call: _Call, rare: Mapping[str, Any]) -> tuple[Signature, Callable[[Path], None]]:
    """The call of the model as the tracer sees it, and what writes the file."""
    model, args, kwargs = call.model, call.args, call.kwargs
    found = of_shapes(call.dynamic_shapes, arguments(model, args, kwargs), rest_of(model))
    with evaluating(model), torch.no_grad():
        signature = Signature.of_call(model, args, kwargs, model(*args, **kwargs))
    given = iter(call.names[0] or ())
    inputs = tuple(
        name if i in signature.baked_inputs else next(given, name)
        for i, name in enumerate(signature.inputs)
    )
    signature = replace(signature, inputs=inputs)
    names = signature.tensor_inputs
    axes = {name: axis for name, axis in zip(names, signature.axes(found), strict=True) if axis}

    def write(draft: Path) -> None:
        with evaluating(model, warn=False):
            exporter.trace(
                model,
                draft,
                args,
                kwargs,
                opset_version=call.opset,
                input_names=list(names),
                output_names=call.names[1],
                dynamic_axes=axes,
                **{name: rare[name] for name in _TRACER_OPTIONS},
            )

    return signature, write


def _checked(draft: Artifact, call: _Call, numbers: bool, step: Callable[[str], None]) -> Artifact:
    """The artifact, if its file is sound, loads and with ``numbers`` answers as the model."""
    step("check")
    proto = _check_file(draft.path, call.opset)
    step("load")
    try:
        session = ort.open_session(draft.path, draft.provider)
    except LoadError as error:
        said = error.message.replace(f"{draft.path.parent.name}{os.sep}", "")  # the draft's folder
        line = _line_of_rejected(draft.path, said, draft.translated)
        message = f"ONNX Runtime rejects what the exporter wrote. {said}"
        got = opset_of(proto)
        raise ExportError(message, error.hint, line, step="load", got=got) from error
    draft.__dict__.update(session=session, inputs=_inputs(proto), outputs=_outputs(proto))
    if numbers:
        _check_numbers(draft, call)
    return draft


def _check_numbers(draft: Artifact, call: _Call) -> None:
    model, args, kwargs = call.model, call.args, call.kwargs
    if draft.graph:
        model = draft.graph.model
        args, kwargs = (args, kwargs) if args or kwargs else draft.graph.example
    if not (result := compare(answer(model, args, kwargs), draft(*args, **kwargs))):
        raise ExportError(
            f"The file gives other results than the model: {result.worst.path} differs, "
            f"{result.worst.said}.",
            "leave verify=True out, and look for the first value that differs: "
            "verify(model, onnx, args, values=True).",
            step="verify",
            got=draft.opset,
        )


def _check_file(draft: Path, asked: int | None) -> onnx.ModelProto:
    """The model in the file, without large weights."""
    try:
        proto = reader.read(draft, "export", largest=_SMALL).model
    except LoadError as error:
        raise ExportError(error.message, error.hint, step="check") from error
    got, foreign = opset_of(proto), mislabeled(proto)
    if not proto.graph.output:
        message = "The model returns no tensor, so its file has no output."
        raise ExportError(message, "return a tensor from forward().", step="check", got=got)
    if asked is not None and asked != got:
        direction = "down" if asked < got else "up"
        raise ExportError(
            f"You asked for opset {asked} and the exporter wrote opset {got} without raising an "
            f"error: it could not convert the graph {direction}.{f' {foreign}' * bool(foreign)}",
            f"ask for opset {got}, or leave `opset_version` out; check() shows the highest "
            "that this stack writes and loads.",
            step="opset",
            got=got,
        )
    light = draft
    if draft.stat().st_size > reader.STEP_OVER_ABOVE:  # onnx.checker would hold the weights twice
        _locate(proto, draft)
        light = draft.with_name(".light")
        light.write_bytes(proto.SerializeToString())
    try:
        onnx.checker.check_model(os.fspath(light))
    except Exception as error:
        said = foreign or str(error).splitlines()[0]
        message = f"The exporter wrote a file that onnx.checker rejects: {said}"
        hint = "ask for another opset; check() shows which this stack writes and loads."
        raise ExportError(message, hint, step="check", got=got) from error
    if light != draft:
        light.unlink()
    return proto


def _line_of_rejected(draft: Path, said: str, translated: ExportedProgram | None) -> Line | None:
    """ONNX Runtime names the node that it has no kernel for, or that gets another dtype than it
    takes: then the FX node whose value has this dtype only in the file is to blame."""
    proto = onnx.load(draft, load_external_data=False)
    if translated and "bound to different types" in said:
        values = onnx.shape_inference.infer_shapes(proto).graph.value_info
        made = {v.name: v.type.tensor_type.elem_type for v in values}
        for node in translated.graph.nodes:
            dtype = getattr(node.meta.get("val"), "dtype", None)
            if (
                dtype
                and made.get(node.name)
                and f"torch.{dtype_name(made[node.name])}" != str(dtype)
            ):
                return user_line(node.meta.get("stack_trace"))
    named = {
        one for names in re.findall(r"name '([^']+)'|in node \(([^)]+)\)", said) for one in names
    }
    node = next((node for node in proto.graph.node if node.name in named), None)
    return exporter_metadata.read(node).line if node else None
