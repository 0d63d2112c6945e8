"""The viewer in JupyterLab, beside Netron alone: the same browser, the same file, turn by turn."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import models
import nbformat
import netron
import onnx
from nbformat.v4 import new_code_cell, new_notebook
from side_by_side import Pair, take_turns

from tests.browser.conftest import Lab, Notebook, launched, load, new_context, serving

GIGABYTE = 1 << 30
PATIENCE = 120_000  # ms
CLICKS = 9
TURNS = 3  # new kernels whose memory is looked at
SHOWN, ASKED = 0, 1  # the cell that shows the view, and the one below it

LIGHT, LARGE, LARGEST = "500 nodes", "5,000 nodes", "20,000 nodes"
FLAT, HEAVY = "5,000 nodes of no module", "500 nodes and 1 GB"
GRAPHS: dict[str, dict[str, Any]] = {
    LIGHT: {"nodes": 500},
    LARGE: {"nodes": 5_000},
    FLAT: {"nodes": 5_000, "modules": False},
    LARGEST: {"nodes": 20_000},
    HEAVY: {"nodes": 500, "weights": GIGABYTE},
}
SOURCE = "class Layer:\n    def forward(self, x):\n" + "        x = x.relu()\n" * models.STEPS

# Runs inside the page and notes when the line has been painted, on the clock that all frames share.
WATCH = """() => {
  const panel = [...document.querySelectorAll(".ow-panel")].at(-1);
  const note = () => (window.answered ??= performance.timeOrigin + performance.now());
  const look = () => panel.querySelector(".code .here") && !panel.hidden &&
    requestAnimationFrame(() => setTimeout(note));
  new MutationObserver(look).observe(panel, { subtree: true, childList: true, attributes: true });
}"""
CLICKED = """() => window.addEventListener("click", () => {
  window.clicked = performance.timeOrigin + performance.now();
}, { capture: true })"""
HOT = """() => document.querySelectorAll('.graph-node[class*="heat"]').length >= 5000"""
PAINTED = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
KERNEL = """
import gc, psutil
from onnx_workbench import view
from onnx_workbench.machine import trim_memory
def held():
    gc.collect()
    trim_memory()
    memory = psutil.Process().memory_info()
    return memory.rss - getattr(memory, "shared", 0)  # Linux: without the pages of libraries
