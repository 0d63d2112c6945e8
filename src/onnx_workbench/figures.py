"""Plain numbers as matplotlib Axes: what they mean is decided upstairs, how they look is here."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Five of the eight colours of Okabe and Ito, "Color Universal Design" (2002, revised 2008,
# https://jfly.uni-koeln.de/color/): those with a contrast of 3:1 on white or more. Black comes
# first: it is the contestant that the others are compared to.
PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = "osD^vPX*"  # never colour alone
_GREY = "#5A5A5A"
_WIDTH = 7.2  # inches; a notebook's column at matplotlib's 100 dpi
_LINE = 86  # letters of a title that fit into it, less what stands left of the axes
_LINES = 6  # of a title
_HATCHES = ("", "", "///", "...")
_WIDE = 8.0  # from this ratio of slowest to fastest on, a linear axis hides the fast ones


def blocks(
    times: Mapping[str, Sequence[float]], title: str = "", note: str = "", ax: Axes | None = None
) -> Axes:
    """Every measurement as a dot, one row a contestant, with its median and quartiles.

    Args:
        times: name -> seconds per call, one for each block.
        title: the finding.
        note: small print under the plot.
        ax: where to draw; a new figure without it.

    >>> ax = blocks({"eager": [4e-3, 5e-3], "fast": [2e-3, 3e-3]}, title="fast is faster")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['eager', 'fast']
    """
    names = _wrapped(times)
    ax = _axes(ax, 1.5 + 0.62 * len(times), title, names)
    jitter = np.random.default_rng(0)
    for row, (name, values) in enumerate(times.items()):
        color, marker = _look(row)
        spread = row + jitter.uniform(-0.22, 0.22, len(values))
        ax.plot(values, spread, ".", color=color, alpha=0.35, markersize=4, markeredgewidth=0)
        low, median, high = _quartiles(values)
        ax.fill_betweenx([row - 0.27, row + 0.27], low, high, color=color, alpha=0.2)
        ax.plot(
            median, row, marker, color=color, markersize=7.5, markeredgecolor="white", label=name
        )
        _label(ax, (median, row - 0.38), text.seconds(float(median)), color)
    ax.set_yticks(range(len(times)), names)
    ax.set_ylim(len(times) - 0.5, -0.62)
    ax.tick_params(axis="y", length=0)
    _quantity_axis(ax, "x", times.values())
    ax.set_xlabel("time per call: every block, quartiles and median")
    return _finish(ax, note)


def ratios(
    intervals: Mapping[str, tuple[float, float, float]],
    matters: float = 0.03,
    title: str = "",
    note: str = "",
    ax: Axes | None = None,
) -> Axes:
    """How many times as fast as the baseline, with its interval: a forest plot.

    Args:
        intervals: name -> lower end, estimate, upper end; above 1 is faster.
        matters: the least difference that counts, as a fraction; a band around 1.
        title: the finding.
        note: small print under the plot.
        ax: where to draw; a new figure without it.

    >>> ax = ratios({"fast": (1.31, 1.38, 1.44)}, title="fast is faster")
    >>> ax.get_xscale(), [label.get_text() for label in ax.get_yticklabels()]
    ('log', ['fast'])
    """
    names = _wrapped(intervals)
    ax = _axes(ax, 1.6 + 0.5 * len(intervals), title, names)
    ax.axvspan(1 / (1 + matters), 1 + matters, color="#E4E4E4", zorder=0)
    ax.axvline(1, color=_GREY, linewidth=1)
    for row, (low, middle, high) in enumerate(intervals.values()):
        color, marker = _look(row + 1)  # the first look is the baseline's, which is the line at 1
        ax.plot([low, high], [row, row], color=color, linewidth=2.4, solid_capstyle="butt")
        ax.plot(middle, row, marker, color=color, markersize=7.5, markeredgecolor="white")
        words = f"{middle:.2f}x ({low:.2f} to {high:.2f})"
        _label(ax, (middle, row - 0.3), words, color)
    ax.set_yticks(range(len(intervals)), names)
    ax.set_ylim(len(intervals) - 0.5, -0.7)
    ax.tick_params(axis="y", length=0)
    _ratio_axis(ax, [1.0, *(end for interval in intervals.values() for end in interval)])
    ax.set_xlabel(f"times as fast, with interval; grey: within {100 * matters:g} %")
    return _finish(ax, note)


def sweep(
    rates: Mapping[str, Mapping[int, Sequence[float]]],
    crossovers: Mapping[str, float] | None = None,
    hollow: Collection[int] = (),
    ideal: bool = False,
    title: str = "",
    note: str = "",
    ax: Axes | None = None,
    over: str = "batch",
    per: str = "calls a second",
) -> Axes:
    """Median rate over a size, with a band from quartile to quartile.

    Args:
        rates: name -> size -> rates in 1/s, one for each block.
        crossovers: name -> the size at which it and the first change places, which is marked.
        hollow: sizes at which cores were contended.
        ideal: draw what growing with the size would be, from each first point on.
        title: the finding.
        note: small print under the plot.
        ax: where to draw; a new figure without it.
        over, per: what the sizes and the rates are.

    >>> ax = sweep({"eager": {1: [4e3, 5e3], 16: [9e3, 9e3]}}, title="alone")
    >>> ax.get_xscale(), ax.get_yscale(), ax.get_xlabel()
    ('log', 'log', 'batch')
    """
    ax = _axes(ax, 4.3, title)
    ends = {}
    for index, (name, curve) in enumerate(rates.items()):
        color, marker = _look(index)
        sizes = sorted(curve)
        low, median, high = np.transpose([_quartiles(curve[size]) for size in sizes])
        ax.fill_between(sizes, low, high, color=color, alpha=0.18, linewidth=0)
        look: Any = {"color": color, "marker": marker, "markersize": 6}
        ax.plot(sizes, median, linewidth=1.8, label=name, **look)
        for at in [at for at, size in enumerate(sizes) if size in hollow]:
            ax.plot(sizes[at], median[at], markerfacecolor="white", **look)
        if ideal:
            line = median[0] * np.asarray(sizes) / sizes[0]
            ax.plot(sizes, line, "--", color=color, linewidth=0.9, alpha=0.6)
        ends[name] = (sizes[-1], float(median[-1]), color)
    ax.set_xscale("log")
    _size_ticks(ax, sorted({size for curve in rates.values() for size in curve}))
    _quantity_axis(ax, "y", [row for curve in rates.values() for row in curve.values()], "", True)
    ax.set_xlabel(
        over + "; dashed: as many times as fast" * ideal + "; hollow: contended" * bool(hollow)
    )
    ax.set_ylabel(f"{per}, median and quartiles")
    _label_ends(ax, ends)
    _mark_crossovers(ax, {list(rates).index(name): at for name, at in (crossovers or {}).items()})
    return _finish(ax, note)


def stacked(
    parts: Mapping[str, Mapping[str, float]],
    title: str = "",
    note: str = "",
    ax: Axes | None = None,
    over: str = "time from the start of the process",
) -> Axes:
    """Where the time goes until the work is done: one bar a contestant, its parts end to end.

    Args:
        parts: name -> part -> seconds, in the order in which they pass.
        title: the finding.
        note: small print under the plot.
        ax: where to draw; a new figure without it.
        over: what the seconds are.

    >>> ax = stacked({"eager": {"load": 1.1, "first call": 0.01}}, title="loading is what costs")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['eager']
    """
    rows = _wrapped(parts)
    ax = _axes(ax, 1.9 + 0.5 * len(parts), title, rows)
    names = list(dict.fromkeys(part for bar in parts.values() for part in bar))
    for row, bar in enumerate(parts.values()):
        begin = 0.0
        for name, width in bar.items():
            index = names.index(name) + 1
            ax.barh(
                row,
                width,
                0.55,
                begin,
                color=_look(index)[0],
                hatch=_HATCHES[index % 4],
                edgecolor="white",
                linewidth=0.8,
                label="" if row else name,
            )
            begin += width
        ax.annotate(
            text.seconds(begin),
            (begin, row),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    ax.set_yticks(range(len(parts)), rows)
    ax.set_ylim(len(parts) - 0.5, -1.0)  # the names of the parts stand in a row of their own
    ax.tick_params(axis="y", length=0)
    _quantity_axis(ax, "x", [[sum(bar.values())] for bar in parts.values()], log=False)
    ax.margins(x=0.12)
    ax.set_xlabel(over)
    ax.legend(loc="upper right", ncols=len(names), frameon=False, fontsize=9, borderpad=0)
    return _finish(ax, note)


def moves(
    times: Mapping[str, Mapping[str, float]],
    title: str = "",
    note: str = "",
    ax: Axes | None = None,
    most: int = 24,
) -> Axes:
    """From one time to the other, one row a line of source, in the order of ``times``.

    Args:
        times: row -> contestant -> seconds; a row may lack a contestant.
        title: the finding.
        note: small print under the plot.
        ax: where to draw; a new figure without it.
        most: rows that are drawn; of more, those in the middle are left out and counted.

    >>> ax = moves({"model.py:3": {"eager": 4e-3, "fast": 2e-3}, "model.py:4": {"fast": 1e-3}})
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['model.py:3', 'model.py:4']
    """
    rows = _middle_cut(times, most)
    ax = _axes(ax, 1.7 + 0.26 * len(rows), title, list(rows))
    names = list(dict.fromkeys(name for pair in times.values() for name in pair))
    for at, pair in enumerate(rows.values()):
        ax.plot(list(pair.values()), [at] * len(pair), color="#B8B8B8", linewidth=2.2, zorder=1)
    for index, name in enumerate(names):
        color, marker = _look(index)
        dots = [(pair[name], at) for at, pair in enumerate(rows.values()) if name in pair]
        x, y = zip(*dots, strict=True) if dots else ((), ())
        ax.plot(x, y, marker, color=color, markersize=7, markeredgecolor="white", label=name)
    ax.set_yticks(range(len(rows)), list(rows), fontsize=8, family="monospace")
    ax.set_ylim(len(rows) - 0.4, -1.4)  # the names stand in a row of their own
    ax.tick_params(axis="y", length=0)
    _quantity_axis(ax, "x", [list(pair.values()) for pair in times.values()])
    ax.set_xlabel("time a run, median")
    ax.legend(loc="upper right", ncols=len(names), frameon=False, fontsize=9, borderpad=0)
    return _finish(ax, note)


def growth(
    errors: Sequence[float],
    tolerances: Sequence[float],
    marked: Mapping[int, str],
    title: str = "",
    note: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Relative errors in the order of the graph, logarithmic, with the tolerance as a line.

    Args:
        errors, tolerances: one each for every value; what is 0 or infinite stands at the edge.
        marked: index -> the word beside it, for the values that the finding is about.
        title: the finding.
        note: small print under the plot.
        ax: where to draw; a new figure without it.

    >>> ax = growth([0.0, 1e-7, 1e-2], [1e-4] * 3, {2: "model.py:12"})
    >>> ax.get_yscale(), [text.get_text() for text in ax.texts]
    ('log', ['model.py:12'])
    """
    ax = _axes(ax, 3.6, title)
    low, high = _edges([*errors, *tolerances])
    shown = np.clip(errors, low, high)
    ax.plot(shown, ".-", color=PALETTE[1], linewidth=0.8, markersize=4, label="error")
    ax.step(
        range(len(tolerances)),
        np.clip(tolerances, low, high),
        "--",
        where="mid",
        color=_GREY,
        linewidth=1.2,
        label="tolerance",
    )
    for index, word in marked.items():
        inward = index < len(errors) / 2  # away from the nearer edge, below the line
        ax.plot(index, shown[index], MARKERS[1], color=PALETTE[2], markersize=8)
        ax.annotate(
            word,
            (index, shown[index]),
            (8 if inward else -8, -13),
            textcoords="offset points",
            color=PALETTE[2],
            fontsize=9,
            ha="left" if inward else "right",
        )
    ax.set_yscale("log")
    ax.set_ylim(low / 2, high * 3)
    ax.set_xlabel("value, in the order of the graph")
    ax.set_ylabel("relative error (0 at the bottom)")
    ax.legend(frameon=False, fontsize=9)
    return _finish(ax, note)


