"""Set up and start the workbench: two commands on a machine that has Python and nothing else.

    python3 workbench.py lab      JupyterLab, open on your copy of the course, in course/
    python3 workbench.py test     the whole test suite
    python3 workbench.py check    what is installed, and whether it fits together

The first start makes `.venv` beside this file and installs what the verb needs; later starts skip
that. What follows the verb is passed on: `lab --no-browser --port 9999`, `test -k race`. Two
options are the workbench's own:

    --fresh                       sets your copy of the course aside, and begins a new one
    --torch cu130                 the build of PyTorch: a folder of download.pytorch.org/whl
                                  (cpu is the default; .venv remembers the choice)

Standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

OLDEST, NEWEST = (3, 11), (3, 14)  # the tested Pythons
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = str(BIN / ("python.exe" if os.name == "nt" else "python"))
STAMP = VENV / "workbench.json"  # written last: a .venv without it was never finished
LOG = ROOT / ".venv.log"  # what the commands of the last set-up printed
START = "00-start-here.ipynb"
INDEX = "https://download.pytorch.org/whl"
DISK = 2_500_000_000  # bytes that set-up needs, downloads included
MODULES = {  # each start looks for what its verb needs, and imports none
    "lab": (
        *("torch", "onnx", "onnxscript", "onnxruntime", "netron", "anywidget", "sklearn"),
        *("matplotlib", "lazy_loader", "jupyterlab", "ipykernel", "onnx_workbench"),
    ),
    "test": ("pytest", "nbval", "xdist"),
}
PROBE = (
    "import sys; from importlib.util import find_spec; "
    "print(*(n for n in sys.argv[1:] if getattr(find_spec(n), 'origin', None) is None))"
)
REPORT = (
    "import sys; sys.path.insert(0, sys.argv[1]); import onnx_workbench as ow; "
    "stack = ow.check(); print(stack); sys.exit(not stack)"
)


class Step(NamedTuple):
    """A step of the set-up; each of its ways is a list of commands, and the best comes first."""

    title: str
    size: int  # megabytes to download, roughly
    ways: list[list[list[str]]]
    cause: str
    remedy: str


def steps(build: str, extras: str) -> list[Step]:
    """The whole set-up; ``extras`` are those of pyproject.toml, such as ``"lab,test"``."""
    base = getattr(sys, "_base_executable", sys.executable)  # not a .venv that is being replaced
    venv = [base, "-m", "venv", "--clear", str(VENV)]
    seed = [base, "-m", "pip", "--python", PYTHON, "install", "--quiet", "pip"]
    pip = [PYTHON, "-m", "pip", "install", "-c", "constraints.txt"]
    torch = [*pip, "--no-deps", "torch"]  # first and alone: no other package pulls CUDA in
    published = [*torch, "--retries", "1", "--index-url", f"{INDEX}/{build}"]
    found = [*torch, "--no-index"]  # where PIP_FIND_LINKS names a folder
    return [
        Step(
            "make .venv",
            0,
            [[venv], [[*venv, "--without-pip"], seed]],
            "this Python comes with neither ensurepip nor pip (Debian packages them apart), "
            "or a program, such as a running JupyterLab, still uses .venv",
            "on Debian and Ubuntu: sudo apt install python3-venv; elsewhere close what uses .venv",
        ),
        Step(
            f"install PyTorch ({build})",
            190,
            [[found], [published], [torch]] if build == "cpu" else [[published]],
            f"no network, a proxy that pip does not know, or no build `{build}` for this Python",
            "behind a proxy set HTTPS_PROXY; with the wheel at hand set PIP_FIND_LINKS",
        ),
        Step(
            f"install the workbench with what {extras.replace(',', ' and ')} needs",
            200,
            [[[*pip, "-e", f".[{extras}]"]]],
            "the package index did not answer, or has no build of a pinned package for this Python",
            "read the log; behind a proxy set HTTPS_PROXY",
        ),
    ]


def run(command: list[str], title: str, size: int = 0) -> bool:
    """Whether a command succeeds; its output goes to the log, its progress to the terminal."""
    settings, start = environment(), time.monotonic()
    if "--index-url" in command:
        settings["PIP_EXTRA_INDEX_URL"] = command[-1]  # the user's may have other builds
    place = VENV if VENV.exists() else None
    fetched = tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True)
    with fetched as folder, LOG.open("a", encoding="utf-8") as log:
        settings.update(TMPDIR=folder, TEMP=folder, TMP=folder)  # pip keeps its downloads there
        print("$", *command, file=log, flush=True)
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        try:
            process = subprocess.Popen(command, cwd=ROOT, env=settings, **streams)
        except OSError as error:
            print(error, file=log)
            return False
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if sys.stdout.isatty():
                    line = f"{title}, {time.monotonic() - start:.0f} s {bar(folder, size)}"
                    print(f"\r{line:<79}", end="", flush=True)
        finally:
            process.kill()
            process.wait()
    return process.returncode == 0


def bar(folder: str, size: int) -> str:
    """How much of ``size`` megabytes has arrived in a folder; empty while nothing has."""
    try:
        done = sum(file.stat().st_size for file in Path(folder).rglob("*")) / 1e6
    except OSError:  # pip has just moved one of them
        return ""
    full = min(16, round(16 * done / size)) if size else 0
    return f"[{'#' * full}{'.' * (16 - full)}] {done:.0f} MB" if full else ""


def environment() -> dict[str, str]:
    """The environment of an activated .venv, without settings that would reach outside of it."""
    outside = ("PYTHONHOME", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in outside}
    return kept | {
        "VIRTUAL_ENV": str(VENV),
        "PATH": os.pathsep.join((str(BIN), os.environ.get("PATH", os.defpath))),
        "PYTHONUTF8": "1",  # Windows: notebooks and reports are UTF-8, whatever the console is
        "PIP_USER": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel `python3` is the one of .venv
    }


def fingerprint(build: str) -> str:
    """What a finished .venv depends on: Python, the place, the pins and the requirements."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("\n[tool.")[0]
    facts = (sys.version_info[:2], str(ROOT), build, pins, project)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def stamp() -> dict[str, str]:
    try:
        return json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def lacks(verb: str) -> str:
    """The modules that .venv's Python does not find; "a Python that runs" if it does not start."""
    modules = MODULES["lab"] + (MODULES["test"] if verb == "test" else ())
    try:
        command = [PYTHON, "-c", PROBE, *modules]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    except OSError:
        return "a Python that runs"
    return "a Python that runs" if done.returncode else done.stdout.strip()


def unready(build: str, verb: str) -> str:
    """Why .venv has to be made; empty where it is complete and up to date."""
    if "fingerprint" not in stamp():
        return "its set-up was not finished" if VENV.exists() else "there is no .venv yet"
    absent = lacks(verb)
    if absent:
        return f"it lacks {absent}"
    changed = stamp()["fingerprint"] != fingerprint(build)
    return "Python, the pins or the place of the project changed" if changed else ""


def set_up(build: str, verb: str) -> None:
    """Make .venv from nothing where it is not complete; its stamp is the last thing written.

    What the tests need is added to a .venv that is complete for `lab`.
    """
    why, start = unready(build, verb), time.monotonic()
    if not why:
        return
    chosen = steps(build, "lab,test" if verb == "test" else "lab")
    try:
        LOG.write_text("", encoding="utf-8")
    except OSError as error:
        sys.exit(
            f"Set-up writes to {ROOT}, which refuses: {error.strerror}.\n"
            "Copy the project to a folder of your own, and start it there."
        )
    if unready(build, "lab"):
        print(f"Setting up {VENV}: {why}. This takes a minute or two and about 2 GB.")
        STAMP.unlink(missing_ok=True)
    else:
        print(f"Adding to {VENV}: {why}.")
        del chosen[:-1]
    for number, step in enumerate(chosen, start=1):
        begun, title = time.monotonic(), f"[{number}/{len(chosen)}] {step.title}"
        if not any(all(run(each, title, step.size) for each in way) for way in step.ways):
            sys.exit(failure(step))
        line = f"{title}: {time.monotonic() - begun:.0f} s"
        print(f"\r{line:<79}" if sys.stdout.isatty() else line, flush=True)
    ask_no_news(VENV)
    STAMP.write_text(json.dumps({"torch": build, "fingerprint": fingerprint(build)}))
    print(f"Ready after {time.monotonic() - start:.0f} s.")


def failure(step: Step) -> str:
    """What the step printed last, the likely cause and what to do."""
    places = {shutil.disk_usage(at).free: at for at in (ROOT, tempfile.gettempdir())}
    free = min(places)
    full = f"{places[free]} has {free / 1e9:.1f} GB free, and set-up needs {DISK / 1e9} GB"
    printed = LOG.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(
        [
            f"\nSet-up stopped at the step: {step.title}",
            *(f"    {line}" for line in printed[-5:]),
            f"  The whole log: {LOG}",
            f"  Likely cause: {full if free < DISK else step.cause}",
            f"  Next: {step.remedy}; then the same command again",
        ]
    )


def ask_no_news(prefix: str | Path) -> None:
    """JupyterLab's question about news covers the first notebook, and a yes asks other hosts."""
    path = Path(prefix, "share/jupyter/lab/settings/overrides.json")  # the user's settings win
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}')