"""


def report() -> Iterator[Pair]:
    """Every time of ours is taken in JupyterLab, from running the cell until Netron has drawn."""
    logging.getLogger().addHandler(logging.NullHandler())  # netron.serve would set up its own
    with (
        launched() as browser,
        tempfile.TemporaryDirectory() as home,
        serving("/", Path(home)) as lab,
    ):
        source = lab.folder / "model.py"
        source.write_text(SOURCE)
        paths = {name: lab.folder / f"{at}.onnx" for at, name in enumerate(GRAPHS)}
        for name, options in GRAPHS.items():
            onnx.save(models.chain(source=str(source), **options), paths[name])
        notebook = opened(browser, lab)
        for name in (LARGE, LARGEST):
            yield memory(notebook, name, paths[LIGHT], paths[name])
        for name, turns in ((LIGHT, 3), (LARGE, 2), (FLAT, 2), (LARGEST, 1)):
            ours = partial(in_the_cell, notebook, paths[name])
            alone = partial(by_netron, browser, paths[name])
            words = f"{name}, until drawn / Netron alone"
            yield take_turns(words, ours, alone, turns, warm=name is LIGHT)
        for name in (LIGHT, FLAT):
            in_the_cell(notebook, paths[name])
            if name is FLAT:
                whole(notebook)
            yield from click(notebook, name)
        yield heat(notebook)
        light, heavy = (partial(in_the_cell, notebook, paths[name]) for name in (LIGHT, HEAVY))
        yield take_turns("500 nodes with 1 GB of weights / without", heavy, light, 3)


def opened(browser: Any, lab: Lab) -> Notebook:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    cells = [new_code_cell(KERNEL), new_code_cell()]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), lab.folder / "bench.ipynb")
    notebook = Notebook(load(new_context(browser), lab), lab.path("bench.ipynb"))
    notebook.open()
    notebook.page.set_default_timeout(PATIENCE)
    notebook.run(SHOWN)
    return notebook


def say(notebook: Notebook, code: str, cell: int = ASKED) -> str:
    """Run this code in a cell, and return what it prints."""
    notebook.page.evaluate(
        "([code, cell]) => jupyterapp.shell.currentWidget.content.widgets[cell].model.sharedModel"
        ".setSource(code)",
        [code, cell],
    )
    return notebook.run(cell)


def in_the_cell(notebook: Notebook, path: Path) -> None:
    say(notebook, f"shown = view({path.name!r})\nshown", SHOWN)
    notebook.page.locator(".ow-netron.drawn").wait_for()


def whole(notebook: Notebook) -> None:
    """Unfold a graph that opened folded."""
    notebook.page.locator(".ow-whole").click()
    notebook.page.locator(".ow-netron:not(.drawn)").wait_for()
    notebook.page.locator(".ow-netron.drawn").wait_for()


def by_netron(browser: Any, path: Path) -> None:
    """Netron's own page, with consent given and no network."""
    from playwright.sync_api import TimeoutError

    address = netron.serve(str(path), address=("127.0.0.1", 0), browse=False)
    context = new_context(browser)
    try:
        url = f"http://{address[0]}:{address[1]}"
        context.add_cookies([{"name": "consent", "value": "1", "url": url}])
        page = context.new_page()
        page.goto(url, wait_until="commit")
        with suppress(TimeoutError):
            page.locator("body.default").wait_for(timeout=PATIENCE)
    finally:
        context.close()
        netron.stop(address)


def memory(notebook: Notebook, name: str, light: Path, path: Path) -> Pair:
    """How much the memory of a kernel grows by a view, in a new kernel each turn.

    A view of another model comes first and is closed: it loads the front-end and the libraries.
    """
    grown = []
    for _ in range(TURNS):
        notebook.restart()
        say(notebook, KERNEL)
        in_the_cell(notebook, light)
        before = int(say(notebook, "shown.close()\ndel shown\nprint(held())"))
        in_the_cell(notebook, path)
        grown.append(int(say(notebook, "print(held())")) - before)
    twice = [2 * path.stat().st_size] * TURNS
    return Pair(f"{name}, memory of the kernel / twice the file", grown, twice, "bytes")


def click(notebook: Notebook, name: str) -> Iterator[Pair]:
    """From a mouse's click in the frame until the source line has been painted beside it."""
    frame, times = notebook.graph(0), []
    page = notebook.page
    page.evaluate(WATCH)
    frame.evaluate(CLICKED)
    for at in range(CLICKS):
        box = frame.locator(".graph-node > .node-item-type").nth(at).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(1000)  # a reader looks before the next click
        page.evaluate("window.answered = undefined")
        page.mouse.down()
        page.mouse.up()
        answered = page.wait_for_function("window.answered").json_value()
        times.append((answered - frame.evaluate("window.clicked")) / 1000)
    for which, chosen in ((median, "median"), (max, "worst")):
        yield Pair(f"{name}, a click: {chosen} / 100 ms", [which(times)], [0.1])


def heat(notebook: Notebook) -> Pair:
    """From running the cell that calls heat() until every node on the screen has its color."""
    frame, times = notebook.graph(0), []
    for turn in range(3):
        say(notebook, "shown.heat(None)")
        notebook.page.wait_for_timeout(1000)
        start = perf_counter()
        say(notebook, f"shown.heat({{f'node_{{at}}': at + {turn} for at in range(5000)}}, 's')")
        frame.wait_for_function(HOT)
        frame.evaluate(PAINTED)
        times.append(perf_counter() - start)
    return Pair("heat on 5,000 nodes, median / 1 s", times, [1.0] * len(times))
