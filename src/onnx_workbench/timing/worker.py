"""A fresh process that calls functions, and one that times a call. Standard library only.

On Linux, a process that needs torch is forked from `multiprocessing`'s server, which imports it
once. Any other process is a new Python, so that a process for ONNX Runtime never imports torch.
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

from ..brief import first_words
from .bench import Bench, Started

POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FORKS = sys.platform == "linux"
"""Some libraries of macOS do not survive a fork, and Windows has no fork."""
PINS = hasattr(os, "sched_setaffinity")
"""macOS and Windows choose the core themselves."""
_PRELOAD = f"{__package__}.preload"


class WorkerError(RuntimeError):
    """The process ended with exit ``code`` before it answered."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class NotSendable(RuntimeError):
    """A target has something that cannot be sent, such as an open file or a lock."""


class Worker:
    """A process that calls functions of modules. ``close`` kills it.

    Args:
        threads: for the thread pools of torch and NumPy.
        modules: if torch is among them, the process is forked, where that works.
    """

    def __init__(self, threads: int = 1, modules: tuple[str, ...] = ()) -> None:
        forks = FORKS and "torch" in modules
        context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([_PRELOAD])
        self._connection, child_end = context.Pipe()
        environment = {**os.environ, **dict.fromkeys(POOLS, str(threads))}
        self._process = context.Process(
            target=_serve, args=(child_end, environment, Path.cwd()), daemon=True
        )
        with _without_main(), _without_interrupts():
            self._process.start()
        child_end.close()

    def call(self, function: Callable[..., Any], *rest: Any) -> Any:
        """Call a function there and return its result; its errors are raised here.

        Raises:
            WorkerError: the process ended before it answered.
        """
        self.send(function, *rest)
        return self.answer()

    def send(self, function: Callable[..., Any], *rest: Any) -> None:
        """Begin a call; :meth:`answer` waits for its result."""
        with suppress(BrokenPipeError):  # answer() reports that the process ended
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
    """Pickle a call for another process; closures and classes of a notebook by value.

    Raises:
        NotSendable: something in it cannot be pickled.
    """
    import cloudpickle

    try:
        return cloudpickle.dumps(call)
    except Exception as error:
        raise NotSendable(first_words(error)) from error


class RemoteBench(Worker):
    """A :class:`Bench` in a worker.

    Args:
        modules: what the worker imports before it unpacks the call.
        call: as :func:`pack` returns it.
        core: the only core on which the call may run, or None.
    """

    def __init__(
        self, threads: int, modules: tuple[str, ...], call: bytes, core: int | None = None
    ) -> None:
        super().__init__(threads, modules)
        try:
            self.send(_open, modules, call, core)
        except BaseException:  # Ctrl-C while a large model is being sent
            self.close()
            raise

    def opened(self) -> None:
        """Wait until the call has arrived.

        Raises:
            NotSendable: it cannot be unpacked there, for example because a module is missing.
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
    """Hide ``__main__``: multiprocessing would run the caller's script again in the new process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C: a process that starts here never sees it, the parent sees it afterwards."""
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
    """Answer calls until the parent ends. Output of targets is dropped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for Windows, which cannot block it
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    with suppress(OSError):
        os.chdir(folder)
    multiprocessing.current_process().daemon = False  # a target may start processes, too
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
    """The pickled result or error of the function; an error that cannot be pickled as its text."""
    try:
        return pickle.dumps((function(*rest), None))
    except Exception as error:
        try:
            pickle.loads(reply := pickle.dumps((None, error)))
        except Exception:
            reply = pickle.dumps((None, RuntimeError(first_words(error))))
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
        raise NotSendable(first_words(error)) from error
    preloaded = sys.modules.get(_PRELOAD)
    imported = ready - begin + (preloaded.SECONDS if preloaded else 0.0)
    _BENCH.append(Bench(call, imported=imported, received=perf_counter() - ready, core=core))


def _bench(verb: str, *rest: Any) -> Any:
    return getattr(_BENCH[0], verb)(*rest)
