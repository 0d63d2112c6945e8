"""Set up and start the workbench: two commands on a machine that has Python and nothing else.

    python3 workbench.py lab      JupyterLab, open on notebooks/00-start-here.ipynb
    python3 workbench.py test     the whole test suite
    python3 workbench.py check    what is installed, and whether it fits together

The first start makes `.venv` beside this file and installs everything into it; later starts find it
complete and skip that. What follows the verb is passed on: `lab --no-browser --port 9999`,
`test -k race`. One option is the workbench's own:

    --torch cu130                 the build of PyTorch: a folder of download.pytorch.org/whl
                                  (cpu is the default; the choice is remembered in .venv)

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
from dataclasses import dataclass, field
from pathlib import Path

PYTHONS = ((3, 11), (3, 12), (3, 13))
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = str(BIN / ("python.exe" if os.name == "nt" else "python"))
STAMP = VENV / "workbench.json"  # written last: a .venv without it was never finished
DEFAULTS = VENV / "share/jupyter/lab/settings/overrides.json"  # JupyterLab's, the user's win
START = "notebooks/00-start-here.ipynb"
INDEX = "https://download.pytorch.org/whl"
DISK = 2_500_000_000  # bytes that set-up needs, downloads included

# A module of each part that `lab` and `test` stand on; looked for, never imported, at each start.
MODULES = (
    *("torch", "onnx", "onnxscript", "onnxruntime", "netron", "anywidget", "sklearn", "matplotlib"),
    *("lazy_loader", "jupyterlab", "ipykernel", "pytest", "nbval", "xdist", "onnx_workbench"),
)

PROBE = """
import sys
from importlib.util import find_spec
specs = {name: find_spec(name) for name in sys.argv[1:]}
print(*(name for name, spec in specs.items() if spec is None or spec.origin is None))
"""

REPORT = """
import sys
sys.path.insert(0, sys.argv[1])
from onnx_workbench import check
stack = check()
print(stack)
sys.exit(not stack)
"""


@dataclass(frozen=True)
class Way:
    """One way to take a step: commands that run in order, each of which must succeed.

    A `quiet` way often fails on a healthy machine, where the next one works: it says nothing.
    """

    what: str
    commands: tuple[list[str], ...]
    settings: dict[str, str] = field(default_factory=dict)
    quiet: bool = False

    def taken(self) -> bool:
        print(f"      {self.what}", flush=True)
        return all(run(command, self.settings, self.quiet) for command in self.commands)


@dataclass(frozen=True)
class Step:
    """A step of the set-up: the ways to take it, best first, and what to say when none worked."""

    title: str
    ways: tuple[Way, ...]
    cause: str
    remedy: str

    def take(self) -> None:
        for way in self.ways:
            if way.taken():
                return
            print("      that did not work", flush=True)
        raise SetupError(self)


class SetupError(Exception):
    """A step failed: which one, the likely cause, and what to do next."""

    def __init__(self, step: Step) -> None:
        super().__init__(
            f"\nSet-up stopped at the step: {step.title}"
            f"\n  Likely cause: {full_disk() or step.cause}"
            f"\n  Next: {step.remedy}"
            f"\n  Then: {again()}"
        )


def steps(flavour: str) -> tuple[Step, ...]:
    """The whole set-up, one for all verbs: what `lab` shows is what `test` has tested."""
    return (make_venv(), install_torch(flavour), install_project())


def make_venv() -> Step:
    base = getattr(sys, "_base_executable", sys.executable)  # not a .venv that is being replaced
    venv = [base, "-m", "venv", "--clear"]
    seed = [base, "-m", "pip", "--python", PYTHON, "install", "--quiet", "pip"]
    return Step(
        "make .venv",
        (
            Way("with the pip that comes with Python", ([*venv, str(VENV)],), quiet=True),
            Way("with the pip found beside it", ([*venv, "--without-pip", str(VENV)], seed)),
        ),
        "this Python comes with neither ensurepip nor pip (Debian packs them apart), "
        "or a program, such as a running JupyterLab, still uses .venv",
        "on Debian and Ubuntu: sudo apt install python3-venv; elsewhere close what uses .venv",
    )


def install_torch(flavour: str) -> Step:
    """PyTorch first and alone: no other package may pull another build, or CUDA, in its place."""
    alone = pip("--no-deps", "torch")
    index = f"{INDEX}/{flavour}"
    found = Way("from a file that pip already finds", ([*alone, "--no-index"],), quiet=True)
    published = Way(
        f"from {index}",
        ([*alone, "--index-url", index, "--retries", "1"],),
        {"PIP_EXTRA_INDEX_URL": index},  # in place of one in pip's settings, with other builds
    )
    default = Way("from the default index (for Linux: with CUDA, several GB more)", (alone,))
    return Step(
        f"install PyTorch ({flavour}, about 200 MB)",
        (found, published, default) if flavour == "cpu" else (published,),
        f"no network, a proxy that pip does not know, or no build `{flavour}` for this Python",
        "behind a proxy set HTTPS_PROXY; with the wheel at hand set PIP_FIND_LINKS to its folder",
    )


def install_project() -> Step:
    return Step(
        "install the workbench, ONNX, ONNX Runtime and JupyterLab (about 200 MB)",
        (Way("from the default index, pinned by constraints.txt", (pip("-e", ".[lab,test]"),)),),
        "the package index did not answer, or has no build of a pinned package for this Python",
        "read pip's last lines above; behind a proxy set HTTPS_PROXY",
    )


def pip(*arguments: str) -> list[str]:
    return [PYTHON, "-m", "pip", "install", "-c", "constraints.txt", *arguments]


def run(command: list[str], settings: dict[str, str], quiet: bool) -> bool:
    output = subprocess.DEVNULL if quiet else None
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment() | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    except OSError as error:
        print(f"      {error}", file=sys.stderr)
        return False
    return done.returncode == 0


def environment() -> dict[str, str]:
    """The environment of an activated .venv, free of settings that would reach around it."""
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


def fingerprint(flavour: str) -> str:
    """What a finished .venv depends on: Python, the commands, the pins and the requirements."""
    import tomllib  # not before Python 3.11, and older ones must get as far as their sentence

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    commands = (install_torch(flavour), install_project())
    facts = (sys.version_info[:2], commands, pins, project["build-system"], project["project"])
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def stamp() -> dict[str, str]:
    try:
        return json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def missing() -> list[str] | None:
    """The modules that .venv's Python does not find; None where that Python does not run."""
    try:
        done = subprocess.run(
            [PYTHON, "-c", PROBE, *MODULES], env=environment(), capture_output=True, text=True
        )
    except OSError:
        return None
    return done.stdout.split() if done.returncode == 0 else None


