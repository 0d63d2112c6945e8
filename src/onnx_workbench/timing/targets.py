"""Models and functions as targets of a race; models get their mode back."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from ..calls import PreparedCall
from ..errors import InputError

EAGER = "call: tensors in, tensors out, under torch.inference_mode"
Make: TypeAlias = Callable[[Any, tuple, dict], tuple[Any, tuple, dict]]


@dataclass(frozen=True)
class ModelCall:
    """``fn(*args, **kwargs)`` in eval mode, under ``torch.inference_mode``, with ``threads``.

    Args:
        make: replaces function, args and kwargs in the process that races, before they are timed.
    """

    fn: Any
    args: tuple = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    timed: str = EAGER
    make: Make | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """What a worker imports before the call arrives: torch, unless no tensor is involved."""
        import torch

        needs_torch = isinstance(self.fn, torch.nn.Module) or any(_devices(self.args, self.kwargs))
        return ("torch",) if needs_torch or self.make else ()

    def prepare(self) -> PreparedCall:
        torch = sys.modules.get("torch")
        if torch is None:
            return PreparedCall(partial(self.fn, *self.args, **self.kwargs), "call")
        from torch.utils._pytree import tree_map_only

        from ..torch_state import evaluating

        with ExitStack() as stack:
            granted = stack.enter_context(thread_budget(self.threads))
            stack.enter_context(evaluating(self.fn, warn=False))
            stack.enter_context(torch.inference_mode())
            tensors = self.args, dict(self.kwargs)  # copies: a model may write into its inputs
            fn, (args, kwargs) = self.fn, tree_map_only(torch.Tensor, torch.clone, tensors)
            if self.make:
                fn, args, kwargs = self.make(fn, args, kwargs)
            run: Callable[[], object] = partial(fn, *args, **kwargs)
            timed = self.timed
            if "cuda" in _devices(args, kwargs):
                run = partial(_synchronized, run)  # a call on a GPU returns before the work is done
                timed = f"{timed}, on the GPU, synchronized"
            return PreparedCall(run, timed, granted, close=stack.pop_all().close)


def compiled(model: Callable[..., object], **options: Any) -> Derived:
    """A model under ``torch.compile``: each process that races it compiles it.

    Args:
        options: those of ``torch.compile``.

    >>> compiled(abs, dynamic=True)
    compiled(abs, dynamic=True)
    """
    name = getattr(model, "__name__", type(model).__name__)
    keywords = [f"{key}={value!r}" for key, value in options.items()]
    timed = f"{EAGER}, of torch.compile({', '.join(['model', *keywords])})"
    words = f"compiled({', '.join([name, *keywords])})"
    return Derived(model, partial(_compile, options), words, timed)


def placed(model: Any, device: str = "cuda") -> Derived:
    """A model on a device. It and its inputs are moved there before anything is timed.

    A call ends when the device is done. If there is no such device, the race says so and goes on
    without this target.

    Raises:
        InputError: torch knows no such device.

    >>> import torch
    >>> placed(torch.nn.ReLU(), "cuda:1")
    ReLU on cuda:1
    """
    import torch

    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"torch knows no device {device!r:.80}.", "Pass one such as 'cpu', 'cuda' or 'cuda:1'."
        ) from error
    return Derived(model, partial(_place, device), f"{type(model).__name__} on {device}")


@dataclass(frozen=True)
class Derived:
    """A model that each process of a race turns into the target with ``make``."""

    model: Any
    make: Make
    words: str
    timed: str = EAGER

    def __call__(self, *args: Any, **kwargs: Any) -> object:
        fn, args, kwargs = self.make(self.model, args, kwargs)
        return fn(*args, **kwargs)

    def timed_call(self, args: tuple, kwargs: dict, threads: int = 1) -> ModelCall:
        return ModelCall(self.model, args, kwargs, threads, self.timed, self.make)

    def __repr__(self) -> str:
        return self.words


def timed_call_of(fn: Callable, args: tuple, kwargs: dict[str, Any], threads: int) -> Any:
    """The call that a worker receives: the target's own ``timed_call``, or a plain call.

    If ``timed_call`` raises, the error is raised again when the call is prepared, so that only this
    target fails.
    """
    import torch

    if isinstance(fn, torch.export.ExportedProgram):
        fn = fn.module()
    if isinstance(fn, torch.nn.Module) or not callable(make := getattr(fn, "timed_call", None)):
        return ModelCall(fn, args, kwargs, threads)
    try:
        return make(args, kwargs, threads)
    except Exception as error:
        return Refused(error)


@dataclass(frozen=True)
class Refused:
    """A target that cannot be called with these arguments."""

    error: Exception

    def prepare(self) -> PreparedCall:
        raise self.error


@contextmanager
def thread_budget(wanted: int) -> Iterator[int]:
    """Set torch's intra-op threads for a while, and yield the number that torch reports."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _compile(options: dict, model: Any, args: tuple, kwargs: dict) -> tuple[Any, tuple, dict]:
    import torch

    return torch.compile(model, **options), args, kwargs


def _place(device: str, model: Any, args: tuple, kwargs: dict) -> tuple[Any, tuple, dict]:
    import torch
    from torch.utils._pytree import tree_map_only

    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"torch {torch.__version__} finds no CUDA device.",
            "Install a PyTorch with CUDA, or race without this target.",
        )
    args, kwargs = tree_map_only(torch.Tensor, lambda x: x.to(device), (args, kwargs))
    return copy.deepcopy(model).to(device), args, kwargs


def _synchronized(run: Callable[[], object]) -> None:
    import torch

    run()
    torch.cuda.synchronize()


def _devices(*arguments: Any) -> set[str]:
    """The device types of the tensors in the arguments."""
    import torch
    from torch.utils._pytree import tree_leaves

    return {x.device.type for x in tree_leaves(arguments) if isinstance(x, torch.Tensor)}
