"""What the plots say, and that everybody can read it."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib_inline import backend_inline

from onnx_workbench import plots

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", IEEE TVCG 15(6), 2009: severity 1.0, applied to linear RGB; rows one after the other.
VISION = {
    "common": "1 0 0  0 1 0  0 0 1",
    "protanopia": "0.152286 1.052583 -0.204868  0.114503 0.786281 0.099216  "
    "-0.003882 -0.048116 1.051998",
    "deuteranopia": "0.367322 0.860646 -0.227968  0.280085 0.672501 0.047413  "
    "-0.011820 0.042940 0.968881",
    "tritanopia": "1.255528 -0.076749 -0.178779  -0.078411 0.930809 0.147602  "
    "0.004733 0.691367 0.303900",
}
# Linear sRGB (D65) to XYZ, IEC 61966-2-1.
XYZ = "0.4124564 0.3575761 0.1804375  0.2126729 0.7151522 0.0721750  0.0193339 0.1191920 0.9503041"
TELL_APART = 15.0  # CIE76 distance; about 2.3 is the least that can be seen at all


def matrix(numbers):
    return np.array(numbers.split(), float).reshape(3, 3)


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = matrix(XYZ) @ np.clip(rgb, 0, 1) / matrix(XYZ).sum(axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def closest(colors, vision):
    seen = [lab(matrix(VISION[vision]) @ linear(color)) for color in colors]
    return min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))


def words(ax):
    return [text.get_text() for text in ax.texts]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_eye_can_tell_the_palette_apart():
    assert min(closest(plots.PALETTE, vision) for vision in VISION) > TELL_APART
    assert closest(("#D62728", "#2CA02C"), "deuteranopia") < TELL_APART, "matplotlib's own"


def contrast(one, other):
    low, high = sorted((matrix(XYZ) @ linear(color))[1] + 0.05 for color in (one, other))
    return high / low


def test_colors_stand_out_from_a_light_and_a_dark_page_and_markers_differ_where_they_repeat():
    for page in ("white", "#111111"):
        assert min(contrast(color, page) for color in plots.PALETTE) > 3
        assert contrast(plots.INK, page) > 4
    ax = plots.blocks({str(row): [1e-3] for row in range(30)})
    medians = [line for line in ax.lines if line.get_marker() != "."]
    assert len({(line.get_color(), line.get_marker()) for line in medians}) == 30


def test_matplotlib_stays_interactive_where_its_first_figure_turns_it_on(monkeypatch):
    before, new = matplotlib.is_interactive(), pyplot.subplots
    monkeypatch.setattr(pyplot, "subplots", lambda **o: matplotlib.interactive(True) or new(**o))
    try:
        plots.blocks({"eager": [4e-3]})  # as Jupyter's backend does
        assert matplotlib.is_interactive()
    finally:
        matplotlib.interactive(before)


def test_blocks_draw_every_measurement_and_the_median_into_axes_of_ones_own():
    own = pyplot.figure().add_subplot()
    ax = plots.blocks({"eager": [4e-3, 5e-3, 9e-3], "fast": [2e-3]}, ax=own)
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert [sorted(line.get_xdata()) for line in dots] == [[4e-3, 5e-3, 9e-3], [2e-3]]
    medians = {line.get_label(): line.get_xdata() for line in ax.lines if line not in dots}
    assert {name: float(at[0]) for name, at in medians.items()} == {"eager": 5e-3, "fast": 2e-3}
    assert words(ax) == ["5.00 ms", "2.00 ms"]
    assert ax is own
    assert len(pyplot.get_fignums()) == 1


def test_style_is_that_of_the_plot_alone_and_its_background_is_the_pages():
    matplotlib.rcdefaults()
    before = dict(matplotlib.rcParams)
    ax = plots.blocks({"eager": [4e-3, 5e-3]}, title="a finding", note="small print")
    assert dict(matplotlib.rcParams) == before
    assert ax.figure.get_facecolor()[3] == ax.get_facecolor()[3] == 0
    written = [ax._left_title, ax.xaxis.label, *ax.texts]
    assert {text.get_color() for text in written} == {plots.INK}
    # JupyterLab is asked for no card behind the figure.
    assert backend_inline._fetch_figure_metadata(ax.figure) is None


def test_axes_turn_logarithmic_before_the_fast_ones_are_squeezed_except_where_lengths_add_up():
    assert plots.blocks({"a": [1e-3], "b": [7e-3]}).get_xscale() == "linear"
    assert plots.blocks({"a": [1e-3], "b": [9e-3]}).get_xscale() == "log"
    assert plots.stacked({"a": {"load": 1.0}, "b": {"load": 0.01}}).get_xscale() == "linear"
    assert plots.moves({"a": {"x": 0.0}, "b": {"x": 1e-3}}).get_xscale() == "linear"  # no log of 0
    y = plots.sweep({"a": {1: [4e-5], 64: [5e-5]}}).yaxis
    axes = plots.blocks({"a": [4e-5, 5e-5]}).xaxis, y  # their units in letters that all fonts have
    assert [axis.get_major_formatter()(5e-5, 0) for axis in axes] == ["50 us", "50 u"]


@pytest.mark.parametrize("interval", [(0.99, 1.0, 1.01), (0.2, 0.25, 0.3), (30, 60, 90)])
def test_forest_plot_draws_the_interval_its_estimate_and_what_matters(interval):
    ax = plots.ratios({"a": interval}, matters=0.05)
    low, middle, high = interval
    assert (low, high) in [tuple(line.get_xdata()) for line in ax.lines]
    (dot,) = [line for line in ax.lines if line.get_marker() == "s"]
    assert float(dot.get_xdata()[0]) == middle
    assert words(ax) == [f"{middle:.2f}x", f"{low:.2f} to {high:.2f}"]
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((1 / 1.05, 1.05))
    ax.figure.canvas.draw()
    left, right = ax.get_xlim()
    assert left < min(1, low) <= max(1, high) < right
    assert 1 <= len([tick for tick in ax.get_xticks() if left <= tick <= right]) <= 12


def test_sweep_draws_medians_a_band_between_quartiles_and_crossovers():
    rates = {"a": {16: [1e-3, 2e-3, 3e-3], 1: [1e-3, 1e-3]}, "b": {1: [5.0], 16: [20.0]}}
    ax = plots.sweep(rates, {"b": 8.0}, over="tokens", per="tokens x calls a second")
    assert ax.lines[0].get_xydata().tolist() == [[1, 1e-3], [16, 2e-3]]
    edges = ax.collections[0].get_paths()[0].vertices
    assert {float(y) for x, y in edges if x == 16} == {1.5e-3, 2.5e-3}
    (mark,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert (mark.get_xdata()[0], mark.get_color()) == (8.0, plots.PALETTE[1])
    assert legend(ax) == ["a", "b", "crossover at about 8"]
    assert ax.get_xlabel() == "tokens"
    assert ax.get_ylabel().startswith("tokens x calls a second")


def test_sweep_is_hollow_where_cores_were_contended_and_dashed_where_growth_is_ideal():
    ax = plots.sweep({"a": {2: [10.0], 4: [15.0], 8: [16.0]}}, hollow=[8], ideal=True)
    curve, hollow, ideal = ax.lines
    assert curve.get_markevery() == [0, 1], "a filled mark below would fill the hollow one"
    assert (hollow.get_xdata().tolist(), hollow.get_markerfacecolor()) == ([8], "none")
    assert ideal.get_ydata().tolist() == [10.0, 20.0, 40.0]
    assert "dashed" in ax.get_xlabel()


def test_sizes_that_would_overlap_are_not_all_written():
    ax = plots.sweep({"a": {size: [1.0] for size in range(1, 65)}})
    ax.figure.canvas.draw()
    shown = [label for label in ax.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in shown]
    assert shown[0].get_text() == "1"
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_parts_are_drawn_end_to_end_and_their_sum_is_written():
    ax = plots.stacked({"a": {"load": 1.0, "run": 0.5}, "b": {"import": 0.1, "run": 0.1}})
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 1.0), (1.0, 0.5), (0, 0.1), (0.1, 0.1)]
    assert words(ax) == ["1.50 s", "200 ms"]
    assert legend(ax) == ["load", "run", "import"]
    assert len({(bar.get_hatch(), bar.get_facecolor()) for bar in ax.patches}) == 3


def test_moves_connect_the_times_of_a_line_and_count_those_left_out():
    times = {f"model.py:{n}": {"eager": 2e-3, "fast": 1e-3} for n in range(30)}
    ax = plots.moves(times, most=4)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    left_out = "... 26 lines between"
    assert labels == ["model.py:0", "model.py:1", left_out, "model.py:28", "model.py:29"]
    lines = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "None"]
    assert lines == [[2e-3, 1e-3]] * 2 + [[]] + [[2e-3, 1e-3]] * 2
    assert legend(ax) == ["eager", "fast"]


def test_growth_draws_zero_and_infinity_at_the_edges():
    ax = plots.growth([0.0, 1e-7, np.inf], [1e-4] * 3, {1: "model.py:11", 2: "model.py:12"})
    error, tolerance, *_ = ax.lines
    assert legend(ax) == ["error", "tolerance", "model.py:11", "model.py:12"]
    assert error.get_ydata() == pytest.approx([1e-8, 1e-7, 1e-4])
    assert tolerance.get_ydata() == pytest.approx([1e-4] * 3)


LONG = (
    "PyTorch eager in inference mode, float32",
    "torch.compile(mode='max-autotune', dynamic=True)",
    "ONNX Runtime with graph optimization basic",
    *("quantized int8", "ORT IOBinding", "x", "y" * 40, "z"),
)
SPREAD = (1.0, 0.1, 20.0, 1.01, 1.12, 0.34, 1.0, 0.98)


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("draw", ["blocks", "ratios", "stacked", "sweep"])
def test_long_names_and_far_ratios_neither_overlap_nor_leave_the_picture(draw, count):
    pairs = [*zip(LONG, SPREAD, strict=True)][:count]
    data = {
        "blocks": {name: [1e-3 * far, 1.1e-3 * far] for name, far in pairs},
        "ratios": {name: (0.9 * far, far, 1.1 * far) for name, far in pairs},
        "stacked": {name: {"load": far, "first call": 0.1} for name, far in pairs},
        "sweep": {name: {1: [1e3 * far], 512: [9e3 + far]} for name, far in pairs},
    }[draw]
    title = "\n".join(f"{name} is {far}x as fast as {LONG[0]}" for name, far in pairs)
    more = {"words": {name: f"{far:.3g}x" for name, far in pairs}} if draw == "blocks" else {}
    ax = getattr(plots, draw)(data, title=title, note="one thread", **more)
    ax.figure.canvas.draw()
    frame, whole = ax.figure.bbox, ax.get_tightbbox()
    assert frame.x0 <= whole.x0 < whole.x1 <= frame.x1
    assert frame.y0 <= whole.y0 < whole.y1 <= frame.y1
    low, high = sorted(ax.get_ylim())
    ticks = [label for label in ax.get_yticklabels() if low <= label.get_position()[1] <= high]
    shown = [word for word in (*ax.texts, *ticks, ax._left_title) if word.get_text()]
    boxes = [word.get_window_extent() for word in shown if word.get_text() != "one thread"]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert ax.get_window_extent().width > 0.4 * ax.figure.bbox.width
    assert len(ax.get_title(loc="left").splitlines()) <= 7
