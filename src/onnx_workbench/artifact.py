"""FX graph -> a checked ``.onnx`` file that is called like the model it came from."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.onnx import ONNXProgram
from torch.utils._pytree import tree_map_only

from . import files, progress, reader, runtime
from .calls import door
from .capturing import exporter
from .capturing.graph import Graph, capture
from .capturing.signature import Signature
from .errors import ExportError, InputError, LoadError, WorkbenchError
from .isolated import TIMEOUT, File
from .proto import mislabelled, opset_of, strip, tensors_of, weight_bytes, weights
from .session import Entry, Options, call_of
from .source import Line, user_line
from .text import plural, size, table

if TYPE_CHECKING:
    import onnxruntime

MOST_SECONDS = threading.TIMEOUT_MAX
"""That a timer takes."""

ONE_FILE_LIMIT = 2_000_000_000
"""Bytes of weights above which one file becomes a folder: a protobuf message ends at 2 GiB."""


@door
def export(
    model: nn.Module | Graph,
    args: Any = (),
    f: str | os.PathLike[str] | None = None,
    *,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    opset_version: int | None = None,
    custom_translation_table: exporter.Translations | None = None,
    dynamo: bool = True,
    provider: str = runtime.CPU,
) -> Artifact:
    """Export a model, or a graph that :func:`~onnx_workbench.capture` made, to ``path``.

    The file is done when its opset is the one asked for, ``onnx.checker`` accepts it and ONNX
    Runtime has loaded it. Until then it stands in a hidden folder beside ``path``: whatever fails,
    what was at ``path`` before is still there, and nothing half-written is left.

    Args:
        model: a Graph, or an ``nn.Module`` with the ``args``, ``kwargs`` and ``dynamic_shapes`` of
            :func:`~onnx_workbench.capture`.
        f: ends in ``.onnx``. Weights above 2 GB do not fit one file: then a folder of that name
            without the ending holds the model and its weights.
        opset_version: the version of the ONNX operator set; the default is the exporter's own.
        dynamo: False takes the old exporter, the TorchScript tracer. It records one run of the
            model, so that a branch or loop over data is frozen as it went in that run.
        provider: the execution provider that the artifact runs on.
        custom_translation_table: torch operator -> the onnxscript function that translates it:
            ``{torch.ops.demo.swishy.default: swishy}``; they come before the exporter's own.

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
    assert f is not None
    kwargs = kwargs or {}
    target = _checked_target(Path(f))
    _check_opset(opset_version)
    _check_translations(custom_translation_table, dynamo)
    runtime.check_provider(provider)
    if isinstance(model, Graph) and (args or kwargs or dynamic_shapes or not dynamo):
        raise InputError(
            "export() was given a captured Graph together with arguments, `dynamic_shapes` or "
            "dynamo=False; a Graph has its call inside. Pass the graph and the path alone, or the "
            "model itself."
        )
    with _beside(target) as draft, _progress(total=5) as step:
        graph = translated = None
        if dynamo:
            step("capture")
            graph = (
                model
                if isinstance(model, Graph)
                else capture(model, args, kwargs, dynamic_shapes=dynamic_shapes)
            )
            signature = graph.signature
            step("translate")
            program = exporter.translate(
                graph.program,
                opset=opset_version,
                axes=graph.labels,
                translations=custom_translation_table,
            )
            translated = program.exported_program
            step("write")
            _write(program, draft)
        else:
            step("trace")
            signature = _trace(model, draft, args, kwargs, opset_version, dynamic_shapes or {})
        step("check")
        got = _check_file(draft, opset_version)
        step("load")
        _check_loads(draft, provider, got, translated)
        return Artifact(_publish(draft, target), provider, signature, graph, translated)


def load(
    path: str | os.PathLike[str],
    provider: str = runtime.CPU,
    *,
    isolated: bool = False,
    timeout: float = TIMEOUT,
) -> Artifact:
    """An ``.onnx`` file from anywhere as a callable: tensors in order or by input name.

    It returns a tensor, or a tuple of tensors where the file has several outputs.

    Args:
        path: of the file.
        provider: the execution provider that it runs on.
        isolated: run it in a process of its own, as :func:`~onnx_workbench.audit` and
            :func:`~onnx_workbench.probe` do. ONNX Runtime dies on some files: then the call raises
            an error that names the node, and this process goes on.
        timeout: seconds after which such a process is ended.

    Raises:
        InputError: there is no such file, or no such provider.
        LoadError: it is no sound ONNX model, or its weights are not beside it. What ONNX Runtime
            has against it is raised by the first call, which opens the session.
    """
    try:
        file = Path(path)
        there = file.is_file()
    except (TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{path!r:.200} is no path of a file: {error}. Pass the path of an .onnx file."
        ) from error
    if not there:
        raise InputError(
            f"There is no file {file.name!r} in {str(file.parent)!r}. "
            "Pass the path of an .onnx file, or make one with export()."
        )
    runtime.check_provider(provider)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise InputError(f"`timeout` is {timeout!r}, and it takes a number of seconds above 0.")
    artifact = Artifact(file, provider, isolated=isolated, timeout=min(timeout, MOST_SECONDS))
    runtime.check_weights(file, artifact.proto)
    return artifact


