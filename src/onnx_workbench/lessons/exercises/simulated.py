"""A machine with a clock of its own: what a benchmark does to its targets is written down.

Time passes only when a target is called, by amounts that are chosen. So it is known how many
times as fast one of them is, and whatever a benchmark says instead, the benchmark made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

TRUTH = 1.25
"""How many times as fast the session is as the model, on equal terms."""
CORES = 4
_SLOWER = {"training": 1.3, "gradients": 1.1}
_FIRST = {"PyTorch": 200.0, "ONNX Runtime": 20.0}  # what the first call takes on top
_COPY = 0.5
_DRIFT = 0.002  # how much slower the machine is after each call

Benchmark = Callable[[torch.nn.Module, Callable[..., Any], torch.Tensor, Callable[[], float]], Any]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a target, ``PyTorch`` or ``ONNX Runtime``, and how it was made."""

    side: str
    threads: int
    given: int
    training: bool = False
    gradients: bool = False


class Machine:
    """What a benchmark is handed: a ``model``, ``open_session``, an input ``x`` and a ``clock``.

    ``calls`` is what it did with them. ``first`` is a machine on which first calls take longer,
    ``drift`` one that slows down from call to call.

    >>> machine = Machine()
    >>> session = machine.open_session(threads=1)
    >>> session.run(None, {"x": machine.x.numpy()})[0].shape
    (1, 8)
    >>> machine.calls[0].side, machine.reads
    ('ONNX Runtime', 0)
    """

    def __init__(self, first: bool = True, drift: bool = True) -> None:
        self.calls: list[Call] = []
        self.reads = 0
        self.model = _Model(self)
        self.x = torch.ones(1, 8)
        self._first, self._drift, self._now = first, drift, 0.0
        self._seen: dict[tuple[str, int], object] = {}  # kept: a place in memory is used once
        self._warm: set[object] = set()

    def clock(self) -> float:
        self.reads += 1
        return self._now

    def open_session(self, threads: int = CORES) -> _Session:
        return _Session(self, threads)

    def pass_time(self, who: object, call: Call, value: object, work: float) -> None:
        """One call: its work, and what was done to it."""
        cost = work / call.threads
        for burden, factor in _SLOWER.items():
            cost *= factor if getattr(call, burden) else 1.0
        if (call.side, call.given) not in self._seen:
            cost += _COPY if self.copies(call.side) else 0.0
            self._seen[call.side, call.given] = value
        if self._first and who not in self._warm:
            cost += _FIRST[call.side]
        if self._drift:
            cost *= 1.0 + _DRIFT * len(self.calls)
        self._warm.add(who)
        self._now += cost
        self.calls.append(call)

    def copies(self, side: str) -> int:
        """How many inputs a target got, each in a place of its own in memory."""
        return sum(owner == side for owner, _ in self._seen)

    def of(self, side: str) -> list[Call]:
        return [call for call in self.calls if call.side == side]

    @property
    def turns(self) -> int:
        """How often the other one's turn came."""
        return sum(one.side != other.side for one, other in pairwise(self.calls))


class _Model(torch.nn.Module):
    """PyTorch's side. Like every module it begins in training mode."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
        call = Call("PyTorch", threads, x.data_ptr(), self.training, gradients)
        self._machine.pass_time(self, call, x, work=TRUTH)
        return x


class _Session:
    """ONNX Runtime's side, called like an InferenceSession."""

    def __init__(self, machine: Machine, threads: int) -> None:
        self._machine, self._threads = machine, threads or CORES

    def run(self, names: object, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        (array,) = feeds.values()
        if not isinstance(array, np.ndarray):
            raise TypeError(f"session.run takes NumPy arrays, and got a {type(array).__name__}")
        call = Call("ONNX Runtime", self._threads, array.__array_interface__["data"][0])
        self._machine.pass_time(self, call, array, work=1.0)
        return [array]


def run(benchmark: Benchmark, first: bool = True, drift: bool = True) -> tuple[Any, Machine]:
    """What a benchmark says on a new machine, and the machine."""
    machine = Machine(first, drift)
    with _torch_as_it_was():
        said = benchmark(machine.model, machine.open_session, machine.x, machine.clock)
    return said, machine


@contextmanager
def _torch_as_it_was() -> Iterator[None]:
    """With gradients on, as a notebook has them; torch's threads are put back."""
    threads = torch.get_num_threads()
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(threads)
