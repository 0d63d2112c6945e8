"""Plain numbers as matplotlib Axes: callers know what they mean, this module how they look."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

import numpy as np

from . import formatting
from .stack import needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A kernel does not know the theme of the page. So a figure has no background; its colors have a
# contrast of 3:1 or more both on white and on JupyterLab's dark #111111, its words of nearly 4:1.
# These are four of the eight colors of Okabe and Ito, "Color Universal Design" (2002, revised 2008,
# https://jfly.uni-koeln.de/color/). Gray comes first: the target that others are compared with.
PALETTE = ("#666666", "#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = "osD^vPX*"  # never color alone
INK, _FAINT = "#767676", "#76767640"
# On one lightness of tick labels, Lab would put a white card behind a figure without background.
_TICKS: dict[Literal["x", "y"], str] = {"x": INK, "y": "#828282"}
_STYLE: Any = {
    **{"figure.facecolor": "none", "axes.facecolor": "none", "axes.edgecolor": INK},
    **{"text.color": INK, "axes.labelcolor": INK, "axes.titleweight": "bold"},
    **{"hatch.linewidth": 0.6, "grid.color": _FAINT, "grid.linewidth": 0.8},
}
_HATCHES = ("", "", "///", "...")
_WIDTH = 7.2  # inches; a notebook's column at matplotlib's 100 dpi
_LINE = 80  # characters of a title that fit, minus those left of the axes
_LINES = 6  # the most lines of a title
_WIDE = 8.0  # ratio of slowest to fastest above which a linear axis hides the fast ones


P = ParamSpec("P")


def _styled(draw: Callable[P, Axes]) -> Callable[P, Axes]:
    """In the style of this module, for this plot alone."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> Axes:
        with needs("A plot", "plot"):
            import matplotlib

        with matplotlib.rc_context(_STYLE):
            ax = draw(*args, **options)
            on = matplotlib.is_interactive()  # Jupyter's backend turns it on with the first figure
        matplotlib.interactive(on)
        return ax

    return drawn


@_styled
def blocks(
    times: Mapping[str, Sequence[float]], words: Mapping[str, str] | None = None, **frame: Any
) -> Axes:
    """Every measurement as a dot, one row per target, with median and quartiles.

    Args:
        times: name -> seconds per call, one for each block.
        words: name -> what stands beside its median, at the right.
        frame: ``title``, the finding; ``note``, small print below; ``ax``, where to draw.

    >>> ax = blocks({"eager": [4e-3, 5e-3], "fast": [2e-3, 3e-3]}, title="fast is faster")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['eager', 'fast']
    """
    names = _wrapped(times)
    ax = _axes(1.5 + 0.42 * len(times), names, **frame)
    jitter = np.random.default_rng(0)
    for row, (name, values) in enumerate(times.items()):
        color, marker = _look(row)
        spread = row + jitter.uniform(-0.28, 0.28, len(values))
        ax.plot(values, spread, ".", color=color, alpha=0.35, markersize=4, markeredgewidth=0)
        low, median, high = _quartiles(values)
        ax.fill_betweenx([row - 0.34, row + 0.34], low, high, color=color, alpha=0.25)
        _dot(ax, median, row, color, marker, label=name)
        _at_right(ax, row, formatting.seconds(float(median)), (words or {}).get(name, ""))
    _rows(ax, names, -0.5)
    _quantity_axis(ax, "x", times.values())
    ax.set_xlabel("time per call: every block, quartiles and median")
    return ax


