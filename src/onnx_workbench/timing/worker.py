"""A fresh process for one target. Both ends are here; standard library only.

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
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Parcel:
    """A call as bytes, and the modules that a worker imports before it opens them."""

    content: bytes
    modules: tuple[str, ...]

    @classmethod
    def of(cls, call: Any) -> Parcel:
        """Pack a call; closures and classes of a notebook travel by value.

        Raises:
            NotSendable: something in it cannot be pickled.
        """
        import cloudpickle

        try:
            return cls(cloudpickle.dumps(call), tuple(getattr(call, "modules", ())))
        except Exception as error:
            raise NotSendable(_words(error)) from error


class Worker:
    """The parent's end. ``close`` ends the process, whatever it is doing.

    Args:
        threads: of the pools of torch and NumPy; torch and ONNX Runtime are told again.
        parcel: the call to time. Without one the worker only answers :meth:`call`.
        core: the only core on which the call may run, or None.
    """

    def __init__(
        self, threads: int = 1, parcel: Parcel | None = None, core: int | None = None
    ) -> None:
        forks = FORKS and parcel is not None and "torch" in parcel.modules
        context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([_PRELOAD])
        self._core = core
        self._connection, theirs = context.Pipe()
        environment = {**os.environ, **dict.fromkeys(POOLS, str(threads))}
        self._process = context.Process(
            target=serve, args=(theirs, environment, Path.cwd()), daemon=True
        )
        with _without_main(), _without_interrupts():
            self._process.start()
        theirs.close()
        if parcel:
            self._waits(parcel)

    def _waits(self, parcel: Parcel) -> None:
        try:
            with suppress(OSError):  # the missing answer says that it ended
                self._connection.send(("open", parcel.modules))
                self._connection.send_bytes(parcel.content)
        except BaseException:  # Ctrl-C while a large model is on its way
            self.close()
            raise

    def opened(self) -> None:
        """Wait until the call has arrived.

        Raises:
            NotSendable: it cannot be unpacked there, because a module is missing for example.
        """
        try:
            self._answer()
        except WorkerError:
            raise
        except Exception as error:
            raise NotSendable(_words(error)) from error

    def start(self) -> Started:
        return self._ask("start", self._core)

    def block(self, calls: int) -> tuple[int, int]:
        return self._ask("block", calls)

    def laps(self) -> tuple[int, ...]:
        return self._ask("laps")

    def call(self, function: Callable[..., Any], *rest: Any) -> Any:
        """What a function of a module returns there."""
        return self._ask("call", function, *rest)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _ask(self, verb: str, *rest: Any) -> Any:
        with suppress(BrokenPipeError):  # the missing answer says that it ended
            self._connection.send((verb, *rest))
        return self._answer()

    def _answer(self) -> Any:
        try:
            reply = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode
            raise WorkerError(f"its process ended with code {code}", code) from error
        if isinstance(reply, _Failure):
            raise reply.error
        return reply


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


class _Failure:
    """An error on its way to the parent; one that cannot be pickled goes as its words."""

    def __init__(self, error: Exception) -> None:
        try:
            pickle.loads(pickle.dumps(error))
            self.error = error
        except Exception:
            self.error = RuntimeError(_words(error))


def serve(connection: Connection, environment: dict[str, str], folder: Path) -> None:
    """Answer the parent until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows, where none is blocked
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    with suppress(OSError):
        os.chdir(folder)
    multiprocessing.current_process().daemon = False  # a target may start processes of its own
    _silence()
    gc.disable()
    inside = _Inside(connection)
    with suppress(EOFError, OSError):
        while True:
            verb, *rest = connection.recv()
            try:
                reply = getattr(inside, verb)(*rest)
            except Exception as error:
                reply = _Failure(error)
            try:
                connection.send(reply)
            except (TypeError, AttributeError, pickle.PicklingError) as error:
                connection.send(_Failure(error))
    os._exit(0)


class _Inside:
    """The verbs that a worker knows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open(self, modules: tuple[str, ...]) -> None:
        content = self._connection.recv_bytes()
        start = perf_counter()
        for name in modules:
            importlib.import_module(name)
        arrived = perf_counter()
        preloaded = sys.modules.get(_PRELOAD)
        self._imported = arrived - start + (preloaded.SECONDS if preloaded else 0.0)
        self._bench = Bench(pickle.loads(content))
        self._arrived = perf_counter() - arrived
        self.block, self.laps = self._bench.block, self._bench.laps

    def start(self, core: int | None) -> Started:
        if core is not None:
            os.sched_setaffinity(0, {core})
        found = self._bench.start()
        return replace(found, imported=self._imported, load=self._arrived + found.load)

    def call(self, function: Callable[..., Any], *rest: Any) -> Any:
        return function(*rest)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _silence() -> None:
    """What a target prints goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
