"""JupyterLab as the README starts it, and a browser that may talk to it and to nobody else."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:  # launched() says so
    expect = sync_playwright = None

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "browser-test"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Netron replaces window.eval by a throw, on which browser drivers stumble. The init script that
# keeps it must come first, and it comes late to a frame in a process of its own.
# No name of a host resolves: a request that leaves this machine fails, and Page.refused has it.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-features=IsolateSandboxedIframes",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
KEEP_EVAL = """
const evaluate = window.eval;
Object.defineProperty(window, "eval", { get: () => evaluate, set: () => {} });
"""

# A pad whose reader says 9: the real digits come with a training of seconds.
PAD = """\
import torch
from types import SimpleNamespace
import onnx_workbench.lessons.pad as pads
digits = SimpleNamespace(test_labels=torch.arange(10), test_images=torch.ones(10, 1, 8, 8))
pads.digits = lambda: digits
pad = pads.draw_digit(lambda image: torch.arange(10.0))
pad"""

KERNEL_WAITS = """() => {
  const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""


@dataclass
class Lab:
    """A running JupyterLab: its address with the base URL, and a folder of its own in its tree."""

    url: str
    folder: Path

    def path(self, notebook: str) -> str:
        """Of a notebook in the folder, as the server has it."""
        return (self.folder / notebook).relative_to(ROOT).as_posix()

    def address(self, notebook: str) -> str:
        """Of a notebook in the folder, signed in, in a workspace with nothing else open."""
        return f"{self.url}lab/tree/{self.path(notebook)}?token={TOKEN}&reset"

    def ask(self, method: str, what: str, body: Any) -> Any:
        """An answer of the server's REST interface."""
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(
            self.url + what, json.dumps(body).encode(), headers, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")


@dataclass
class Notebook:
    """A notebook open in a page, and the requests that wanted to leave the server's address.

    ``page.evaluate`` waits until a command has done its work.
    """

    page: Any
    refused: list[str]

    def do(self, command: str, **arguments: Any) -> None:
        self.page.evaluate(
            "([name, args]) => jupyterapp.commands.execute(name, args)", [command, arguments]
        )

    def run_all(self) -> None:
        self.do("notebook:run-all-cells")

    def run(self, cell: int) -> str:
        """Runs one cell; the text that it prints."""
        self.page.evaluate(f"jupyterapp.shell.currentWidget.content.activeCellIndex = {cell}")
        self.do("notebook:run-cell")
        return "".join(output.get("text", "") for output in self.outputs()[cell]).strip()

    def run_until(self, cell: int, printed: str) -> None:
        """Runs one cell until it prints this: messages of the page reach the kernel in between."""
        deadline = time.monotonic() + 10
        while (seen := self.run(cell)) != printed:
            assert time.monotonic() < deadline, f"printed {seen!r}, not {printed!r}"

    def save(self) -> None:
        self.do("docmanager:save")

    def load_anew(self) -> None:
        self.page.reload(wait_until="domcontentloaded")
        self.page.wait_for_function(KERNEL_WAITS)

    def restart(self) -> None:
        kernel = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
        self.page.evaluate(f"{kernel}.restart()")
        self.page.wait_for_function(KERNEL_WAITS)

    def outputs(self) -> list[list[dict[str, Any]]]:
        """Those of each cell, as the notebook would be saved now."""
        cells = self.page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON().cells")
        return [cell.get("outputs", []) for cell in cells]

    def graph(self, index: int) -> Any:
        """The frame of the view with this index on the page, once Netron has drawn."""
        box = self.page.locator(".ow-netron").nth(index)
        box.scroll_into_view_if_needed()
        try:
            box.and_(self.page.locator(".drawn")).wait_for()
        except Exception as error:
            raise AssertionError(f"not drawn: {box.inner_text()!r}") from error
        return box.locator("iframe").element_handle().content_frame()


def absent(what: str) -> None:
    """A laptop without a browser skips these tests; CI must not lose them in silence."""
    if os.environ.get("CI"):
        pytest.fail(f"CI is set, and {what}", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    with launched() as browser:
        yield browser


@contextmanager
def launched() -> Iterator[Any]:
    """The Chromium of this machine."""
    if sync_playwright is None:
        absent("playwright is not installed: pip install playwright")
    named = os.environ.get("ONNX_WORKBENCH_CHROMIUM")
    path = next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)
    if path is None:
        absent("there is no Chromium: install it, or set ONNX_WORKBENCH_CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def lab_command(options: list[str]) -> list[str]:
    """The README's command; under another Python than .venv's, what that command becomes."""
    if Path(sys.prefix).resolve() == ROOT / ".venv":
        return [sys.executable, str(ROOT / "workbench.py"), "lab", *options]
    spec = importlib.util.spec_from_file_location("workbench", ROOT / "workbench.py")
    workbench = importlib.util.module_from_spec(spec)
    sys.modules["workbench"] = workbench  # its dataclasses look themselves up
    spec.loader.exec_module(workbench)
    workbench.PYTHON = sys.executable
    return [*workbench.command("lab"), *options]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """Served below a base URL, as on Binder: an absolute address in a page fails there."""
    with serving("/user/jovyan/", tmp_path_factory.mktemp("home")) as running:
        yield running


@contextmanager
def serving(base_url: str, home: Path) -> Iterator[Lab]:
    """JupyterLab below this base URL, with settings and kernels of its own in ``home``."""
    build = ROOT / "build"  # the README's command shows this repository, so its copies lie inside
    build.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="browser-", dir=build))
    port = free_port()
    command = lab_command(
        [
            *("--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
            f"--IdentityProvider.token={TOKEN}",
            f"--ServerApp.base_url={base_url}",
            "--expose-app-in-browser",  # window.jupyterapp: commands by name instead of by menu
        ]
    )
    settings = {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "ONNX_WORKBENCH_HOME": str(home / "progress"),
        "TQDM_DISABLE": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    log = home / "lab.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            command, env=os.environ | settings, stdout=stream, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}{base_url}"
    try:
        wait_for(f"{url}api?token={TOKEN}", server, log)
        yield Lab(url, folder)
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}", pytrace=False)


@pytest.fixture(scope="session")
def context(browser) -> Any:
    """One for all notebooks: JupyterLab is fetched and compiled once."""
    return lab_context(browser)


def lab_context(browser: Any) -> Any:
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(60_000)
    context.add_init_script(KEEP_EVAL)
    return context


@pytest.fixture(scope="session")
def kernel(lab) -> str:
    """A kernel for the files that ask nothing of a new one; torch is imported there once."""
    return lab.ask("POST", "api/kernels", {"name": "python3", "path": lab.path("any.ipynb")})["id"]


@pytest.fixture(scope="module")
def open_notebook(context, lab) -> Iterator[Callable[..., Notebook]]:
    """Opens a copy of a notebook in a fresh page, with a kernel that waits: a new one, or this."""
    opened = []

    def open_(path: Path, kernel: str | None = None) -> Notebook:
        shutil.copy(path, lab.folder)
        if kernel:
            session = {"path": lab.path(path.name), "name": "", "type": "notebook"}
            lab.ask("POST", "api/sessions", {**session, "kernel": {"id": kernel}})
        opened.append(notebook := opening(context, lab, path.name))
        return notebook

    yield open_
    for notebook in opened:
        notebook.page.close()


@pytest.fixture(scope="module")
def open_cells(request, open_notebook, tmp_path_factory) -> Callable[..., Notebook]:
    """Opens a notebook of cells, which lines of ``===`` part."""

    def open_(cells: str, kernel: str | None = None) -> Notebook:
        path = tmp_path_factory.mktemp("notebooks") / f"{request.path.stem}.ipynb"
        spec = {"name": "python3", "display_name": "Python 3"}
        made = [new_code_cell(source) for source in cells.split("\n===\n")]
        nbformat.write(new_notebook(cells=made, metadata={"kernelspec": spec}), path)
        return open_notebook(path, kernel)

    return open_


@pytest.fixture(scope="module")
def run_cells(open_cells) -> Callable[..., Notebook]:
    """Opens a notebook of cells and runs them all."""

    def run(cells: str, kernel: str | None = None) -> Notebook:
        notebook = open_cells(cells, kernel)
        notebook.run_all()
        outputs = [output for cell in notebook.outputs() for output in cell]
        assert [output for output in outputs if output["output_type"] == "error"] == []
        return notebook

    return run


def opening(context: Any, lab: Lab, name: str) -> Notebook:
    """A notebook of the lab's folder in a new page."""
    page = context.new_page()
    notebook = Notebook(page, watched(page, lab.url))
    page.goto(lab.address(name), wait_until="domcontentloaded")
    page.wait_for_function(KERNEL_WAITS)
    return notebook


def until(frame: Any, condition: str, seconds: float = 60) -> None:
    """Waits for a condition in Netron's frame, which forbids the eval of Playwright's own wait
    unless it holds at once."""
    deadline = time.monotonic() + seconds
    while not frame.evaluate(condition):
        assert time.monotonic() < deadline, f"not met: {condition}"
        frame.wait_for_timeout(50)


def watched(page: Any, allowed: str) -> list[str]:
    """What the page asks for, from now on, that is not below one address."""
    refused: list[str] = []

    def note(request: Any) -> None:
        if not request.url.startswith((allowed, "data:", "blob:")):
            refused.append(request.url)

    page.on("request", note)
    return refused