def unready(flavour: str) -> str | None:
    """Why .venv has to be made, in words; None where it is complete and up to date."""
    if not VENV.exists():
        return "there is no .venv yet"
    if "fingerprint" not in stamp():
        return "its set-up was not finished"
    absent = missing()
    if absent is None:
        return "its Python does not run"
    if absent:
        return f"it lacks {', '.join(absent)}"
    if stamp()["fingerprint"] != fingerprint(flavour):
        return "Python, the pins or the place of the project changed"
    return None


def set_up(flavour: str) -> None:
    """Make .venv from nothing where it is not complete; its stamp is the last thing written."""
    why = unready(flavour)
    if why is None:
        return
    plan, began = steps(flavour), time.monotonic()
    print(f"Setting up {VENV}: {why}. This takes a minute or two and about 2 GB.")
    STAMP.unlink(missing_ok=True)
    for number, step in enumerate(plan, start=1):
        print(f"[{number}/{len(plan)}] {step.title}", flush=True)
        step.take()
    # Else a question about news covers the first notebook, and a yes sends requests to other hosts.
    DEFAULTS.parent.mkdir(parents=True, exist_ok=True)
    DEFAULTS.write_text('{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}')
    done = STAMP.with_suffix(".new")
    done.write_text(json.dumps({"torch": flavour, "fingerprint": fingerprint(flavour)}))
    done.replace(STAMP)
    print(f"Set up in {time.monotonic() - began:.0f} s.", flush=True)


def full_disk() -> str | None:
    """The disk that is too full to go on, in words."""
    for place in (ROOT, Path(tempfile.gettempdir())):
        free = shutil.disk_usage(place).free
        if free < DISK:
            return f"{place} has {free / 1e9:.1f} GB free, and set-up needs {DISK / 1e9:.1f} GB"
    return None


def lab(arguments: list[str]) -> list[str]:
    """JupyterLab, open on the first notebook."""
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [
        *(PYTHON, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}"),
        f"--LabApp.default_url=/lab/tree/{START}",
        *as_root,
        *arguments,
    ]


def test(arguments: list[str]) -> list[str]:
    """Two files at a time, each whole in one process: a notebook's cells share a kernel."""
    return [PYTHON, "-m", "pytest", "--numprocesses=2", "--dist=loadfile", *arguments]


def check(arguments: list[str]) -> list[str]:
    """The report of .venv, or of this Python where .venv has none that runs."""
    python = PYTHON if missing() is not None else sys.executable
    return [python, "-c", REPORT, str(ROOT / "src"), *arguments]


VERBS = {"lab": lab, "test": test, "check": check}


def become(command: list[str]) -> int:
    """Hand the terminal, signals and exit code over to the command."""
    os.chdir(ROOT)
    sys.stdout.flush()
    if os.name != "nt":
        os.execve(command[0], command, environment())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's to answer
    return subprocess.run(command, env=environment(), check=False).returncode


def another_python() -> str:
    """What to say to a Python that the pins were not made for."""
    names = [f"python{major}.{minor}" for major, minor in PYTHONS]
    found = next(filter(shutil.which, names), None)
    advice = f"{found} is here" if found else "Install one, say from python.org"
    return (
        f"The workbench needs Python 3.11, 3.12 or 3.13; this is {sys.version.split()[0]}"
        f" ({sys.executable}).\n{advice}; then: {again(found or names[0])}"
    )


def again(python: str | None = None) -> str:
    """The command that the user typed, with this Python or another."""
    name = Path(sys.executable).name
    here = name if shutil.which(name) == sys.executable else sys.executable
    return " ".join([python or here, "workbench.py", *sys.argv[1:]])


def main(arguments: list[str]) -> int:
    if sys.version_info[:2] not in PYTHONS:
        sys.exit(another_python())
    verb, *rest = arguments or [""]
    if verb not in VERBS:
        print(__doc__)
        return 0 if verb in ("-h", "--help") else 2
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--torch", default=stamp().get("torch", "cpu"))
    chosen, rest = options.parse_known_args(rest)
    if verb != "check":
        set_up(chosen.torch)
    elif unready(chosen.torch):
        print(f"Not set up: {unready(chosen.torch)}. To set up: python3 workbench.py lab\n")
    return become(VERBS[verb](rest))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end the running pip too
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print(f"\nInterrupted. The same command starts over: {again()}", file=sys.stderr)
        sys.exit(130)
    except SetupError as failure:
        sys.exit(str(failure))
