"""A fresh process for one contestant: started, asked, frozen while others run, and ended."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from typing import Any

from .bench import Entry, Ready
from .process import Process, fresh

FREEZES = hasattr(signal, "SIGSTOP")
"""Windows has no such signal; there an idle worker waits for its pipe, unfrozen.

No worker outlives its parent, even one that is killed: unfrozen it sees its pipe end. Frozen it is
a stopped process group that is orphaned, which POSIX, and so macOS, ends by SIGHUP and SIGCONT;
Linux ends it by itself (child.py), since a parent that adopts it there may be of its session.
"""

KEEPS = hasattr(os, "sched_setaffinity")
"""macOS and Windows leave it to the system on which core a process runs."""


class WorkerError(RuntimeError):
    """The process ended before it answered, with the exit ``code``, or cannot take the contestant
    in."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


def packed(entries: Sequence[Entry]) -> bytes:
    """The entries as bytes that another process can take in, closures and notebook classes too.

    Raises:
        WorkerError: something in them cannot be sent: an open file, a lock, a running session.
    """
    import cloudpickle

    try:
        return cloudpickle.dumps(list(entries))
    except Exception as error:
        raise WorkerError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error


class Worker:
    """The parent's end of one worker; ``close`` ends its process, whatever it does."""

    def __init__(
        self,
        payload: bytes,
        threads: int,
        core: int | None = None,
        process: Process | None = None,
    ) -> None:
        """
        Args:
            payload: what it opens; without one it only answers :meth:`call`.
            core: the only one on which it may run once it is opened, its threads yet to come, too;
                its imports may run on another, beside those of others.
            process: what answers; a new Python by default.
        """
        self._core, self._process = core, process or fresh(threads)
        try:
            if payload:
                self._post("open", payload)
        except BaseException:  # Ctrl-C while it is slow to take in a large model
            self.close()
            raise

    def opened(self) -> float:
        """Waits until the contestant is taken in; seconds of its imports and its unpacking.

        Raises:
            WorkerError: it cannot be taken in, for want of a module for example.
        """
        try:
            took = self._answer()
        except WorkerError:
            raise
        except Exception as error:
            raise WorkerError(f"{type(error).__name__}: {error}") from error
        if self._core is not None:
            with contextlib.suppress(OSError):  # it ended since, which its next answer tells
                os.sched_setaffinity(self._process.pid, {self._core})
        return took

    def ready(self) -> list[Ready | Exception]:
        return self._ask("ready")

    def block(self, size: int, calls: int) -> tuple[int, int]:
        return self._ask("block", size, calls)

    def laps(self, size: int) -> tuple[int, ...]:
        return self._ask("laps", size)

    def freeze(self) -> None:
        if FREEZES:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if FREEZES:
            self._process.send_signal(signal.SIGCONT)

    def call(self, function: Callable[..., Any], *rest: Any) -> Any:
        """What a function of a module returns there."""
        return self._ask("call", function, *rest)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Ends the process, frozen or not."""
        self.kill()
        for pipe in filter(None, (self._process.stdin, self._process.stdout)):
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                pipe.close()
        self._process.wait()

    def _ask(self, verb: str, *rest: Any) -> Any:
        self._post(verb, *rest)
        return self._answer()

    def _post(self, verb: str, *rest: Any) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # told by the answer that does not come
            pickle.dump((verb, *rest), self._process.stdin)
            self._process.stdin.flush()

    def _answer(self) -> Any:
        from .child import Failure

        assert self._process.stdout
        try:
            reply = pickle.load(self._process.stdout)
        except EOFError as error:
            code = self._process.wait()
            raise WorkerError(f"its process ended with code {code}", code) from error
        if isinstance(reply, Failure):
            raise reply.error
        return reply
