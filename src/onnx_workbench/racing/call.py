"""A model or a function as a contestant: called as it is, and put back as it was."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ..contestant import Prepared
from ..errors import InputError

if TYPE_CHECKING:
    import torch

PLAIN = "call: tensors in, tensors out, under torch.inference_mode"


@dataclass(frozen=True)
class Call:
    """``fn(*args, **kwargs)`` with so many threads, in eval mode, under ``torch.inference_mode``.

    Only where torch is loaded: a function without tensors does not load it.
    """

    fn: Callable[..., object]
    args: tuple = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    timed: str = PLAIN

    def __call__(self) -> Prepared:
        stack = ExitStack()
        run: Callable[[], object] = partial(self.fn, *self.args, **self.kwargs)
        torch = sys.modules.get("torch")
        if torch is None:
            return Prepared(run, "call")
        granted = stack.enter_context(thread_budget(self.threads))
        stack.enter_context(_evaluating(self.fn))
        stack.enter_context(torch.inference_mode())
        if any(device.type == "cuda" for device in _devices(self.args, self.kwargs)):
            run = partial(_synchronised, run)  # a call on a GPU returns before the work is done
            timed = f"{self.timed}, on the GPU, synchronised"
            return Prepared(run, timed, granted, close=stack.close)
        return Prepared(run, self.timed, granted, close=stack.close)


def compiled(model: Callable[..., object], **options: Any) -> Made:
    """A model as ``torch.compile`` makes it: compiled anew in each process that races it.

    Args:
        options: those of ``torch.compile``.

    >>> compiled(abs, dynamic=True)
    compiled(abs, dynamic=True)
    """
    name = getattr(model, "__name__", type(model).__name__)
    said = [f"{key}={value!r}" for key, value in options.items()]
    timed = f"{PLAIN}, of torch.compile({', '.join(['model', *said])})"
    words = f"compiled({', '.join([name, *said])})"
    return Made(model, partial(_compiled, options, timed), words)


def placed(model: torch.nn.Module, device: str = "cuda") -> Made:
    """A model on a device: it and its inputs are there before anything is timed, and a call is
    over when the device is done. Where there is no such device, the race says so and goes on.

    >>> import torch
    >>> placed(torch.nn.ReLU(), "cuda:1")
    ReLU on cuda:1
    """
    return Made(model, partial(_placed, device), f"{type(model).__name__} on {device}")


@dataclass(frozen=True)
class Made:
    """A model, and the Call that is made of it in each process that races it."""

    model: Any
    make: Callable[[Any, tuple, dict[str, Any], int], Call]
    words: str

    def __call__(self, *args: Any, **kwargs: Any) -> object:
        call = self.make(self.model, args, kwargs, 1)
        return call.fn(*call.args, **call.kwargs)

    def entry(self, args: tuple, kwargs: dict, threads: int = 1) -> Callable[[], Prepared]:
        return partial(_prepared, self, args, kwargs, threads)

    def __repr__(self) -> str:
        return self.words


def _prepared(made: Made, args: tuple, kwargs: dict, threads: int) -> Prepared:
    return made.make(made.model, args, kwargs, threads)()


def _compiled(
    options: dict, timed: str, model: Any, args: tuple, kwargs: dict, threads: int
) -> Call:
    import torch

    with _evaluating(model):
        return Call(torch.compile(model, **options), args, kwargs, threads, timed)


def _placed(device: str, model: Any, args: tuple, kwargs: dict, threads: int) -> Call:
    import torch
    from torch.utils._pytree import tree_map_only

    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"torch {torch.__version__} finds no CUDA device.",
            "a PyTorch with CUDA where there is one, or a race without this contestant.",
        )
    args, kwargs = tree_map_only(torch.Tensor, lambda x: x.to(device), (args, kwargs))
    return Call(copy.deepcopy(model).to(device), args, kwargs, threads)


def _synchronised(run: Callable[[], object]) -> None:
    import torch

    run()
    torch.cuda.synchronize()


def _devices(*arguments: Any) -> Iterator[torch.device]:
    import torch
    from torch.utils._pytree import tree_leaves

    return (x.device for x in tree_leaves(arguments) if isinstance(x, torch.Tensor))


@contextmanager
def thread_budget(wanted: int) -> Iterator[int]:
    """torch's intra-op threads for a while; gives what torch says it got, and puts it back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def _evaluating(fn: object) -> Iterator[None]:
    """A model in eval mode for a while; each part is put back as it was."""
    import torch

    parts = list(fn.modules()) if isinstance(fn, torch.nn.Module) else []
    before = [(part, part.training) for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in before:
            part.training = training