def course(fresh: bool) -> Path:
    """Make the learner's copy of the notebooks, or bring it up to date, and return its folder."""
    make = [PYTHON, "-m", "onnx_workbench.lessons.copies", str(ROOT / "notebooks")]
    make += ["--fresh"] if fresh else []
    made = subprocess.run(
        make, env=environment(), stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    )
    if made.returncode:
        sys.exit("The copy of the course could not be made; the reason is above.")
    return Path(made.stdout.splitlines()[-1])


def command(verb: str, fresh: bool = False) -> list[str]:
    if verb == "lab":
        folder = course(fresh)
        place = [
            f"--ServerApp.root_dir={folder.parent}",
            f"--LabApp.default_url=/lab/tree/{folder.name}/{START}",
        ]
        as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        quiet = "--Application.log_level=WARN"  # the address is more than a warning
        return [PYTHON, "-m", "jupyterlab", *place, *as_root, quiet]
    if verb == "test":  # two files at a time; the long ones, notebooks and browser, first
        return [PYTHON, "-m", "pytest", "--numprocesses=2", "--no-loadscope-reorder"]
    python = sys.executable if lacks("lab") == "a Python that runs" else PYTHON
    return [python, "-c", REPORT, str(ROOT / "src")]


def become(command: list[str]) -> int:
    """Hand the terminal, signals and exit code over to the command."""
    os.chdir(ROOT)
    sys.stdout.flush()
    if os.name != "nt":
        os.execve(command[0], command, environment())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command answers Ctrl-C
    return subprocess.call(command, env=environment())


