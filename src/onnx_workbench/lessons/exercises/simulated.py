"""A simulated machine, on which the true ratio of two targets is known.

Time passes only when a target is called, by chosen amounts. Any other difference comes from the
benchmark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

TRUTH = 1.25
"""How many times as fast the session is as the model, under equal conditions."""
SIDES = PYTORCH, ORT = "PyTorch", "ONNX Runtime"
CORES = 4
TRAINING, GRADIENTS = 1.3, 1.1  # factors
FIRST = {PYTORCH: 200.0, ORT: 20.0}  # extra seconds of the first call
COPY = 0.5
DRIFT = 0.002  # the fraction by which the machine slows down with each call

Benchmark = Callable[[torch.nn.Module, Callable[..., Any], torch.Tensor, Callable[[], float]], Any]


@dataclass(frozen=True, eq=False)
class TimedCall:
    """One call of a target: ``pointer`` is the address of its input."""

    side: str
    threads: int
    pointer: int
    training: bool = False
    gradients: bool = False


class Machine:
    """The arguments of a benchmark: a ``model``, ``open_session``, an input ``x`` and a ``clock``.

    ``calls`` are the calls that it made, ``reads`` how often it read the clock. With ``first``,
    first calls take longer; with ``drift``, the machine slows down from call to call. The session
    is ``truth`` times as fast as the model.

    >>> machine = Machine()
    >>> session = machine.open_session(threads=1)
    >>> session.run(None, {"x": machine.x.numpy()})[0].shape
    (1, 8)
    >>> machine.calls[0].side, machine.reads
    ('ONNX Runtime', 0)
    """

    def __init__(self, first: bool = True, drift: bool = True, truth: float = TRUTH) -> None:
        self.calls: list[TimedCall] = []
        self.reads = 0
        self.model = _Model(self)
        self.x = torch.ones(1, 8)
        self.first, self.drift, self.truth, self.now = first, drift, truth, 0.0
        self.inputs: dict[str, dict[int, object]] = {side: {} for side in SIDES}
        """By pointer; kept alive, so that no pointer is reused."""
        self._warm: set[object] = set()

    def clock(self) -> float:
        self.reads += 1
        return self.now

    def open_session(self, threads: int = CORES) -> _Session:
        return _Session(self, threads or CORES)

    def spend(self, target: object, call: TimedCall, value: object, work: float) -> None:
        """Advance the clock by the time of one call."""
        seconds = work / call.threads
        seconds *= (TRAINING if call.training else 1) * (GRADIENTS if call.gradients else 1)
        inputs = self.inputs[call.side]
        if inputs and call.pointer not in inputs:
            seconds += COPY
        inputs.setdefault(call.pointer, value)
        if self.first and target not in self._warm:
            seconds += FIRST[call.side]
        if self.drift:
            seconds *= 1 + DRIFT * len(self.calls)
        self._warm.add(target)
        self.now += seconds
        self.calls.append(call)

    def of(self, side: str) -> list[TimedCall]:
        return [call for call in self.calls if call.side == side]

    @property
    def turns(self) -> int:
        """How often the benchmark switched from one side to the other."""
        return sum(one.side != other.side for one, other in pairwise(self.calls))


class _Model(torch.nn.Module):
    """PyTorch's side. Like every module, it starts in training mode."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.training, torch.is_grad_enabled()
        call = TimedCall(PYTORCH, torch.get_num_threads(), x.data_ptr(), *state)
        self._machine.spend(self, call, x, work=self._machine.truth)
        return x


@dataclass(frozen=True, eq=False)
class _Session:
    """ONNX Runtime's side, called like an InferenceSession."""

    machine: Machine
    threads: int

    def run(self, names: object, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        (array,) = feeds.values()
        if not isinstance(array, np.ndarray):
            raise TypeError(f"session.run takes NumPy arrays, but got a {type(array).__name__}")
        call = TimedCall(ORT, self.threads, array.__array_interface__["data"][0])
        self.machine.spend(self, call, array, work=1.0)
        return [array]


def run(
    benchmark: Benchmark, first: bool = True, drift: bool = True, truth: float = TRUTH
) -> tuple[Any, Machine]:
    """Run a benchmark on a new machine; return its result and the machine.

    Gradients are on, as in a notebook, and torch's number of threads is restored.
    """
    machine, threads = Machine(first, drift, truth), torch.get_num_threads()
    try:
        with torch.enable_grad():
            return benchmark(machine.model, machine.open_session, machine.x, machine.clock), machine
    finally:
        torch.set_num_threads(threads)
