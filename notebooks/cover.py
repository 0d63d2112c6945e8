"""The picture on top of the README, from a real run: ``python notebooks/cover.py``.

One line of the digit reader is followed to the kernel that ONNX Runtime runs for it. Everything in
the picture is read off this run: the bytecode, the FX nodes, the ONNX nodes, the kernel, its time.
"""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import onnx_workbench as ow
from onnx_workbench.formatting import plural, seconds

LINE = "edges = torch.relu(self.norm(self.edges(images)))"
BATCH, SECONDS = 64, 2.0
INK, QUIET, LIT = "#1B1F23", "#6A737D", "#FFF3C4"
# Okabe and Ito's colors, one a step; the steps are told apart by place and title too.
STEPS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00")


def follow(folder: Path) -> tuple[list[str], list[list[str]], float]:
    """The source, what the line became on each floor, and the seconds of its kernels a call."""
    digits = ow.lessons.digits()
    graph = ow.capture(digits.model, digits.images[:2], dynamic_shapes={"images": {0: "batch"}})
    onnx = ow.export(graph, f=folder / "digits.onnx")
    lineage = ow.trace(onnx, digits.images[:BATCH], seconds=SECONDS)
    chains = [chain for chain in lineage.chains if chain.line and chain.line.text == LINE]
    records = [r for r in lineage.records() if r["line"] == chains[0].line.place]
    values = {node.name: f"{node.target}\n{node.value}" for node in graph.nodes}
    times = {r["optimized"]: f"{r['kernel']}\n{r['optimized']}" for r in records if r["kernel"]}
    spent = {name: lineage.call.seconds[name] for name in times}
    operators = {r["onnx"]: lineage.of(r["onnx"]).operator for r in records if r["onnx"]}
    steps = [
        [records[0]["bytecode"].replace("; ", "\n")],
        [values[fx] for fx in dict.fromkeys(r["fx"] for r in records if r["fx"])],
        [f"{operator}\n{name}" for name, operator in operators.items()],
        [f"{words}\n{seconds(spent[name])}" for name, words in times.items()],
    ]
    source = inspect.getsource(type(digits.model).forward).rstrip().splitlines()
    return source, steps, sum(spent.values())


def draw(source: list[str], steps: list[list[str]], time: float) -> Figure:
    figure = Figure(figsize=(12.6, 4.9), dpi=150, facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 126), ylim=(0, 49))
    ax.axis("off")
    counts = f"{plural(len(steps[1]), 'FX node')}, {plural(len(steps[2]), 'ONNX node')}, "
    finding = f"{counts}{plural(len(steps[3]), 'kernel')}, {seconds(time)}"
    ax.text(3, 45, "Follow one line of PyTorch", size=17, color=INK, weight="bold", va="center")
    ax.text(3, 41.3, f"to the kernel that runs it: {finding}", size=12, color=QUIET, va="center")
    _source(ax, source)
    titles = ("Python bytecode", "FX nodes", "ONNX nodes", "ONNX Runtime kernel")
    lefts, widths = (3, 36, 68, 97), (27, 26, 23, 26)
    for index, (title, boxes) in enumerate(zip(titles, steps, strict=True)):
        _column(ax, lefts[index], widths[index], title, boxes, STEPS[index])
        if index:
            _arrow(ax, lefts[index - 1] + widths[index - 1], lefts[index])
    ax.text(
        110,
        2.3,
        f"{seconds(time)} a call at batch {BATCH}",
        size=8.5,
        color=QUIET,
        ha="center",
    )
    return figure


def _source(ax: Axes, source: list[str]) -> None:
    indent = len(source[0]) - len(source[0].lstrip())
    for row, text in enumerate(source[:3]):
        y = 37.2 - 2.35 * row
        if text.strip() == LINE:
            ax.add_patch(
                FancyBboxPatch((3, y - 1.0), 62, 1.9, boxstyle="round,pad=0.25", fc=LIT, ec="none")
            )
        ax.text(3.4, y, text[indent:], family="monospace", size=9.6, color=INK, va="center")
    ax.text(
        3.4,
        37.2 - 2.35 * 3 + 0.2,
        "    ...",
        family="monospace",
        size=9.6,
        color=QUIET,
        va="center",
    )


def _column(ax: Axes, left: float, width: float, title: str, boxes: list[str], color: str) -> None:
    ax.text(left, 27.4, title, size=10.5, color=color, weight="bold", va="center")
    top, gap = 25.4, 2.2
    height = (top - 4.2 - gap * (len(boxes) - 1)) / len(boxes)
    for row, text in enumerate(boxes):
        bottom = top - (row + 1) * height - row * gap
        ax.add_patch(
            FancyBboxPatch(
                (left + 0.4, bottom),
                width - 0.8,
                height,
                boxstyle="round,pad=0.4",
                fc="white",
                ec=color,
                lw=1.6,
            )
        )
        ax.text(
            left + 1.2,
            bottom + height / 2,
            text,
            family="monospace",
            size=8.6,
            color=INK,
            va="center",
            linespacing=1.45,
        )


def _arrow(ax: Axes, start: float, end: float) -> None:
    ax.add_patch(
        FancyArrowPatch(
            (start + 0.6, 15),
            (end - 0.6, 15),
            arrowstyle="-|>",
            mutation_scale=14,
            color=QUIET,
            lw=1.4,
        )
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        picture = draw(*follow(Path(folder)))
    target = Path(__file__).with_suffix(".png")
    picture.savefig(target.with_suffix(".drawing"), format="png")
    target.with_suffix(".drawing").replace(target)
    print(f"{target.name} written")
