"""What a run holds in memory, and which lines hold it at the peak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from .. import formatting, plots
from ..formatting import Code, Part, Percent, Report, Table
from ..runs.liveness import Footprint
from ..source import Line

_SHOWN = 20
"""Lines that the repr shows."""


@dataclass(frozen=True, repr=False, eq=False)
class Memory(Report):
    """The activations of one run of the file ``name``, in bytes.

    ``lines`` has the line that each kernel's result belongs to, None where it is not known,
    ``operators`` the kernels' operators. A buffer that several values share counts once.
    """

    name: str
    footprint: Footprint
    lines: Mapping[str, Line | None]
    operators: Mapping[str, str]

    @property
    def live(self) -> tuple[int, ...]:
        """Bytes of activations in memory while each kernel runs, in the order of execution."""
        return self.footprint.live

    @property
    def weights(self) -> int:
        """Bytes of the initializers of the optimized graph; they are there in every run."""
        return self.footprint.weights

    @property
    def peak(self) -> int:
        """The most bytes of activations at once."""
        return max(self.live, default=0)

    @property
    def step(self) -> int:
        """The number of the kernel that runs at the peak, from 0 in the order of execution."""
        return self.live.index(self.peak) if self.live else 0

    @property
    def line(self) -> Line | None:
        """The line whose kernel runs at the peak."""
        return self.lines.get(self.footprint.kernels[self.step]) if self.live else None

    @cached_property
    def held(self) -> dict[Line | None, int]:
        """Line -> bytes of its results that are in memory at the peak, the most first."""
        found: dict[Line | None, int] = {}
        for kernel, size in self.footprint.held(self.step):
            if kernel:
                line = self.lines.get(kernel)
                found[line] = found.get(line, 0) + size
        order = sorted(found, key=lambda line: -found[line])
        return {line: found[line] for line in order if found[line]}

    @cached_property
    def reserved(self) -> int:
        """Bytes at the peak that hold nothing: buffers that ONNX Runtime keeps for a later result
        of the same shape."""
        return sum(size for kernel, size in self.footprint.held(self.step) if not kernel)

    def plot(self, ax: plots.Axes | None = None) -> plots.Axes:
        """Live bytes over the run as steps, with the peak marked."""
        title = f"At most {formatting.size(self.peak)} of activations are live, at {self._place()}"
        note = f"weights: {formatting.size(self.weights)} more\nleft out: {self._missing()}"
        peak = {self.step: self._place()} if self.live else {}
        return plots.live_bytes(self.live, peak, title=title, note=note, ax=ax)

    def _parts(self) -> Iterator[Part]:
        yield self._headline()
        size, total = formatting.size, self.peak or 1
        rows = [
            (size(held), Percent(held / total), *_words(line))
            for line, held in [*self.held.items()][:_SHOWN]
        ]
        rest = len(self.held) - len(rows)
        if self.reserved:
            share = Percent(self.reserved / total)
            rows.append((size(self.reserved), share, "", "kept for later results"))
        if rows:
            yield Table(rows, ("at the peak", "share", "line", "source"), right=(0, 1))
        if rest > 0:
            yield f"and {formatting.plural(rest, 'more line')}: see .held"
        yield self._notes()

    def _headline(self) -> str:
        if not self.live:
            return f"{self.name}: no kernel ran"
        operator = self.operators.get(self.footprint.kernels[self.step], "")
        return (
            f"{self.name}: {formatting.size(self.peak)} of activations at the peak, in kernel "
            f"{self.step + 1} of {len(self.live)} ({operator}), {self._place()}"
        )

    def _place(self) -> str:
        if self.line:
            return self.line.place
        return f"{self.footprint.kernels[self.step]} (no line)" if self.live else "no kernel"

    def _missing(self) -> str:
        return ", ".join(("the caller's inputs", *self.footprint.missing))

    def _notes(self) -> Table:
        weights = f"{formatting.size(self.weights)} in the optimized graph"
        rows = [("weights", f"{weights}; a kernel that packs some keeps a copy")]
        if arena := self.footprint.arena:
            more = "scratch memory and partly used blocks included"
            rows.append(
                ("arena", f"{formatting.size(arena)} at most by ONNX Runtime's count, {more}")
            )
        return Table([*rows, ("left out", self._missing())])


def _words(line: Line | None) -> tuple[str, str]:
    return (line.place, Code(line.text)) if line else ("no line", "")
