"""What the plots say, and that they say it to everybody."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from onnx_workbench import figures

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", IEEE TVCG 15(6), 2009: severity 1.0, applied to linear RGB.
VISION = {
    "common": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
# Linear sRGB (D65) to XYZ, IEC 61966-2-1.
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
TELL_APART = 15.0  # CIE76 distance; about 2.3 is the least that can be seen at all


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def closest(colors, vision):
    seen = [lab(VISION[vision] @ linear(color)) for color in colors]
    return min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
def test_the_palette_can_be_told_apart_by(vision):
    assert closest(figures.PALETTE, vision) > TELL_APART


def test_that_test_can_fail():
    red_and_green_of_matplotlib = ("#D62728", "#2CA02C")
    assert closest(red_and_green_of_matplotlib, "common") > 100
    assert closest(red_and_green_of_matplotlib, "deuteranopia") < TELL_APART


def test_every_colour_stands_out_from_white():
    luminance = [(XYZ @ linear(color))[1] for color in figures.PALETTE]
    assert min(1.05 / (value + 0.05) for value in luminance) > 3


def test_markers_differ_where_colours_repeat():
    looks = [figures._look(index) for index in range(30)]
    assert len(set(looks)) == 30
    assert len({marker for _, marker in looks[:8]}) == 8


def test_blocks_draw_every_measurement_and_the_median():
    ax = figures.blocks({"eager": [4e-3, 5e-3, 9e-3], "fast": [2e-3]}, title="t", note="n")
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert [sorted(line.get_xdata()) for line in dots] == [[4e-3, 5e-3, 9e-3], [2e-3]]
    medians = {line.get_label(): line.get_xdata() for line in ax.lines if line not in dots}
    assert {name: float(at[0]) for name, at in medians.items()} == {"eager": 5e-3, "fast": 2e-3}
    assert "5.00 ms" in [words.get_text() for words in ax.texts]


def test_blocks_are_the_same_picture_each_time():
    data = {"eager": [4e-3, 5e-3, 9e-3]}
    one, two = (figures.blocks(data).lines[0].get_ydata() for _ in range(2))
    assert one.tolist() == two.tolist()


def test_blocks_turn_logarithmic_before_the_fast_ones_are_squeezed():
    assert figures.blocks({"a": [1e-3], "b": [7e-3]}).get_xscale() == "linear"
    assert figures.blocks({"a": [1e-3], "b": [9e-3]}).get_xscale() == "log"


def test_a_sweep_draws_medians_and_a_band_between_quartiles():
    ax = figures.sweep({"eager": {16: [1e-3, 2e-3, 3e-3], 1: [1e-3, 1e-3]}}, title="t")
    (line,), (band,) = ax.lines, ax.collections
    assert line.get_xydata().tolist() == [[1, 1e-3], [16, 2e-3]]
    edges = band.get_paths()[0].vertices
    assert {float(y) for x, y in edges if x == 16} == {1.5e-3, 2.5e-3}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "16"]


def test_a_sweep_names_lines_at_their_ends_without_overlap():
    curve = {1: [1e-3], 64: [2e-3]}
    ax = figures.sweep({"a": curve, "b": curve, "c": curve})
    ax.figure.canvas.draw()
    boxes = [words.get_window_extent() for words in ax.texts]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize("draw", [figures.blocks, figures.sweep])
def test_everything_fits_into_the_picture(draw):
    times = [1e-3, 2e-3] if draw is figures.blocks else {1: [1e-3], 64: [2e-3]}
    finding = "\n".join(
        f"{name} against PyTorch: no difference that matters (within 3 %) at batch 1, 0.97x at 64"
        for name in ("ONNX Runtime", "torch.compile")
    )
    ax = draw({"PyTorch": times, "ONNX Runtime": times}, title=finding, note="one thread")
    ax.figure.canvas.draw()
    frame, drawn = ax.figure.bbox, ax.get_tightbbox()
    assert frame.x0 <= drawn.x0
    assert frame.y0 <= drawn.y0
    assert drawn.x1 <= frame.x1
    assert drawn.y1 <= frame.y1


@pytest.mark.parametrize("draw", [figures.blocks, figures.sweep])
def test_ticks_carry_their_unit_in_letters_that_every_font_has(draw):
    times = [4e-5, 5e-5] if draw is figures.blocks else {1: [4e-5], 64: [5e-5]}
    ax = draw({"a": times})
    axis = ax.xaxis if draw is figures.blocks else ax.yaxis
    assert axis.get_major_formatter()(5e-5, 0) == ("50 us" if draw is figures.blocks else "50 u")


def test_an_axes_of_ones_own_is_drawn_into():
    own = pyplot.figure().add_subplot()
    assert figures.blocks({"a": [1e-3]}, ax=own) is own
    assert len(pyplot.get_fignums()) == 1


def test_a_forest_plot_draws_each_interval_around_its_estimate():
    ax = figures.ratios({"fast": (1.3, 1.4, 1.5), "same": (0.99, 1.0, 1.01)}, matters=0.05)
    spans = [tuple(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
    assert (1.3, 1.5) in spans
    assert (0.99, 1.01) in spans
    assert [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() in "sD"] == [
        1.4,
        1,
    ]
    assert "1.40x (1.30 to 1.50)" in [words.get_text() for words in ax.texts]
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((1 / 1.05, 1.05))
    assert "within 5 %" in ax.get_xlabel()


@pytest.mark.parametrize("interval", [(0.99, 1.0, 1.01), (0.2, 0.25, 0.3), (30, 60, 90)])
def test_a_forest_plot_always_shows_the_line_at_1_and_has_ticks(interval):
    ax = figures.ratios({"a": interval})
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert low < min(1, interval[0])
    assert max(1, interval[2]) < high
    shown = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert 1 <= len(shown) <= 12
    (words,), frame = ax.texts, ax.get_window_extent()
    assert frame.x0 < words.get_window_extent().x0
    assert words.get_window_extent().x1 < frame.x1


def test_a_sweep_marks_where_places_change_and_says_over_what():
    rates = {"a": {1: [10.0], 64: [10.0]}, "b": {1: [5.0], 64: [20.0]}, "c": {1: [1.0]}}
    ax = figures.sweep(rates, {"b": 8.0}, over="tokens", per="tokens x calls a second")
    (mark,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert mark.get_xdata()[0] == 8.0
    assert mark.get_color() == figures.PALETTE[1]
    assert "change of places at about 8" in [words.get_text() for words in ax.texts]
    assert ax.get_xlabel() == "tokens"
    assert ax.get_ylabel() == "tokens x calls a second, median and quartiles"


def test_a_sweep_is_hollow_where_it_is_not_to_be_trusted_and_dashed_where_it_would_be_ideal():
    ax = figures.sweep({"a": {2: [10.0], 4: [15.0], 8: [16.0]}}, hollow=[8], ideal=True)
    curve, hollow, ideal = ax.lines
    assert curve.get_markerfacecolor() != "white"
    assert (hollow.get_xdata().tolist(), hollow.get_markerfacecolor()) == ([8], "white")
    assert ideal.get_ydata().tolist() == [10.0, 20.0, 40.0]
    assert "dashed" in ax.get_xlabel()


def test_sizes_that_would_overlap_are_not_all_written():
    ax = figures.sweep({"a": {size: [1.0] for size in range(1, 65)}})
    ax.figure.canvas.draw()
    shown = [label for label in ax.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in shown]
    assert shown[0].get_text() == "1"
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_parts_stand_end_to_end_and_their_sum_is_written():
    ax = figures.stacked({"a": {"load": 1.0, "run": 0.5}, "b": {"load": 0.1, "run": 0.1}})
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 1.0), (1.0, 0.5), (0, 0.1), (0.1, 0.1)]
    assert [words.get_text() for words in ax.texts] == ["1.50 s", "200 ms"]
    assert [words.get_text() for words in ax.get_legend().get_texts()] == ["load", "run"]
    far = figures.stacked({"a": {"load": 1.0}, "b": {"load": 0.01}})
    assert far.get_xscale() == "linear", "lengths add up on a linear axis alone"
    first, second = ax.patches[:2]
    assert (
        first.get_hatch() != second.get_hatch() or first.get_facecolor() != second.get_facecolor()
    )


@pytest.mark.parametrize("draw", ["ratios", "stacked"])
def test_all_words_fit_into_the_picture(draw):
    data = {
        "ratios": {"ONNX Runtime": (7.9, 8.0, 8.1), "torch.compile": (0.97, 0.98, 0.99)},
        "stacked": {"ONNX Runtime": {"import": 0.03, "run": 0.2}, "PyTorch": {"import": 1.1}},
    }[draw]
    ax = getattr(figures, draw)(data, title="a finding\nand another", note="one thread")
    ax.figure.canvas.draw()
    frame, drawn = ax.figure.bbox, ax.get_tightbbox()
    assert frame.x0 <= drawn.x0
    assert frame.y0 <= drawn.y0
    assert drawn.x1 <= frame.x1
    assert drawn.y1 <= frame.y1


LONG = (
    "PyTorch eager in inference mode, float32",
    "torch.compile(mode='max-autotune', dynamic=True)",
    "ONNX Runtime with graph optimisation basic",
    *("quantized int8", "ORT IOBinding", "x"),
)
SPREAD = (1.0, 0.1, 20.0, 1.01, 1.12, 0.34)


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("draw", ["blocks", "ratios", "stacked", "sweep"])
def test_long_names_and_far_ratios_neither_overlap_nor_leave_the_picture(draw, count):
    pairs = list(zip(LONG, SPREAD, strict=True))[:count]
    data = {
        "blocks": {name: [1e-3 * far, 1.1e-3 * far] for name, far in pairs},
        "ratios": {name: (0.9 * far, far, 1.1 * far) for name, far in pairs},
        "stacked": {name: {"load": far, "first call": 0.1} for name, far in pairs},
        "sweep": {name: {1: [1e3 * far], 512: [9e3 + far]} for name, far in pairs},
    }[draw]
    title = "\n".join(f"{name} is {far}x as fast as {LONG[0]}" for name, far in pairs)
    ax = getattr(figures, draw)(data, title=title, note="one thread")
    ax.figure.canvas.draw()
    low, high = sorted(ax.get_ylim())
    ticks = [label for label in ax.get_yticklabels() if low <= label.get_position()[1] <= high]
    words = [*ax.texts, *ticks, ax._left_title]
    boxes = [word.get_window_extent() for word in words if word.get_text() != "one thread"]
    frame = ax.figure.bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2) if a.width and b.width)
    assert ax.get_window_extent().width > 0.4 * frame.width
    assert len(ax.get_title(loc="left").splitlines()) <= figures._LINES + 1