@dataclass(frozen=True, repr=False, eq=False)
class Artifact:
    """A model on disk, called with the tensors and keyword arguments of the model it came from.

    Made by :func:`export` and :func:`load`. It returns torch tensors in the structure that the
    model returns. An ``isolated`` one is run in a process of its own, for at most ``timeout``
    seconds a call. ``graph`` is None for a file that the tracer made or that was loaded, and so is
    ``translated``: that graph as the exporter decomposed and translated it, node by node.
    """

    path: Path
    provider: str = runtime.CPU
    signature: Signature | None = None
    graph: Graph | None = None
    translated: ExportedProgram | None = None
    isolated: bool = False
    timeout: float = TIMEOUT

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        feeds = self.feeds(*args, **kwargs)
        results = runtime.run(self._call(feeds), feeds, self.path.name)
        tensors = [runtime.tensor(result) for result in results]
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
            raise runtime.refused(self.path, error) from error
        return partial(self.file.run, self.proto, feeds)

    @property
    def file(self) -> File:
        """The file as the worker process runs it."""
        return File(self.path, self.provider, self.timeout)

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The InferenceSession that calls run in, with ONNX Runtime's own defaults."""
        return runtime.open_session(self.path, self.provider)

    @cached_property
    def inputs(self) -> tuple[runtime.Value, ...]:
        """What the file takes, in order."""
        graph = self.proto.graph
        known = {name for name, _, _ in weights(graph)}
        return runtime.values(value for value in graph.input if value.name not in known)

    @cached_property
    def outputs(self) -> tuple[runtime.Value, ...]:
        """What the file gives, in order."""
        return runtime.values(self.proto.graph.output)

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The ``onnx.ModelProto``, without weights that lie in a file of their own."""
        return self._read.model

    @property
    def cut(self) -> str:
        """What of the file's metadata is too long to be kept; empty where nothing is."""
        return self._read.cut

    @cached_property
    def _read(self) -> reader.Checked:
        return reader.read(self.path, "load")

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
        weights = runtime.weight_files(self.proto)
        return (self.path, *(self.path.parent / name for name in weights))

    @property
    def weight_bytes(self) -> int:
        """Bytes that the initializers take, wherever they lie."""
        return weight_bytes(self.proto.graph)

    def save(self, path: str | os.PathLike[str], *, metadata: bool = True) -> Path:
        """Write a copy of the file, and of the files of its weights, and return its path.

        Args:
            path: ends in ``.onnx``. Weights in one file of their own go to ``path`` and ``.data``.
            metadata: False leaves out what describes the nodes and no runtime reads. torch writes
                absolute paths and lines of source there; ``trace``, ``profile`` and ``view`` need
                them to name a line.

        Raises:
            InputError: the path does not fit, or the files cannot be copied there.

        >>> folder = getfixture("tmp_path")
        >>> relu = export(nn.ReLU().eval(), torch.ones(2), folder / "relu.onnx")
        >>> bare = load(relu.save(folder / "bare.onnx", metadata=False))
        >>> str(folder).encode() in bare.path.read_bytes(), bare(torch.ones(2))
        (False, tensor([1., 1.]))
        """
        goal = files.target(path, ".onnx")
        try:
            runtime.check_weights(self.path, self.proto)
            model = onnx.load(self.path, load_external_data=False)
            names = runtime.weight_files(model)
            ends = [".data"] if len(names) == 1 else [f".{i}.data" for i in range(len(names))]
            moved = {name: goal.name + end for name, end in zip(names, ends, strict=True)}
            for entry in (entry for t in tensors_of(model) for entry in t.external_data):
                if entry.key == "location":
                    entry.value = moved[entry.value]
            if not metadata:
                strip(model)
            with files.replacing(goal) as folder:
                (folder / goal.name).write_bytes(model.SerializeToString())
                for name, new in moved.items():
                    shutil.copyfile(self.path.parent / name, folder / new)
        except OSError as error:
            raise InputError(
                f"{self.path.name} could not be saved as {goal.name!r}: {error.strerror or error}. "
                "Make room or get the right to write there, or pass another path."
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
            runtime.check_input(value, tensor)
        return {
            value.name: runtime.array(tensor)
            for value, tensor in zip(self.inputs, tensors, strict=True)
        }

    def entry(
        self,
        args: tuple,
        kwargs: Mapping[str, Any],
        threads: int = 1,
        options: Options | None = None,
        provider: str = "",
    ) -> Entry:
        """One call of this file, ready to be sent to a process of its own and raced there.

        The session is a new one, so that its thread pool has the size asked for and no other call
        shares it. Tensors may lie on any device: they are copied before anything is timed.
        """
        args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.cpu, (args, kwargs))
        feeds = self.feeds(*args, **kwargs)
        path = os.fspath(self.path.resolve())
        return Entry(path, feeds, provider or self.provider, threads, options or Options())

    def using(self, provider: str = "", **options: Any) -> Variant:
        """This file as another contestant of a race, with other session options.

        Args:
            provider: the execution provider, such as ``CUDAExecutionProvider``; where it cannot be
                used, the race says so and goes on without this contestant.
            options: those of :class:`~onnx_workbench.session.Options`: ``level``, ``spinning``,
                ``arena``, ``parallel``, ``bound``.

        >>> import onnx_workbench as ow
        >>> relu = ow.export(nn.ReLU().eval(), torch.ones(2), getfixture("tmp_path") / "relu.onnx")
        >>> relu.using(bound=True)
        relu.onnx with IOBinding
        """
        return Variant(self, Options(**options), provider)

    def __repr__(self) -> str:
        ops = ", ".join(f"{op} {count}" for op, count in sorted(self.operations.items()))
        rows = [("input", repr(value)) for value in self.inputs]
        rows += [("output", repr(value)) for value in self.outputs]
        return f"{self._headline()}\n{table([*rows, ('nodes', ops)])}"

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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.artifact(*args, **kwargs)

    def entry(self, args: tuple, kwargs: Mapping[str, Any], threads: int = 1) -> Entry:
        return self.artifact.entry(args, kwargs, threads, self.options, self.provider)

    def __repr__(self) -> str:
        where = f" on {self.provider}" if self.provider else ""
        return f"{self.artifact.path.name} with {self.options}{where}"


