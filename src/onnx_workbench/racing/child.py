"""The inside of a worker: a fresh process that holds one contestant and nothing else.

It imports the standard library alone; what the contestant needs comes with the contestant. So an
ONNX Runtime worker never imports torch. Workers that need torch may be forked from a nest.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import signal
import sys
from time import perf_counter
from typing import Any, BinaryIO

from .bench import Bench


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    requests, replies = _pipes()
    _die_with_the_parent()
    bench: Bench | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            verb, *rest = pickle.load(requests)
            try:
                if verb == "open":
                    start = perf_counter()
                    bench = Bench(pickle.loads(rest[0]))
                    reply: Any = perf_counter() - start
                    gc.disable()
                elif verb == "call":
                    reply = rest[0](*rest[1:])
                else:
                    reply = getattr(bench, verb)(*rest)
                    if verb == "ready":
                        gc.collect()
            except Exception as error:
                reply = Failure(error)
            _send(reply, replies)


def nest(pairs: list[tuple[int, int]]) -> None:
    """Import torch, fork a worker for each pair of pipes, tell their numbers; then the exit code of
    each that the parent asks for, until it closes the pipe, which ends all.
    """
    _die_with_the_parent()
    with contextlib.suppress(ImportError):  # each worker finds that out for itself, and tells
        import torch  # noqa: F401
    gc.freeze()  # nothing that is shared is looked at, and so copied, by a later collection
    pids: list[int] = []
    for pair in pairs:
        pids.append(os.fork())
        if not pids[-1]:
            return _hatched(pair, {end for other in pairs[len(pids) - 1 :] for end in other})
        for end in pair:
            os.close(end)
    with contextlib.suppress(EOFError, BrokenPipeError):
        _send(pids, sys.stdout.buffer)
        while True:
            pid = pickle.load(sys.stdin.buffer)
            _send(_reaped(pid), sys.stdout.buffer)
            pids.remove(pid)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        _reaped(pid)
    os._exit(0)  # torch is not taken down in order: every stratum would wait for that


def _hatched(pair: tuple[int, int], ends: set[int]) -> None:
    """A fork takes its pipes and lets go of those of the others, so that each sees its own end."""
    for stream, end in enumerate(pair):
        os.dup2(end, stream)
    for end in ends:
        os.close(end)
    main()


def _reaped(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Failure:
    """An error on its way to the parent; one that cannot be pickled goes as its words."""

    def __init__(self, error: Exception) -> None:
        self.error = _sendable(error)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        said = f"{type(error).__name__}: {error}"
        return RuntimeError(said)


def _send(reply: Any, replies: BinaryIO) -> None:
    if isinstance(reply, list):
        reply = [_sendable(item) if isinstance(item, Exception) else item for item in reply]
    pickle.dump(reply, replies)
    replies.flush()


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Requests and replies; what the contestant itself prints goes nowhere."""
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    return sys.stdin.buffer, replies


def _die_with_the_parent() -> None:
    """A frozen process never sees that its pipe was closed; Linux can be told to end it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