@_styled
def ratios(
    intervals: Mapping[str, tuple[float, float, float]], matters: float = 0.03, **frame: Any
) -> Axes:
    """How many times as fast as the baseline, with its interval: a forest plot.

    Args:
        intervals: name -> lower end, estimate, upper end; above 1 is faster.
        matters: the smallest difference that counts, as a fraction; a band around 1.
        title, note, ax: as for :func:`blocks`.

    >>> ax = ratios({"fast": (1.31, 1.38, 1.44)}, title="fast is faster")
    >>> ax.get_xscale(), [label.get_text() for label in ax.get_yticklabels()]
    ('log', ['fast'])
    """
    names = _wrapped(intervals)
    ax = _axes(1.5 + 0.42 * len(intervals), names, **frame)
    ax.axvspan(1 / (1 + matters), 1 + matters, color=_FAINT, linewidth=0, zorder=0)
    ax.axvline(1, color=INK, linewidth=1)
    for row, (low, middle, high) in enumerate(intervals.values()):
        color, marker = _look(row + 1)  # the first is the baseline's, which is the line at 1
        ax.plot([low, high], [row, row], color=color, linewidth=2.4, solid_capstyle="butt")
        _dot(ax, middle, row, color, marker)
        _at_right(ax, row, f"{middle:.2f}x", f"{low:.2f} to {high:.2f}")
    _rows(ax, names, -0.5)
    ends = [1.0, *(end for interval in intervals.values() for end in interval)]
    low, spread = min(ends), max(ends) / min(ends)
    _log_axis(ax, "x", spread, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 7) if spread < 3 else ())
    room = 1.1 * max(1.0, spread**0.05)
    ax.set_xlim(low / room, low * spread * room)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    ax.set_xlabel(f"times as fast, with interval; gray: within {100 * matters:g} %")
    return ax


@_styled
def sweep(
    rates: Mapping[str, Mapping[int, Sequence[float]]],
    crossovers: Mapping[str, float] | None = None,
    hollow: Collection[int] = (),
    ideal: bool = False,
    over: str = "batch",
    per: str = "calls a second",
    **frame: Any,
) -> Axes:
    """Median rate over a size, with a band from quartile to quartile.

    Args:
        rates: name -> size -> rates in 1/s, one for each block.
        crossovers: name -> the size at which it overtakes the first target, or falls behind it.
        hollow: sizes at which cores were contended, drawn hollow.
        ideal: draw proportional growth from the first point of each curve.
        over, per: names of the sizes and of the rates.
        title, note, ax: as for :func:`blocks`.

    >>> ax = sweep({"eager": {1: [4e3, 5e3], 16: [9e3, 9e3]}}, title="alone")
    >>> ax.get_xscale(), ax.get_yscale(), ax.get_xlabel()
    ('log', 'log', 'batch')
    """
    ax = _axes(4.3, **frame)
    for index, (name, curve) in enumerate(rates.items()):
        color, marker = _look(index)
        sizes = sorted(curve)
        low, median, high = np.transpose([_quartiles(curve[size]) for size in sizes])
        ax.fill_between(sizes, low, high, color=color, alpha=0.18, linewidth=0)
        look: Any = {"color": color, "marker": marker, "markersize": 6}
        filled = [at for at, size in enumerate(sizes) if size not in hollow]
        label = textwrap.fill(name, 28)
        ax.plot(sizes, median, linewidth=1.8, markevery=filled, label=label, **look)
        for at in [at for at, size in enumerate(sizes) if size in hollow]:
            ax.plot(sizes[at], median[at], markerfacecolor="none", **look)
        if ideal:
            line = median[0] * np.asarray(sizes) / sizes[0]
            ax.plot(sizes, line, "--", color=color, linewidth=0.9, alpha=0.6)
        if place := (crossovers or {}).get(name):
            words = f"crossover at about {formatting.about(place)}"
            ax.axvline(place, color=color, linestyle=":", linewidth=1.2, label=words)
    ax.set_xscale("log")
    _size_ticks(ax, sorted({size for curve in rates.values() for size in curve}))
    _quantity_axis(ax, "y", [row for curve in rates.values() for row in curve.values()], "", True)
    hints = "; dashed: as many times as fast" * ideal + "; hollow: contended" * bool(hollow)
    ax.set_xlabel(over + hints)
    ax.set_ylabel(f"{per}, median and quartiles")
    _legend(ax, loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0)
    return ax