def look_at_python() -> None:
    """An old Python is an error, a new one a warning: pip says whether it finds the wheels."""
    tested = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    this = f"this is {sys.version.split()[0]} ({sys.executable})"
    if sys.version_info[:2] < OLDEST:
        names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1] + 1)]
        found = next(filter(shutil.which, names), "")
        advice = f"Use {found}, which is here" if found else "Install one, say from python.org"
        sys.exit(f"The workbench needs Python {tested}; {this}.\n{advice}.")
    if sys.version_info[:2] > NEWEST:
        print(f"The workbench is tested on Python {tested}; {this}.", file=sys.stderr)


def main(arguments: list[str]) -> int:
    look_at_python()
    verb, *rest = arguments or [""]
    if verb not in ("lab", "test", "check"):
        if verb and verb not in ("-h", "--help"):
            print(f"{verb!r} is not a command.\n")
        print(__doc__)
        return 0 if verb in ("-h", "--help") else 2
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--torch", default=stamp().get("torch", "cpu"))
    options.add_argument("--fresh", action="store_true")
    chosen, rest = options.parse_known_args(rest)
    if verb != "check":
        set_up(chosen.torch, verb)
    else:
        why = unready(chosen.torch, "lab")
        if why:
            print(f"Not set up: {why}. To set up: python3 workbench.py lab\n")
    return become([*command(verb, chosen.fresh), *rest])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end the running pip too
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nInterrupted. The same command starts over.", file=sys.stderr)
        sys.exit(130)
