"""How fast a view and the floors of a trace open in a browser and answer."""

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

from onnx_workbench.formatting import seconds, size, table
from onnx_workbench.lineage.page import document
from tests import sheets
from tests.browser.conftest import Lab, Notebook, launched, load, new_context, serving

GIGABYTE = 1 << 30
PATIENCE = 120_000  # ms
CLICKS = 9
TURNS = 3  # new kernels whose memory is looked at
SHOWN, ASKED = 0, 1  # the cell that shows the view, and the one below it

GRAPHS: dict[str, dict[str, Any]] = {
    "500 nodes": {"nodes": 500},
    "5,000 nodes": {"nodes": 5_000},
    "20,000 nodes": {"nodes": 20_000},
    "5,000 nodes of no module": {"nodes": 5_000, "modules": False},
    "500 nodes and 1 GB": {"nodes": 500, "weights": GIGABYTE},
}
LIGHT, LARGE, LARGEST, FLAT, HEAVY = GRAPHS
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
    """Beside Netron alone: the same browser, the same file, turn by turn. Every time of ours is
    taken in JupyterLab, from running the cell until Netron has drawn."""
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
        ours = {name: partial(in_the_cell, notebook, path) for name, path in paths.items()}
        for name in (LARGE, LARGEST):
            yield memory(notebook, name, paths[LIGHT], paths[name])
        for name, turns in ((LIGHT, 3), (LARGE, 2), (FLAT, 2), (LARGEST, 1)):
            alone = partial(by_netron, browser, paths[name])
            words = f"{name}, until drawn / Netron alone"
            yield take_turns(words, ours[name], alone, turns, warm=name is LIGHT)
        yield take_turns(f"{HEAVY} of weights / without", ours[HEAVY], ours[LIGHT], 3)
        ours[LIGHT]()
        yield from click(notebook, LIGHT)
        ours[FLAT]()
        whole(notebook)
        yield from click(notebook, FLAT)
        yield heat(notebook)


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
    await_element(notebook.page, ".ow-netron.drawn")


def await_element(page: Any, selector: str) -> None:
    """Look at each frame: a locator's own wait looks twice a second in the end."""
    page.wait_for_function("(one) => document.querySelector(one)", arg=selector, timeout=PATIENCE)


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
            await_element(page, "body.default")
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


OPENINGS, CHOICES = 5, 40

# Until the frame after the choice has been drawn.
STEP = """(key) => new Promise((done) => {
  const start = performance.now();
  const list = document.querySelector(".ow-floors .list");
  list.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const answered = performance.now() - start;
  requestAnimationFrame(() => setTimeout(() => done([answered, performance.now() - start])));
})"""


def _floors(browser: Any, nodes: int, folder: Path) -> tuple[str, ...]:
    path = folder / "floors.html"
    path.write_text(document("net", sheets.deep(nodes)), encoding="utf-8")
    openings = []
    for _ in range(OPENINGS):
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        start = perf_counter()
        page.goto(path.as_uri())
        await_element(page, ".ow-floors .row")
        openings.append(perf_counter() - start)
        steps = [page.evaluate(STEP, "ArrowDown") for _ in range(CHOICES)]
        rows = page.locator(".ow-floors .row").count()
        page.close()
    answered, drawn = ([ms / 1e3 for ms in times] for times in zip(*steps, strict=True))
    return (
        f"{nodes:,}",
        size(path.stat().st_size),
        seconds(median(openings)),
        seconds(median(answered)),
        seconds(median(drawn)),
        seconds(max(drawn)),
        str(rows),
    )


def floors() -> Iterator[str]:
    """How fast they open in a saved page and answer a choice."""
    header = ("nodes", "page", "opens in", "answers in", "and draws", "at most", "rows in the page")
    with launched() as browser, tempfile.TemporaryDirectory() as folder:
        rows = [_floors(browser, nodes, Path(folder)) for nodes in (20, 2_000, 20_000)]
    yield table(rows, header, right=range(len(header)))
