"""A fresh process that calls functions, and one that times a call. Standard library only.

On Linux a process that needs torch is forked from `multiprocessing`'s server, which has imported it
once. Every other process is a new Python, so that ONNX Runtime's never imports torch.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

from .bench import Bench, Started

POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FORKS = sys.platform == "linux"
"""macOS has libraries that do not survive a fork, and Windows has no fork."""
PINS = hasattr(os, "sched_setaffinity")
"""macOS and Windows choose the core themselves."""
_PRELOAD = f"{__package__}.preload"


class WorkerError(RuntimeError):
    """The process ended before it answered, with the exit ``code``."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class NotSendable(RuntimeError):
    """A target holds what no other process can receive, such as an open file or a lock."""


class Worker:
    """A process that calls functions of modules. ``close`` ends it, whatever it is doing.

    Args:
        threads: of the pools of torch and NumPy; torch and ONNX Runtime are told again.
        modules: with torch among them, the process is forked where that works.
    """

    def __init__(self, threads: int = 1, modules: tuple[str, ...] = ()) -> None:
        forks = FORKS and "torch" in modules
        context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([_PRELOAD])
        self._connection, theirs = context.Pipe()
        environment = {**os.environ, **dict.fromkeys(POOLS, str(threads))}
        self._process = context.Process(
            target=_serve, args=(theirs, environment, Path.cwd()), daemon=True
        )
        with _without_main(), _without_interrupts():
            self._process.start()
        theirs.close()

    def call(self, function: Callable[..., Any], *rest: Any) -> Any:
        """What the function returns there; what it raises is raised here.

        Raises:
            WorkerError: the process ended before it answered.
        """
        self.send(function, *rest)
        return self.answer()

    def send(self, function: Callable[..., Any], *rest: Any) -> None:
        """Begin a call whose :meth:`answer` is read later."""
        with suppress(BrokenPipeError):  # the missing answer says that it ended
            self._connection.send((function, rest))

    def answer(self) -> Any:
        try:
            value, raised = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode
            raise WorkerError(f"its process ended with code {code}", code) from error
        if raised is not None:
            raise raised
        return value

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def pack(call: Any) -> bytes:
    """A call for another process; closures and classes of a notebook travel by value.

    Raises:
        NotSendable: something in it cannot be pickled.
    """
    import cloudpickle

    try:
        return cloudpickle.dumps(call)
    except Exception as error:
        raise NotSendable(_words(error)) from error


class RemoteBench(Worker):
    """A :class:`Bench` in a worker.

    Args:
        modules: what the worker imports before it unpacks the call.
        call: as :func:`pack` gives it.
        core: the only core on which the call may run, or None.
    """

    def __init__(
        self, threads: int, modules: tuple[str, ...], call: bytes, core: int | None = None
    ) -> None:
        super().__init__(threads, modules)
        try:
            self.send(_open, modules, call, core)
        except BaseException:  # Ctrl-C while a large model is on its way
            self.close()
            raise

    def opened(self) -> None:
        """Wait until the call has arrived.

        Raises:
            NotSendable: it cannot be unpacked there, because a module is missing for example.
        """
        self.answer()

    def start(self) -> Started:
        return self.call(_bench, "start")

    def block(self, calls: int) -> tuple[int, int]:
        return self.call(_bench, "block", calls)

    def laps(self) -> tuple[int, ...]:
        return self.call(_bench, "laps")


@contextmanager
def _without_main() -> Iterator[None]:
    """Else multiprocessing would run the caller's script again in the new process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that starts here never sees Ctrl-C; the parent sees it when this ends."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which unblocks the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---------------------------------------------------------------- what runs in the new process


def _serve(connection: Connection, environment: dict[str, str], folder: Path) -> None:
    """Answer calls until the parent ends. What a target prints is dropped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows, where none is blocked
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    with suppress(OSError):
        os.chdir(folder)
    multiprocessing.current_process().daemon = False  # a target may start processes of its own
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    gc.disable()
    with suppress(EOFError, OSError):
        while True:
            connection.send_bytes(_reply(*connection.recv()))
    os._exit(0)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _reply(function: Callable[..., Any], rest: tuple) -> bytes:
    """What the function returns or raises; an error that cannot be pickled goes as its words."""
    try:
        return pickle.dumps((function(*rest), None))
    except Exception as error:
        try:
            pickle.loads(reply := pickle.dumps((None, error)))
        except Exception:
            reply = pickle.dumps((None, RuntimeError(_words(error))))
        return reply


_BENCH: list[Bench] = []


def _open(modules: tuple[str, ...], content: bytes, core: int | None) -> None:
    begin = perf_counter()
    try:
        for name in modules:
            importlib.import_module(name)
        ready = perf_counter()
        call = pickle.loads(content)
    except Exception as error:
        raise NotSendable(_words(error)) from error
    preloaded = sys.modules.get(_PRELOAD)
    imported = ready - begin + (preloaded.SECONDS if preloaded else 0.0)
    _BENCH.append(Bench(call, imported=imported, received=perf_counter() - ready, core=core))


def _bench(verb: str, *rest: Any) -> Any:
    return getattr(_BENCH[0], verb)(*rest)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
