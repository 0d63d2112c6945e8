"""JupyterLab as the README starts it, and a browser that may talk to it and to nobody else."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect, sync_playwright
except ImportError:  # launched() says so
    Axe = expect = sync_playwright = None

WAIT = 120
"""Seconds that anything may take that is waited for: a CI machine may be slow, and another program
may run on it. Playwright's own 5 s for expect() are too few."""
if expect:
    expect.set_options(timeout=WAIT * 1000)

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "browser-test"
SIZE = {"width": 1280, "height": 1000}
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

# JavaScript: the notebook that is shown, and its kernel.
SHOWN = "jupyterapp.shell.currentWidget"
KERNEL = f"{SHOWN}.sessionContext.session.kernel"
KERNEL_WAITS = f"""() => {{
  const kernel = {SHOWN}?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}}"""


@dataclass
class Lab:
    """A running JupyterLab: its address with the base URL, and a folder of its own in its tree."""

    url: str
    folder: Path

    def path(self, notebook: str) -> str:
        """Of a notebook in the folder, as the server has it."""
        return (self.folder / notebook).relative_to(ROOT).as_posix()

    def ask(self, method: str, what: str, body: Any) -> Any:
        """An answer of the server's REST interface."""
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(
            self.url + what, json.dumps(body).encode(), headers, method=method
        )
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return json.loads(answer.read() or "null")


@dataclass
class Notebook:
    """A notebook open in a page of JupyterLab; ``path`` is its own on the server.

    ``page.evaluate`` waits until a command has done its work.
    """

    page: Any
    path: str

    def do(self, command: str, **arguments: Any) -> None:
        """Runs a command, whose result may be all of JupyterLab: it stays there."""
        self.page.evaluate(
            "([name, args]) => jupyterapp.commands.execute(name, args).then(() => {})",
            [command, arguments],
        )

    def open(self) -> None:
        """Shows the notebook as it was saved; its kernel waits."""
        self.do("docmanager:open", path=self.path)
        self.page.wait_for_function(KERNEL_WAITS)

    def save(self) -> None:
        self.do("docmanager:save")

    def open_again(self) -> None:
        """As it was saved."""
        self.page.evaluate(f"{SHOWN}.dispose()")
        self.open()

    def run_all(self) -> None:
        self.do("notebook:run-all-cells")

    def run(self, cell: int) -> str:
        """Runs one cell; the text that it prints."""
        self.page.evaluate(f"{SHOWN}.content.activeCellIndex = {cell}")
        self.do("notebook:run-cell")
        return "".join(output.get("text", "") for output in self.outputs(cell)).strip()

    def run_until(self, cell: int, printed: str) -> None:
        """Runs one cell until it prints this: messages of the page reach the kernel in between."""
        deadline = time.monotonic() + WAIT
        while (seen := self.run(cell)) != printed:
            assert time.monotonic() < deadline, f"printed {seen!r}, not {printed!r}"

    def restart(self) -> None:
        self.page.evaluate(f"{KERNEL}.restart()")
        self.page.wait_for_function(KERNEL_WAITS)

    def outputs(self, cell: int) -> list[dict[str, Any]]:
        """Those of a cell, as the notebook would be saved now."""
        return self.page.evaluate(f"{SHOWN}.content.model.cells.get({cell}).toJSON().outputs ?? []")

    def graph(self, index: int) -> Any:
        """The frame of the view with this index on the page, once Netron has drawn."""
        box = self.page.locator(".ow-netron").nth(index)
        box.scroll_into_view_if_needed()
        return drawing(self.page, index)

    def metrics(self) -> dict[str, int]:
        """How many frames and listeners the page holds, once a collection finds none to free."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Performance.enable")
        seen, before, deadline = {}, None, time.monotonic() + WAIT
        while seen != before and time.monotonic() < deadline:
            # each SVG is a frame, until its image leaves the cache
            session.send("Memory.simulatePressureNotification", {"level": "critical"})
            for _ in range(3):
                session.send("HeapProfiler.collectGarbage")
            told = session.send("Performance.getMetrics")["metrics"]
            found = {metric["name"]: int(metric["value"]) for metric in told}
            seen, before = {name: found[name] for name in ("Frames", "JSEventListeners")}, seen
        session.detach()
        return seen


FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def drawing(page: Any, index: int = 0) -> Any:
    """The frame of the view with this index on a page, once Netron has drawn and hears keys: that
    is two frames after it has told its size."""
    box = page.locator(".ow-netron").nth(index)
    try:
        box.and_(page.locator(".drawn")).wait_for()
    except Exception as error:
        raise AssertionError(f"not drawn: {box.inner_text()!r}") from error
    frame = box.locator("iframe").element_handle().content_frame()
    frame.evaluate(FRAMES)
    return frame


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
        absent("a package is missing: pip install playwright axe-playwright-python")
    named = os.environ.get("ONNX_WORKBENCH_CHROMIUM")
    path = next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)
    if path is None:
        absent("there is no Chromium: install it, or set ONNX_WORKBENCH_CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=WAIT * 1000)
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
    command = lab_command(
        [
            *("--no-browser", "--ip=127.0.0.1", "--port=0"),
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
    try:
        yield Lab(address(home / "runtime", server, log), folder)
    finally:
        server.terminate()
        server.wait(WAIT)
        shutil.rmtree(folder, ignore_errors=True)


def address(runtime: Path, server: subprocess.Popen, log: Path) -> str:
    """Where the server listens, by the file that it writes then: it has chosen the port itself."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end and server.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            with suppress(ValueError):  # it is being written
                return json.loads(file.read_text())["url"]
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}", pytrace=False)


