"""The inside of a worker: a fresh process that holds one contestant and nothing else.

It imports the standard library alone; what the contestant needs comes with the contestant. So an
ONNX Runtime worker never imports torch.
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
    with contextlib.suppress(EOFError):
        while True:
            verb, *rest = pickle.load(requests)
            try:
                if verb == "open":
                    start = perf_counter()
                    bench = Bench(pickle.loads(rest[0]))
                    reply: Any = perf_counter() - start
                    gc.disable()
                else:
                    reply = getattr(bench, verb)(*rest)
                    if verb == "ready":
                        gc.collect()
            except Exception as error:
                reply = Failure(error)
            _send(reply, replies)


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