@_styled
def stacked(
    parts: Mapping[str, Mapping[str, float]],
    over: str = "time from the start of the process",
    **frame: Any,
) -> Axes:
    """Parts of a time: one bar per target, its parts end to end.

    Args:
        parts: name -> part -> seconds, in order.
        over: the label of the seconds.
        title, note, ax: as for :func:`blocks`.

    >>> ax = stacked({"eager": {"load": 1.1, "first call": 0.01}}, title="loading dominates")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['eager']
    """
    rows = _wrapped(parts)
    ax = _axes(1.9 + 0.5 * len(parts), rows, **frame)
    names = list(dict.fromkeys(part for bar in parts.values() for part in bar))
    for row, bar in enumerate(parts.values()):
        begin = 0.0
        for name, width in bar.items():
            index = names.index(name) + 1
            look: Any = {
                "color": _look(index)[0],
                "hatch": _HATCHES[index % 4],
                "edgecolor": "#00000080",
            }
            ax.barh(row, width, 0.55, begin, linewidth=0.4, label=name, **look)
            begin += width
        _beside(ax, formatting.seconds(begin), (begin, row), (5, 0), va="center")
    _rows(ax, rows, -1.0)
    _quantity_axis(ax, "x", [[sum(bar.values())] for bar in parts.values()], log=False)
    ax.margins(x=0.12)
    ax.set_xlabel(over)
    _legend(ax, loc="upper right", ncols=len(names), borderpad=0)
    return ax


@_styled
def moves(times: Mapping[str, Mapping[str, float]], most: int = 24, **frame: Any) -> Axes:
    """The times of two targets, one row per source line, in the order of ``times``.

    Args:
        times: row -> target -> seconds; a row may lack a target.
        most: the most rows that are drawn; if there are more, the middle is left out and counted.
        title, note, ax: as for :func:`blocks`.

    >>> ax = moves({"model.py:3": {"eager": 4e-3, "fast": 2e-3}, "model.py:4": {"fast": 1e-3}})
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['model.py:3', 'model.py:4']
    """
    rows, half = list(times), most // 2
    if len(times) > most:
        gap = f"... {formatting.plural(len(times) - 2 * half, 'line')} between"
        rows = [*rows[:half], gap, *rows[-half:]]
    ax = _axes(1.7 + 0.26 * len(rows), rows, **frame)
    names = list(dict.fromkeys(name for pair in times.values() for name in pair))
    for at, row in enumerate(rows):
        pair = times.get(row, {})
        ax.plot(list(pair.values()), [at] * len(pair), color=_FAINT, linewidth=2.2, zorder=1)
        for name, seconds in pair.items():
            _dot(ax, seconds, at, *_look(names.index(name)), label=name)
    _rows(ax, rows, -1.4, fontsize=8, family="monospace")
    _quantity_axis(ax, "x", [list(pair.values()) for pair in times.values()])
    ax.set_xlabel("time per run")
    _legend(ax, loc="upper right", ncols=len(names), borderpad=0)
    return ax


@_styled
def growth(
    errors: Sequence[float], tolerances: Sequence[float], marked: Mapping[int, str], **frame: Any
) -> Axes:
    """Relative errors in the order of the graph, logarithmic, with the tolerance as a line.

    Args:
        errors, tolerances: one for each value; 0 and infinity are drawn at the edges.
        marked: index -> a label, for the values that the finding is about.
        title, note, ax: as for :func:`blocks`.

    >>> ax = growth([0.0, 1e-7, 1e-2], [1e-4] * 3, {2: "model.py:12"})
    >>> ax.get_yscale(), ax.get_legend_handles_labels()[1]
    ('log', ['error', 'tolerance', 'model.py:12'])
    """
    ax = _axes(3.6, **frame)
    drawn = [value for value in (*errors, *tolerances) if 0 < value < np.inf] or [1e-9, 1.0]
    low, high = 10 ** np.floor(np.log10(min(drawn)) - 1), 10 ** np.ceil(np.log10(max(drawn)))
    shown, limit = np.clip(errors, low, high), np.clip(tolerances, low, high)
    ax.plot(shown, ".-", color=PALETTE[1], linewidth=0.8, markersize=4, label="error")
    ax.step(
        range(len(limit)), limit, "--", where="mid", color=INK, linewidth=1.2, label="tolerance"
    )
    for (index, word), marker in zip(marked.items(), cycle(MARKERS[1:])):
        look: Any = {"color": PALETTE[2], "markersize": 8, "linestyle": "none"}
        ax.plot(index, shown[index], marker, label=word, **look)
    ax.set_yscale("log")
    ax.set_ylim(low / 2, high * 3)
    ax.set_xlabel("value, in the order of the graph")
    ax.set_ylabel("relative error (0 at the bottom)")
    _legend(ax, loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0)
    return ax


