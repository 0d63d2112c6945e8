"""How the process of a worker starts: as a new Python, or forked from one that has torch."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, TypeAlias

FORKS = sys.platform == "linux"
"""macOS has libraries that do not survive a fork, and Windows has no fork."""
PATIENCE = 0.5
"""Seconds for a nest to end what it forked; while it imports, it has forked nothing."""

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); " + (
    "from onnx_workbench.racing import child; child."
)
_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_TORCH = re.compile(rb"\x8c.torch[.\x94]", re.DOTALL)
"""In a pickle, the name of torch or of a module in it: a short string."""


def needs_torch(payload: bytes) -> bool:
    """Whether what a worker is sent imports torch there, as far as its pickle tells.

    >>> import torch
    >>> needs_torch(pickle.dumps(torch.relu)), needs_torch(pickle.dumps(print))
    (True, False)
    """
    return bool(_TORCH.search(payload))


def fresh(threads: int) -> Process:
    """A new Python that answers requests."""
    return _python("main()", threads)


@contextmanager
def forked(count: int, threads: int) -> Iterator[list[Process]]:
    """So many processes that answer requests, forked from a new Python that has imported torch.

    One import for all: it takes longer than their rounds do. What they share by it, such as where
    libraries lie in memory, is the same for every contestant of a stratum and new in the next.
    """
    if not count:
        yield []
        return
    requests, replies = ([os.pipe() for _ in range(count)] for _ in range(2))
    theirs = [(read, write) for (read, _), (_, write) in zip(requests, replies, strict=True)]
    ends = [end for pair in theirs for end in pair]
    with ExitStack() as stack:
        stdins = [stack.enter_context(os.fdopen(write, "wb")) for _, write in requests]
        stdouts = [stack.enter_context(os.fdopen(read, "rb")) for read, _ in replies]
        try:
            nest = Nest(_python(f"nest({theirs})", threads, pass_fds=ends))
        finally:
            for end in ends:
                os.close(end)
        stack.callback(nest.end)
        yield [Fork(nest, *each) for each in zip(range(count), stdins, stdouts, strict=True)]


@dataclass(frozen=True)
class Nest:
    """The parent's end of a process that forks others, and reaps them when it is asked to."""

    process: subprocess.Popen[bytes]

    @cached_property
    def pids(self) -> list[int]:
        """Known once they are forked, which this waits for."""
        return self._said()

    def reaped(self, at: int) -> int:
        """The exit code of one that ended."""
        try:
            pickle.dump(self.pids[at], self._stdin)
            self._stdin.flush()
            return self._said()
        except (EOFError, OSError, ValueError):  # it ended before it forked, or has been ended
            return self.process.wait()

    def end(self) -> None:
        """It ends what it forked and then itself; a second call does nothing."""
        for pipe in filter(None, (self.process.stdin, self.process.stdout)):
            with suppress(OSError):  # what was still to be written has no reader
                pipe.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self.process.stdin
        return self.process.stdin

    def _said(self) -> Any:
        assert self.process.stdout
        return pickle.load(self.process.stdout)


@dataclass
class Fork:
    """A process forked in a nest, with what a Popen offers. It ends with its nest."""

    nest: Nest
    at: int
    stdin: IO[bytes]
    stdout: IO[bytes]
    returncode: int | None = None

    @property
    def pid(self) -> int:
        return self.nest.pids[self.at]

    def send_signal(self, number: int) -> None:
        if self.returncode is None:  # not reaped, so the number is still its own
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.nest.end()

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self.nest.reaped(self.at)
        return self.returncode


Process: TypeAlias = "subprocess.Popen[bytes] | Fork"


def _python(call: str, threads: int, **options: Any) -> subprocess.Popen[bytes]:
    group: dict[str, Any] = {"process_group": 0}  # Ctrl-C is the parent's to handle
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return subprocess.Popen(
        [sys.executable, "-c", _START + call, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **dict.fromkeys(_POOLS, str(threads))},
        **group,
        **options,
    )
