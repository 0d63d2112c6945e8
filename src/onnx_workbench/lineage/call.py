"""What one call of a model adds to its lineage: kernels, their time, and the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

from ..proto import grouped
from ..runs.profiler import Kernel, Recording
from ..runs.summary import Summary
from .attribution import Share
from .kernels import Match


@dataclass(frozen=True, repr=False, eq=False)
class CallData:
    """``recording`` has the kernels, ``matches`` the exported nodes of each, ``shares`` its lines.

    ``values`` are those of the ONNX graph, by name. ``flame`` has the time as a tree, by stack and
    by module.
    """

    recording: Recording
    matches: Mapping[str, Match]
    shares: Mapping[str, tuple[Share, ...]]
    values: Mapping[str, Summary] = field(default_factory=dict)
    flame: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Kernel -> seconds a run."""
        return {k.name: self.recording.typical(k.seconds) for k in self.recording.kernels}

    @cached_property
    def spent(self) -> list[tuple[Share, float]]:
        """Each share of a kernel, in the order of execution, with its seconds a run."""
        shares = chain.from_iterable(self.shares.values())
        return [(share, share.fraction * self.seconds[share.kernel]) for share in shares]

    @cached_property
    def kernels(self) -> dict[str, Kernel]:
        """The kernels by name."""
        return {kernel.name: kernel for kernel in self.recording.kernels}

    @cached_property
    def by_node(self) -> dict[str, list[str]]:
        """Exported node -> the kernels that run it."""
        return grouped((node, kernel) for kernel, m in self.matches.items() for node in m.nodes)