@_styled
def live_bytes(values: Sequence[float], marked: Mapping[int, str], **frame: Any) -> Axes:
    """Bytes over the kernels of a run, in the order of execution.

    Args:
        values: bytes while each kernel runs.
        marked: number of a kernel, from 0 -> the words beside it.
        title, note, ax: as for :func:`blocks`.

    >>> ax = live_bytes([1e6, 3e6, 2e6], {1: "model.py:12"}, title="at most 3 MB")
    >>> ax.get_xlabel(), [text.get_text() for text in ax.texts]
    ('kernel, in the order of execution', ['model.py:12'])
    """
    ax = _axes(3.4, **frame)
    edges = np.arange(len(values) + 1) + 0.5  # a kernel is as wide as one, around its number
    ax.stairs(values, edges, fill=True, color=PALETTE[1], alpha=0.25)
    ax.stairs(values, edges, color=PALETTE[1], linewidth=1.4)
    for index, word in marked.items():
        side, shift = ("left", 8) if index < len(values) / 2 else ("right", -8)  # inward
        ax.plot(index + 1, values[index], MARKERS[1], color=PALETTE[2], markersize=8)
        place = (index + 1, values[index])
        _beside(ax, word, place, (shift, 6), color=PALETTE[2], ha=side)
    _quantity_axis(ax, "y", [[*values, 0.0]], "B", log=False)
    ax.set_ylim(0, 1.15 * max(values, default=0) or 1)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("kernel, in the order of execution")
    ax.set_ylabel("bytes")
    return ax


def _wrapped(names: Iterable[str]) -> list[str]:
    """Names on several lines, so that long ones leave room for the plot."""
    return [textwrap.fill(name, 28) for name in names]


