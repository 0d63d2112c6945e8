"""How fast the floors of a model open in a browser and answer a choice; a saved page each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from onnx_workbench.formatting import seconds, size, table
from onnx_workbench.lineage.page import document
from tests import sheets
from tests.browser.conftest import launched

NODES = (20, 2_000, 20_000)
OPENINGS, CHOICES = 5, 40

# Until the frame after the choice has been drawn.
STEP = """(key) => new Promise((done) => {
  const start = performance.now();
  const list = document.querySelector(".ow-floors .list");
  list.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const answered = performance.now() - start;
  requestAnimationFrame(() => setTimeout(() => done([answered, performance.now() - start])));
})"""


def measured(browser: Any, nodes: int, folder: Path) -> tuple[str, ...]:
    path = folder / "floors.html"
    path.write_text(document("net", sheets.deep(nodes)), encoding="utf-8")
    openings = []
    for _ in range(OPENINGS):
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        start = perf_counter()
        page.goto(path.as_uri())
        page.locator(".ow-floors .row").first.wait_for()
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


def report() -> Iterator[str]:
    header = ("nodes", "page", "opens in", "answers in", "and draws", "at most", "rows in the page")
    with launched() as browser, tempfile.TemporaryDirectory() as folder:
        rows = [measured(browser, nodes, Path(folder)) for nodes in NODES]
    yield table(rows, header, right=range(len(header)))
