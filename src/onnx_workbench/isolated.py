"""Files are run in one worker process, which ONNX Runtime may kill without harm to this one.

It starts with the first call, never imports torch, keeps its sessions, and ends with this process.
"""

from __future__ import annotations

import atexit
import ctypes
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from . import notes
from .errors import LoadError, RunError
from .proto import Site, sites
from .session import Options, call_of
from .timing.worker import Worker, WorkerError

if TYPE_CHECKING:
    import onnxruntime

TIMEOUT = 60.0
"""Seconds that a call may take in the worker, unless the caller says otherwise."""

_SESSIONS = 4
"""That the worker keeps."""

_TRIAL = 5.0
"""Seconds that a part of a model may take, where the node that kills the worker is looked for."""

_LARGEST = 200_000_000
"""Bytes of a model above which that node is not looked for: each part of it is sent."""

_EXTERNAL = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class File:
    """A file to be run in the worker."""

    path: Path
    provider: str
    timeout: float = TIMEOUT

    @property
    def _key(self) -> tuple[Any, ...]:
        at = self.path.resolve().stat()
        return (str(self.path.resolve()), at.st_mtime_ns, at.st_size, at.st_ino, self.provider)

    def run(self, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[Any]:
        """What the model gives. ONNX Runtime's own errors arrive as they are.

        Raises:
            LoadError, RunError: ONNX Runtime was killed, or did not answer in time.
        """
        self.open(model)
        with self._told(RunError, "running", model, feeds):
            return ask(_run, self._key, dict(feeds), timeout=self.timeout)

    def open(self, model: onnx.ModelProto) -> None:
        """Make the session, unless the worker has it."""
        with self._told(LoadError, "loading", model, None):
            ask(_session, self._key, timeout=self.timeout)

    def call(
        self,
        function: Callable[..., Any],
        model: onnx.ModelProto,
        feeds: Mapping[str, np.ndarray],
        *rest: Any,
    ) -> Any:
        """``function(path, model, provider, feeds, *rest)``, of a module without torch."""
        with self._told(RunError, "running", model, feeds):
            return ask(
                function, self.path, model, self.provider, dict(feeds), *rest, timeout=self.timeout
            )

    @contextmanager
    def _told(
        self,
        kind: type[LoadError | RunError],
        doing: str,
        model: onnx.ModelProto,
        feeds: Mapping[str, np.ndarray] | None,
    ) -> Iterator[None]:
        """Turns the end of the worker into an error that names the node."""
        try:
            yield
        except Ended as error:
            name = self.path.name
            if error.late:
                raise kind(
                    f"{name} did not answer within {self.timeout:g} s while ONNX Runtime was "
                    f"{doing} it, and its process was ended.",
                    "if the model takes that long, pass load() a longer `timeout`; else look for "
                    "a loop without end.",
                ) from error
            site = _culprit(self, model, feeds)
            at = f", at the node {site.name!r} ({site.node.op_type})" if site else ""
            raise kind(
                f"ONNX Runtime was {error} while {doing} {name}{at}. It was in a process of its "
                "own, and this one goes on.",
                "mend that node or its inputs, or try another version of onnxruntime."
                if site
                else "try another version of onnxruntime, and report it there with the file.",
                notes.read(site.node).line if site else None,
            ) from error


class Ended(Exception):
    """The worker ended before it answered: it was ``late``, or killed."""

    def __init__(self, code: int | None = None, late: bool = False) -> None:
        self.late, self.died = late, code is not None and code < 0
        said = f"ended with code {code}"
        if self.died:
            with suppress(ValueError):
                said = f"killed by {signal.Signals(-code).name}"  # type: ignore[operator]
        super().__init__(said)


def ask(function: Callable[..., Any], *rest: Any, timeout: float) -> Any:
    """What the function returns in the worker; its errors are raised here.

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

        timer = threading.Timer(timeout, end)
        timer.daemon = True
        timer.start()
        try:
            if fresh:
                worker.call(_limit)
            answer = worker.call(function, *rest)
        except WorkerError as error:
            worker.close()
            raise Ended(error.code, late.is_set()) from error
        except Exception:
            _WORKER.append(worker)
            raise
        except BaseException:  # Ctrl-C: what it runs is not waited for
            worker.close()
            raise
        finally:
            timer.cancel()
        _WORKER.append(worker)
        return answer


_WORKER: list[Worker] = []
"""The one that waits for a call; none before the first call, and while it runs one."""


@atexit.register
def _end() -> None:
    while _WORKER:
        _WORKER.pop().close()


_ONE_AT_A_TIME = threading.RLock()


def _culprit(
    file: File, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray] | None
) -> Site | None:
    """The node of the main graph with which the model begins to kill the worker."""
    if model.ByteSize() > _LARGEST:
        return None
    outer = [site for site in sites(model) if not site.inside]
    folder = str(file.path.resolve().parent)

    def kills(count: int) -> bool:
        part = _beginning(model, count)
        try:
            ask(_trial, part, folder, file.provider, feeds, timeout=min(file.timeout, _TRIAL))
        except Ended as error:
            return error.died and not error.late
        except Exception:
            return False
        return False

    if not kills(len(outer)):
        return None
    sound, deadly = 0, len(outer)
    while deadly - sound > 1:
        middle = (sound + deadly) // 2
        if kills(middle):
            deadly = middle
        else:
            sound = middle
    return outer[deadly - 1]


def _beginning(model: onnx.ModelProto, count: int) -> bytes:
    """The first nodes of a model; what no node of them reads is an output."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    del graph.node[count:]
    read = {name for site in sites(part) for name in site.inputs}
    made = [name for node in graph.node for name in node.output if name and name not in read]
    known = {value.name: value for value in model.graph.output}
    del graph.output[:]
    graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in made)
    return part.SerializeToString()