def _checked_target(path: Path) -> Path:
    if path.suffix != ".onnx":
        raise InputError(
            f"The path {path.name!r} does not end in .onnx. Pass {path.name + '.onnx'!r}."
        )
    if not path.parent.is_dir():
        raise InputError(
            f"The folder {str(path.parent)!r} of {path.name!r} does not exist. "
            "Make it first, or pass a path in a folder that exists."
        )
    if path.is_dir():
        raise InputError(
            f"{str(path)!r} is a folder, and a file is to be written there. Pass another name."
        )
    return path


def _check_opset(opset: int | None) -> None:
    if opset is not None and (isinstance(opset, bool) or not isinstance(opset, int) or opset < 1):
        raise InputError(
            f"`opset_version` is {opset!r}, and it takes a whole number such as 18, or None."
        )


def _check_translations(table: object, dynamo: bool) -> None:
    if table is None:
        return
    if not isinstance(table, Mapping):
        raise InputError(
            f"`custom_translation_table` is a {type(table).__name__}, and it takes a dict: torch "
            "operator -> onnxscript function. Write {torch.ops.demo.swishy.default: swishy}."
        )
    if not dynamo:
        raise InputError(
            "`custom_translation_table` was given together with dynamo=False, and the tracer "
            "takes none. Leave dynamo out, or use torch.onnx.register_custom_op_symbolic."
        )
    for operator, function in table.items():
        if isinstance(operator, torch._ops.OpOverloadPacket):
            advice = f"Name the overload: torch.ops.{operator}.{operator.overloads()[0]}."
        elif not callable(operator):
            advice = "Pass the operator itself, such as torch.ops.demo.swishy.default."
        elif not callable(function):
            advice = "Pass an onnxscript function of the operator's arguments."
        else:
            continue
        raise InputError(
            f"`custom_translation_table` has the entry {operator!s}: {function!r}, and each is "
            f"one torch operator -> one function. {advice}"
        )


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A path in a hidden folder beside ``target``; the folder is gone afterwards, come what may."""
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.stem}-", dir=target.parent))
        yield folder / target.name
    except OSError as error:
        raise ExportError(
            f"{target.name} could not be written to {str(target.parent)!r}: "
            f"{error.strerror or error}. What was there before is still there.",
            "make room or get the right to write there, or pass another path.",
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A line that names the step, for exports that take longer than two seconds."""
    with progress.bar(total=total, desc="export", delay=2) as bar:

        def step(name: str) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update()

        yield step