def _edges(values: Sequence[float]) -> tuple[float, float]:
    """The decade below the smallest number above 0, and the one above the largest finite one."""
    drawn = [value for value in values if 0 < value < np.inf] or [1e-9, 1.0]
    return 10 ** np.floor(np.log10(min(drawn)) - 1), 10 ** np.ceil(np.log10(max(drawn)))


def _middle_cut(
    times: Mapping[str, Mapping[str, float]], most: int
) -> dict[str, Mapping[str, float]]:
    if len(times) <= most:
        return dict(times)
    names, half = list(times), most // 2
    gap = f"... {text.plural(len(times) - 2 * half, 'line')} between"
    return {n: times.get(n, {}) for n in [*names[:half], gap, *names[-half:]]}


def _wrapped(names: Iterable[str]) -> list[str]:
    """Names that leave the plot its room, however long they are."""
    return [textwrap.fill(name, 28) for name in names]


def _axes(ax: Axes | None, height: float, title: str, names: Sequence[str] = ("",)) -> Axes:
    """Axes with a title that fits beside the names on their left, and room for both."""
    left = max([8, *(len(line) for name in names for line in name.splitlines())])
    lines: list[str] = []
    for sentence in title.splitlines():
        more = textwrap.wrap(sentence, _LINE - left, max_lines=_LINES, placeholder=" ...")
        if lines and len(lines) + len(more) > _LINES:
            lines.append("... the rest is in the table")
            break
        lines += more
    if ax is None:
        from matplotlib import pyplot

        size = (_WIDTH, height + 0.2 * max(0, len(lines) - 1))
        ax = pyplot.subplots(figsize=size, layout="constrained")[1]
    ax.set_title("\n".join(lines), loc="left", fontsize=10.5, pad=10)
    return ax