# What runs in the worker


def _limit() -> None:
    """A file that asks for more memory than there is gets an error, and takes no other down."""
    with suppress(ImportError, OSError, ValueError):  # Windows, or a limit that is lower already
        import resource

        import psutil

        free = psutil.virtual_memory().available
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (free, most))


_OPEN: dict[tuple[Any, ...], onnxruntime.InferenceSession] = {}


def _session(key: tuple[Any, ...]) -> None:
    if key not in _OPEN:
        import onnxruntime

        while len(_OPEN) >= _SESSIONS:
            del _OPEN[next(iter(_OPEN))]
        path, *_, provider = key
        options = Options().for_session(0)
        _OPEN[key] = onnxruntime.InferenceSession(path, options, providers=[provider])


def _run(key: tuple[Any, ...], feeds: Mapping[str, np.ndarray]) -> list[Any]:
    _session(key)  # where another call has ended the worker that had it
    try:
        return [_plain(result) for result in call_of(_OPEN[key], feeds)()]
    except Exception:
        del _OPEN[key]  # once out of memory, a session stays so
        raise


def _trial(
    model: bytes, folder: str, provider: str, feeds: Mapping[str, np.ndarray] | None
) -> None:
    import onnxruntime

    options = Options().for_session(0)
    options.add_session_config_entry(_EXTERNAL, folder)
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if feeds is not None:
        taken = {value.name for value in session.get_inputs()}
        call_of(session, {name: array for name, array in feeds.items() if name in taken})()


def _plain(result: Any) -> Any:
    """A result as it can be sent: of bfloat16 and float8 an array of ml_dtypes."""
    if isinstance(result, Sequence) and not isinstance(result, (str, bytes)):
        return [_plain(item) for item in result]
    if not hasattr(result, "data_ptr") or not result.is_tensor():
        return result.numpy() if hasattr(result, "numpy") else result
    dtype = onnx.helper.tensor_dtype_to_np_dtype(result.element_type())
    if dtype.kind in "biufcOSU":
        return result.numpy()
    shape = result.shape()
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(result.data_ptr(), size), dtype).reshape(shape)