def _axes(
    height: float,
    names: Sequence[str] = ("",),
    title: str = "",
    note: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Axes with a title, wrapped so that it fits beside the row names."""
    left = max([8, *(len(line) for name in names for line in name.splitlines())])
    lines: list[str] = []
    for sentence in title.splitlines():
        more = _balanced(sentence, _LINE - left)
        if lines and len(lines) + len(more) > _LINES:
            lines.append("... the rest is in the table")
            break
        lines += more
    if ax is None:
        from matplotlib import pyplot

        size = (_WIDTH, height + 0.2 * max(0, len(lines) - 1))
        ax = pyplot.subplots(figsize=size, layout="constrained")[1]
    ax.set_title("\n".join(lines), loc="left", fontsize=10.5, pad=10)
    ax.spines[["top", "right", "left"]].set_visible(False)
    for axis, color in _TICKS.items():
        ax.tick_params(axis, which="both", color=INK, labelcolor=color)
    ax.set_axisbelow(True)
    if note:
        small: Any = {"color": INK, "va": "top", "fontsize": 8}
        _beside(ax, note, (0, 0), (0, -38), xycoords="axes fraction", **small)
    return ax


def _balanced(sentence: str, width: int) -> list[str]:
    """In the fewest lines that fit, all about as long, so that no word is alone on the last.

    >>> _balanced("fast is 8.42x as fast as eager (95 % interval 8.30 to 8.54)", 54)
    ['fast is 8.42x as fast as eager', '(95 % interval 8.30 to 8.54)']
    """
    lines = textwrap.wrap(sentence, width)
    if len(lines) > _LINES:
        return textwrap.wrap(sentence, width, max_lines=_LINES, placeholder=" ...")
    longest = max(map(len, sentence.split()), default=1)
    narrower = (textwrap.wrap(sentence, least) for least in range(longest, width))
    return next((each for each in narrower if len(each) == len(lines)), lines)


def _look(index: int) -> tuple[str, str]:
    return PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]


def _quartiles(values: Sequence[float]) -> np.ndarray:
    return np.quantile(values, (0.25, 0.5, 0.75))


def _rows(ax: Axes, names: Sequence[str], top: float, **font: Any) -> None:
    """One row per name, from top to bottom; ``top`` leaves room for labels above the first."""
    ax.set_yticks(range(len(names)), names, **font)
    ax.set_ylim(len(names) - 0.5, top)
    ax.tick_params(axis="y", length=0)


def _quantity_axis(
    ax: Axes,
    side: Literal["x", "y"],
    rows: Iterable[Sequence[float]],
    unit: str = "s",
    log: bool | None = None,
) -> None:
    """Ticks with units; a logarithmic axis if a linear one would squeeze the fastest."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    values = np.concatenate([np.asarray(row) for row in rows])
    axis = ax.xaxis if side == "x" else ax.yaxis
    values = values[values > 0]  # a kernel may take less time than the profiler sees
    spread = values.max() / values.min() if len(values) else 1.0
    if spread > _WIDE if log is None else log:
        _log_axis(ax, side, spread)
    else:
        axis.set_major_locator(MaxNLocator(6))
    number = EngFormatter(unit=unit)
    axis.set_major_formatter(lambda value, _: number(value).replace("\N{MICRO SIGN}", "u"))
    ax.grid(axis=side)


def _log_axis(ax: Axes, side: str, spread: float, steps: Sequence[float] = ()) -> None:
    """A logarithmic axis, with fewer ticks per decade if there are more decades."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis, scale = (ax.xaxis, ax.set_xscale) if side == "x" else (ax.yaxis, ax.set_yscale)
    scale("log")
    steps = steps or ((1, 2, 3, 5, 7) if spread < 10 else (1, 2, 5) if spread < 1000 else (1,))
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_minor_locator(NullLocator())


def _size_ticks(ax: Axes, sizes: Sequence[int]) -> None:
    from matplotlib.ticker import NullLocator

    steps = np.diff(np.log(sizes), prepend=-np.inf) / max(np.log(sizes[-1] / sizes[0]), 1e-9)
    shown = [str(n) if step > 0.05 else "" for n, step in zip(sizes, steps, strict=True)]
    ax.set_xticks(sizes, shown)
    ax.xaxis.set_minor_locator(NullLocator())


def _dot(ax: Axes, x: float, y: float, color: str, marker: str, **options: Any) -> None:
    ax.plot(x, y, marker, color=color, markersize=7.5, **options)


def _at_right(ax: Axes, row: int, *words: str) -> None:
    """Words of a row in columns beside the axes, where nothing is drawn."""
    for column, word in enumerate(filter(None, words)):
        shift = (8 + 44 * column, 0)  # points
        _beside(ax, word, (1, row), shift, xycoords=("axes fraction", "data"), va="center")


def _beside(
    ax: Axes, words: str, at: tuple[float, float], shift: tuple[float, float], **options: Any
) -> None:
    ax.annotate(words, at, shift, **{"textcoords": "offset points", "fontsize": 9, **options})


def _legend(ax: Axes, **options: Any) -> None:
    handles, names = ax.get_legend_handles_labels()
    by_name = dict(zip(names, handles, strict=True))
    ax.legend(by_name.values(), by_name.keys(), frameon=False, fontsize=9, **options)