def _look(index: int) -> tuple[str, str]:
    return PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]


def _quartiles(values: Sequence[float]) -> np.ndarray:
    return np.quantile(values, (0.25, 0.5, 0.75))


def _quantity_axis(
    ax: Axes,
    side: Literal["x", "y"],
    rows: Iterable[Sequence[float]],
    unit: str = "s",
    log: bool | None = None,
) -> None:
    """Ticks that carry their unit; logarithmic where the slowest would squeeze the fastest."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    axis = ax.xaxis if side == "x" else ax.yaxis
    values = np.concatenate([np.asarray(row) for row in rows])
    if values.max() > _WIDE * values.min() if log is None else log:
        (ax.set_xscale if side == "x" else ax.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=_steps(values.max() / values.min())))
        axis.set_minor_locator(NullLocator())
    in_words = EngFormatter(unit=unit)
    axis.set_major_formatter(lambda value, _: in_words(value).replace("\N{MICRO SIGN}", "u"))
    ax.grid(axis=side, color="#E4E4E4", linewidth=0.8)


def _steps(ratio: float) -> tuple[int, ...]:
    """Where a decade has ticks: fewer where more decades stand side by side."""
    return (1, 2, 3, 5, 7) if ratio < 10 else (1, 2, 5) if ratio < 1000 else (1,)


def _ratio_axis(ax: Axes, values: Sequence[float]) -> None:
    """Logarithmic, so that twice and half as fast stand equally far from 1."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = min(values), max(values)
    room = 1.25 * max(1.0, (high / low) ** 0.12)  # for the words above the outermost
    ax.set_xscale("log")
    ax.set_xlim(low / room, high * room)
    fine = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 7) if high / low < 3 else _steps(high / low)
    ax.xaxis.set_major_locator(LogLocator(subs=fine))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")


