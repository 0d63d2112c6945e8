"""Runs files in one worker process, so that a crash of ONNX Runtime does not harm this one.

The worker starts with the first call, never imports torch, keeps its sessions, and ends with this
process.
"""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from . import exporter_metadata
from .errors import LoadError, RunError
from .ort import WEIGHTS_FOLDER, Options, as_arrays, call_of, session_of
from .proto import NodeRef, node_refs
from .timing.worker import Worker, WorkerError

if TYPE_CHECKING:
    import onnxruntime

TIMEOUT = 60.0
"""Seconds that a call may take in the worker by default."""

_SESSIONS = 4
"""The most sessions that the worker keeps open."""

_PART_SECONDS, _SEARCH_SECONDS = (1.0, 5.0), 60.0
"""For the search for the node that kills the worker: the least and most that a part of the model
may take, and the most for the whole search."""


@dataclass(frozen=True)
class IsolatedFile:
    """A file that runs in the worker."""

    path: Path
    provider: str
    timeout: float = TIMEOUT

    @property
    def _key(self) -> tuple[Any, ...]:
        at = self.path.resolve().stat()
        return (str(self.path.resolve()), at.st_mtime_ns, at.st_size, at.st_ino, self.provider)

    def run(self, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[Any]:
        """The outputs of the model. ONNX Runtime's own errors are raised unchanged.

        Raises:
            LoadError, RunError: the worker crashed, or did not answer in time.
        """
        with self._explained(model, feeds):
            return ask(_run, self._key, dict(feeds), timeout=self.timeout)

    def open(self, model: onnx.ModelProto) -> None:
        """Open the session in the worker, unless it is open."""
        with self._explained(model):
            ask(_session, self._key, timeout=self.timeout)

    def call(
        self,
        function: Callable[..., Any],
        model: onnx.ModelProto,
        feeds: Mapping[str, np.ndarray],
        *rest: Any,
    ) -> Any:
        """Call ``function(path, model, provider, feeds, *rest)`` of a module without torch."""
        with self._explained(model, feeds):
            return ask(
                function, self.path, model, self.provider, dict(feeds), *rest, timeout=self.timeout
            )

    @contextmanager
    def _explained(
        self, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[None]:
        """Turn the end of the worker into an error that names the node; it loads without feeds."""
        kind, doing = (LoadError, "loading") if feeds is None else (RunError, "running")
        try:
            yield
        except Ended as error:
            name, ref = self.path.name, _culprit(self, model, feeds, error)
            node = f"the node {ref.name!r} ({ref.node.op_type})" if ref else ""
            if error.late:
                works = f" The model answers without {node} and the nodes after it." if node else ""
                message = (
                    f"{name} did not answer within {self.timeout:g} s while ONNX Runtime was "
                    f"{doing} it, and its process was stopped.{works}"
                )
                hint = (
                    "If the model takes that long, pass load() a longer `timeout`; else look for "
                    "an endless loop."
                )
            else:
                at = f", at {node}" if node else ""
                message = (
                    f"ONNX Runtime {error} while {doing} {name}{at}. It ran in its own process, "
                    "so this one goes on."
                )
                hint = (
                    "Fix the file or its inputs, or try another version of onnxruntime, and report "
                    "it there with the file."
                )
            line = exporter_metadata.read(ref.node).line if ref else None
            raise kind(message, hint, line) from error


class Ended(Exception):
    """The worker ended before it answered: it was ``late``, or a signal killed it."""

    def __init__(self, code: int | None = None, late: bool = False) -> None:
        self.late, self.died = late, code is not None and code < 0
        message = f"exited with code {code}"
        if self.died:
            with suppress(ValueError):
                message = f"was killed by {signal.Signals(-code).name}"  # type: ignore[operator]
        super().__init__(message)


def ask(function: Callable[..., Any], *rest: Any, timeout: float) -> Any:
    """Call a function in the worker and return its result; its errors are raised here.

    Raises:
        Ended: the worker has ended; the next call starts another.
    """
    with _ONE_AT_A_TIME:
        fresh = not _WORKER
        worker = Worker() if fresh else _WORKER.pop()
        late = threading.Event()

        def end() -> None:
            late.set()
            worker.kill()

        timer, alive = threading.Timer(timeout, end), False
        timer.daemon = True
        try:
            if fresh:
                worker.call(_start)
            timer.start()
            answer = worker.call(function, *rest)
            alive = True
            return answer
        except WorkerError as error:
            raise Ended(error.code, late.is_set()) from error
        except Exception:  # from the function; not Ctrl-C, after which the worker still runs it
            alive = True
            raise
        finally:
            timer.cancel()
            _WORKER.append(worker) if alive else worker.close()


_WORKER: list[Worker] = []
"""The idle worker; empty before the first call and during a call."""


@atexit.register
def _end() -> None:
    while _WORKER:
        _WORKER.pop().close()


_ONE_AT_A_TIME = threading.RLock()


def _culprit(
    file: IsolatedFile, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray] | None, end: Ended
) -> NodeRef | None:
    """The first node of the main graph that ends the worker in this way; None if the search runs
    out of time."""
    outer = [ref for ref in node_refs(model) if not ref.inside]
    folder = str(file.path.resolve().parent)
    least, most = _PART_SECONDS
    limit, until = min(max(file.timeout, least), most), monotonic() + _SEARCH_SECONDS

    def ends(count: int) -> bool:
        try:
            part = _beginning(model, count)
            ask(_trial, part, folder, file.provider, feeds, timeout=limit)
        except Ended as error:
            return error.late if end.late else error.died and not error.late
        except Exception:
            return False
        return False

    if not ends(len(outer)):
        return None
    sound, deadly = 0, len(outer)
    while deadly - sound > 1 and monotonic() < until:
        middle = (sound + deadly) // 2
        if ends(middle):
            deadly = middle
        else:
            sound = middle
    return outer[deadly - 1] if deadly - sound == 1 else None


def _beginning(model: onnx.ModelProto, count: int) -> bytes:
    """The first ``count`` nodes of a model, with their weights; values that no node reads become
    outputs."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    del graph.node[count:]
    read = {name for ref in node_refs(part) for name in ref.inputs}
    unread = [name for node in graph.node for name in node.output if name and name not in read]
    known = {value.name: value for value in model.graph.output}
    del graph.output[:], graph.initializer[:]
    graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in unread)
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    return part.SerializeToString()


# What runs in the worker


def _start() -> None:
    """Import slow modules before a file's timeout starts, and limit memory: a file that needs too
    much gets an error and does not take other files down."""
    import onnxruntime  # noqa: F401

    with suppress(ImportError, OSError, ValueError):  # Windows, or a limit that is lower already
        import resource

        import psutil

        free = psutil.virtual_memory().available
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (free, most))


_OPEN: dict[tuple[Any, ...], onnxruntime.InferenceSession] = {}


def _session(key: tuple[Any, ...]) -> None:
    if key not in _OPEN:
        while len(_OPEN) >= _SESSIONS:
            del _OPEN[next(iter(_OPEN))]
        path, *_, provider = key
        _OPEN[key] = session_of(path, provider)


def _run(key: tuple[Any, ...], feeds: Mapping[str, np.ndarray]) -> list[Any]:
    _session(key)  # opens it again if an earlier call ended the worker
    try:
        return [as_arrays(result) for result in call_of(_OPEN[key], feeds)()]
    except Exception:
        del _OPEN[key]  # a session that ran out of memory stays broken
        raise


def _trial(
    model: bytes, folder: str, provider: str, feeds: Mapping[str, np.ndarray] | None
) -> None:
    options = Options().for_session()
    options.add_session_config_entry(WEIGHTS_FOLDER, folder)
    session = session_of(model, provider, options)
    if feeds is not None:
        taken = {value.name for value in session.get_inputs()}
        call_of(session, {name: array for name, array in feeds.items() if name in taken})()