def _write(program: ONNXProgram, draft: Path) -> None:
    weights = sum(
        value.const_value.nbytes
        for value in program.model.graph.initializers.values()
        if value.const_value is not None
    )
    program.save(draft, external_data=weights > ONE_FILE_LIMIT)


def _trace(
    model: nn.Module | Graph,
    draft: Path,
    args: tuple,
    kwargs: dict[str, Any],
    opset: int | None,
    dynamic: Mapping[str, Any],
) -> Signature:
    assert isinstance(model, nn.Module)
    with exporter.evaluating(model):
        with torch.no_grad():
            signature = Signature.of_call(model, args, kwargs, model(*args, **kwargs))
        exporter.trace(
            model,
            draft,
            args,
            kwargs,
            opset=opset,
            inputs=signature.tensor_inputs,
            axes=signature.axes(dynamic),
        )
    return signature


def _check_file(draft: Path, asked: int | None) -> int:
    """The opset of the file."""
    proto = onnx.load(draft, load_external_data=False)
    got, foreign = opset_of(proto), mislabelled(proto)
    if asked is not None and got != asked:
        direction = "down" if asked < got else "up"
        raise ExportError(
            f"You asked for opset {asked} and the exporter wrote opset {got}, without an error of "
            f"its own: it could not convert the graph {direction}.{f' {foreign}' * bool(foreign)}",
            f"ask for opset {got}, or leave `opset_version` out; check() shows the highest "
            "that this stack writes and loads.",
            step="opset",
            got=got,
        )
    try:
        onnx.checker.check_model(os.fspath(draft))
    except Exception as error:
        raise ExportError(
            "The exporter wrote a file that onnx.checker rejects: "
            f"{foreign or str(error).splitlines()[0]}",
            "ask for another opset; check() shows which this stack writes and loads.",
            step="check",
            got=got,
        ) from error
    return got


def _check_loads(
    draft: Path, provider: str, got: int, translated: ExportedProgram | None = None
) -> None:
    try:
        runtime.open_session(draft, provider)
    except LoadError as error:
        said = error.message.replace(f"{draft.parent.name}{os.sep}", "")  # as it would be called
        raise ExportError(
            f"ONNX Runtime rejects what the exporter wrote. {said}",
            error.hint,
            _line_of_rejected(draft, said, translated),
            step="load",
            got=got,
        ) from error


def _line_of_rejected(draft: Path, said: str, translated: ExportedProgram | None) -> Line | None:
    """ONNX Runtime names the node that it has no kernel for, or that gets another dtype than it
    takes: then the FX node whose value has this dtype in the file alone is to blame."""
    proto = onnx.load(draft, load_external_data=False)
    if translated and "bound to different types" in said:
        made = _dtypes(proto)
        for node in translated.graph.nodes:
            dtype = getattr(node.meta.get("val"), "dtype", None)
            if dtype and node.name in made and str(dtype) != f"torch.{made[node.name]}":
                return user_line(node.meta.get("stack_trace"))
    names = re.findall(r"name '([^']+)'|in node \(([^)]+)\)", said)
    for node in proto.graph.node:
        if any(node.name in found for found in names):
            told = {entry.key: entry.value for entry in node.metadata_props}
            return user_line(told.get("pkg.torch.onnx.stack_trace"))
    return None


def _dtypes(proto: onnx.ModelProto) -> dict[str, str]:
    """The dtype of each value that onnx can infer."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in graph.value_info}
    return {
        name: onnx.helper.tensor_dtype_to_np_dtype(kind).name
        for name, kind in kinds.items()
        if kind
    }


def _publish(draft: Path, target: Path) -> Path:
    if len(list(draft.parent.iterdir())) == 1:
        draft.replace(target)
        return target
    folder = target.with_suffix("")
    made = draft.parent.with_name(f"{draft.parent.name}-done")
    draft.parent.replace(made)
    if folder.exists():
        folder.replace(draft.parent)  # _beside removes what stands there
    made.replace(folder)
    return folder / target.name