def new_context(browser: Any, **options: Any) -> Any:
    """A context of its own fetches and compiles all that it shows."""
    context = browser.new_context(**{"viewport": SIZE, **options})
    context.set_default_timeout(WAIT * 1000)
    context.add_init_script(KEEP_EVAL)
    return context


@pytest.fixture(scope="session")
def lab_page(browser, lab) -> Any:
    """JupyterLab, loaded once for all notebooks."""
    return load(new_context(browser), lab)


def load(context: Any, lab: Lab) -> Any:
    """JupyterLab in a new page, in a workspace with nothing open."""
    page = context.new_page()
    page.goto(f"{lab.url}lab?token={TOKEN}&reset", wait_until="domcontentloaded")
    page.wait_for_function("() => window.jupyterapp?.restored.then(() => true)")
    return page


@pytest.fixture(scope="session")
def kernel(lab) -> str:
    """A kernel for the files that ask nothing of a new one; torch is imported there once."""
    return lab.ask("POST", "api/kernels", {"name": "python3", "path": lab.path("any.ipynb")})["id"]


@pytest.fixture(scope="module")
def open_cells(request, lab, lab_page) -> Iterator[Callable[..., Notebook]]:
    """Opens a notebook of cells, which lines of ``===`` part, with a new kernel or with this.

    In the end its page must have asked nobody but the server for anything.
    """
    refused = watched(lab_page, lab.url)
    lab_page.set_viewport_size(SIZE)

    def open_(cells: str, kernel: str | None = None) -> Notebook:
        file = lab.folder / f"{request.path.stem}.ipynb"
        spec = {"name": "python3", "display_name": "Python 3"}
        made = [new_code_cell(source) for source in cells.split("\n===\n")]
        nbformat.write(new_notebook(cells=made, metadata={"kernelspec": spec}), file)
        notebook = Notebook(lab_page, lab.path(file.name))
        if kernel:
            session = {"path": notebook.path, "name": "", "type": "notebook"}
            lab.ask("POST", "api/sessions", {**session, "kernel": {"id": kernel}})
        notebook.open()
        return notebook

    yield open_
    lab_page.evaluate(f"{SHOWN}?.dispose()")
    assert refused == []


@pytest.fixture(scope="module")
def run_cells(open_cells) -> Callable[..., Notebook]:
    """Opens a notebook of cells and runs them all."""

    def run(cells: str, kernel: str | None = None) -> Notebook:
        notebook = open_cells(cells, kernel)
        notebook.run_all()
        for cell in range(cells.count("\n===\n") + 1):
            assert [each for each in notebook.outputs(cell) if each["output_type"] == "error"] == []
        return notebook

    return run


@pytest.fixture(scope="module")
def open_file(browser) -> Iterator[Callable[..., Any]]:
    """Opens a saved page, the same file in the same page. It must ask nobody for anything."""
    pages: dict[str, Any] = {}
    refused = []

    def open_(path: Path, script: str = "", **options: Any) -> Any:
        address = path.as_uri()
        key = f"{address} {options}"
        if key not in pages:
            pages[key] = new_context(browser, **options).new_page()
            pages[key].add_init_script(script)
            refused.append(watched(pages[key], address))
        page = pages[key]
        page.emulate_media(media="screen", color_scheme="light")
        page.set_viewport_size(SIZE)
        page.goto(address)
        return page

    yield open_
    for page in pages.values():
        page.context.close()
    assert not any(refused)


def until(frame: Any, condition: str | Callable[[], bool], seconds: float = WAIT) -> None:
    """Waits for a condition, of JavaScript or of Python. Netron's frame forbids the eval of
    Playwright's own wait unless the condition holds at once."""
    met = condition if callable(condition) else lambda: frame.evaluate(condition)
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"not met: {condition}"
        frame.wait_for_timeout(50)


def at_rest(element: Any, seconds: float = WAIT) -> dict[str, float]:
    """The place of an element on the page, once it has stood there for a tenth of a second: what
    is drawn again has no place for a moment, and what makes room moves."""
    deadline, seen = time.monotonic() + seconds, None
    while True:
        seen, before = element.bounding_box(), seen
        if seen and seen == before:
            return seen
        assert time.monotonic() < deadline, f"moves still: {element}"
        element.page.wait_for_timeout(100)


def watched(page: Any, allowed: str) -> list[str]:
    """What the page asks for, from now on, that is not below one address."""
    refused: list[str] = []

    def note(request: Any) -> None:
        if not request.url.startswith((allowed, "data:", "blob:")):
            refused.append(request.url)

    page.on("request", note)
    return refused


def findings(place: Any) -> list[str]:
    """What axe-core finds in a page or a frame that is serious: its rules and elements. A page does
    not answer for its frames: ask each of them. See https://dequeuniversity.com/rules/axe."""
    options = {"resultTypes": ["violations"], "iframes": False}
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in Axe().run(place, options=options).response["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