def _mark_crossovers(ax: Axes, sizes: Mapping[int, float]) -> None:
    """Where the line of so many an index crosses the first."""
    for index, size in sizes.items():
        color, (low, high) = _look(index)[0], ax.get_xlim()
        side = "left" if size < low * (high / low) ** 0.6 else "right"
        ax.axvline(size, color=color, linestyle=":", linewidth=1.2)
        ax.annotate(
            *(f"change of places at about {text.about(size)}", (size, 0.06 * index)),
            *((5 if side == "left" else -5, 0), ax.get_xaxis_transform()),
            textcoords="offset points",
            color=color,
            fontsize=9,
            ha=side,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def _size_ticks(ax: Axes, sizes: Sequence[int]) -> None:
    from matplotlib.ticker import NullLocator

    steps = np.diff(np.log(sizes), prepend=-np.inf) / max(np.log(sizes[-1] / sizes[0]), 1e-9)
    ax.set_xticks(
        sizes, [str(n) if step > 0.05 else "" for n, step in zip(sizes, steps, strict=True)]
    )
    ax.xaxis.set_minor_locator(NullLocator())


def _label(ax: Axes, at: tuple[float, float], words: str, color: str) -> None:
    from matplotlib.patheffects import withStroke

    drawn = ax.text(*at, words, color=color, ha="center", va="center", fontsize=9)
    drawn.set_path_effects([withStroke(linewidth=3, foreground="white")])  # over lines, too


def _label_ends(ax: Axes, ends: Mapping[str, tuple[int, float, str]]) -> None:
    """Names at the ends of their lines, pushed apart where lines meet, instead of a legend."""
    bottom, top = np.log(ax.get_ylim())
    names = sorted(ends, key=lambda name: ends[name][1])
    heights = [(float(np.log(ends[name][1])) - bottom) / (top - bottom) for name in names]
    shown = dict(zip(names, _wrapped(names), strict=True))
    gap = 0.06 * max(1 + name.count("\n") for name in shown.values())
    heights = [min(at, 1 - gap * left) for left, at in enumerate(reversed(heights))][::-1]
    for name, height in zip(names, _apart(heights, gap), strict=True):
        size, value, color = ends[name]
        ax.annotate(
            *(shown[name], (size, value), (9, height)),
            textcoords=("offset points", "axes fraction"),
            color=color,
            va="center",
            fontsize=10,
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved as little as keeps each ``gap`` above the one before.

    >>> [round(height, 2) for height in _apart([0.5, 0.5, 0.9], gap=0.1)]
    [0.45, 0.55, 0.9]
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _span(groups[-1], gap)[0] < _span(groups[-2], gap)[1] + gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_span(group, gap)[0] + gap * index for group in groups for index in range(len(group))]


def _span(group: Sequence[float], gap: float) -> tuple[float, float]:
    middle, half = float(np.mean(group)), gap * (len(group) - 1) / 2
    return middle - half, middle + half


def _finish(ax: Axes, note: str) -> Axes:
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(colors=_GREY, labelcolor="#222222")
    ax.set_axisbelow(True)
    if note:
        ax.annotate(
            *(note, (0, 0), (0, -38)),
            xycoords="axes fraction",
            textcoords="offset points",
            color=_GREY,
            va="top",
            fontsize=8,
        )
    return ax
