"""Every release of netron 9 that the package index holds, tried in the browser."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx
from viewer_time import SOURCE, Graph

from onnx_workbench import view
from onnx_workbench.formatting import table
from onnx_workbench.viewer import frontend

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.browser.conftest import KEEP_EVAL, guard, launched

PIP = [sys.executable, "-m", "pip"]
GRAPH = Graph("20 nodes", 20)


def report() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as home, launched() as browser:
        folder = Path(home)
        (folder / "model.py").write_text(SOURCE)
        model = onnx.load(GRAPH.write(folder))
        rows = [(name, *tried(browser, model, wheel)) for name, wheel in wheels(folder)]
    yield table(rows, ("netron", "drawn", "line", "heat", "asked", "else"), right=[1, 3, 4])


def releases() -> list[str]:
    said = subprocess.run(
        [*PIP, "index", "versions", "netron"], check=True, capture_output=True, text=True
    ).stdout
    (listed,) = (line for line in said.splitlines() if line.startswith("Available versions: "))
    return [name for name in listed.split(": ")[1].split(", ") if name.startswith("9.")]


def wheels(folder: Path) -> Iterator[tuple[str, Path]]:
    for name in releases():
        target = folder / name
        quiet = ("--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check")
        subprocess.run([*PIP, "download", *quiet, "-d", target, f"netron=={name}"], check=True)
        with zipfile.ZipFile(next(target.glob("*.whl"))) as wheel:
            wheel.extractall(target)
        yield name, target / "netron"


def tried(browser: Any, model: onnx.ModelProto, wheel: Path) -> tuple[str, ...]:
    """Nodes drawn, the line of one, nodes with a color, and requests; or what went wrong."""
    with patch.object(frontend, "installed", lambda: wheel):
        shown = view(model)
        if why := shown._sent.get("why"):
            return "", "", "", "", why
        shown.heat({node.name: at for at, node in enumerate(model.graph.node)})
        path = shown.save(wheel.parent / "graph.html")
    context, refused = browser.new_context(), []
    try:
        return seen(context, path, refused)
    except Exception as error:  # what a release does wrong is what is asked here
        return "", "", "", str(len(refused)), str(error).splitlines()[0]
    finally:
        context.close()


def seen(context: Any, path: Path, refused: list[str]) -> tuple[str, ...]:
    context.set_default_timeout(20_000)
    context.add_init_script(KEEP_EVAL)
    context.route("**/*", lambda route: guard(route, path.as_uri(), refused))
    page = context.new_page()
    page.goto(path.as_uri())
    page.locator(".ow-netron.drawn").wait_for()
    graph = page.locator("iframe").element_handle().content_frame()
    nodes = graph.locator('[id^="node-name-node_"]')
    nodes.nth(3).click()
    line = page.locator(".code .here").text_content()
    hot = graph.locator('.graph-node[class*="heat"]').count()
    return str(nodes.count()), line, str(hot), str(len(refused)), ""
