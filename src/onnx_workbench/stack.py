"""Which packages are installed, whether they fit together, and the command that fixes each problem.

No package of the stack is imported into this process, so the report also appears where torch is
missing, broken, or crashes on import. Standard library alone, and ``packaging`` where there is one.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from .errors import MissingPackageError
from .formatting import Code, Part, Report, Table, plural

_PROJECT = "onnx-workbench"
_OPTIONAL = {  # the extras that the report includes
    "view": "needed to show a graph or the floors in a page",
    "plot": "needed only to plot",
    "lessons": "needed only for the lessons",
    "lab": "needed only to open the notebooks",
}
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_REQUIREMENT = re.compile(r"([\w.-]+)\s*([^;\s]*)(?:.*extra == ['\"](\w+)['\"])?")
_PIN = re.compile(r"^([\w.-]+)==([^;\s]+)", re.MULTILINE)
_STATEMENTS = {
    "torch": "import torch; torch.zeros(1).numpy()",  # fails if built for another NumPy
    "onnxscript": "from onnxscript import opset18",
    "scikit-learn": "import sklearn",
    "pillow": "import PIL",
}
_FIXES = {  # by verdict: what to say, and the option of pip that fixes it
    "out of range": ("{name} {version} is out of the range {required}.", "--upgrade"),
    "broken": ("{name} {version} is broken: `{tried}` gives {error}.", "--force-reinstall"),
}
_WHY_SCRIPT = " torch.onnx.export translates each operator with its library."
_BUILD = "; found = torch.__version__"  # has the label of the build, which pip may not record
_EXPORTERS = (  # from the release on, which call captures a model with Dynamo
    ("2.9", "torch.onnx.export(model, args, f) works there, too, since dynamo=True is its default"),
    ("2.5", "there it is torch.onnx.export(model, args, f, dynamo=True)"),
    ("2.1", "there it is torch.onnx.dynamo_export(model, *args).save(f), gone since 2.9"),
    ("0", "no exporter there uses Dynamo: torch.onnx.export records one run with TorchScript"),
)
_CHILD = """
import gc, json, os, sys
gc.disable()  # imports run 15 % faster
for statement in sys.argv[1:]:
    scope, error = {}, ""
    try:
        exec(statement, scope)
    except BaseException as caught:  # SystemExit too: some packages call sys.exit() when imported
        first = next(iter(str(caught).strip().splitlines()), "")
        error = f"{type(caught).__name__}: {first}".rstrip(": ")
    print("\\noutcome:", json.dumps([error, scope.get("found")]), flush=True)
    if error:
        break
os._exit(0)  # a crash at shutdown does not count
"""
_OUTCOME = re.compile(r"^outcome: (.*)$", re.MULTILINE)


def check() -> Stack:
    """Look up every package of the stack, try to import it, and read the three clocks of ONNX.

    The imports run in other processes, so a crash does not stop the check. The clocks are read from
    small models that are exported, checked and loaded. Takes some seconds.

    Raises:
        importlib.metadata.PackageNotFoundError: the requirements are unknown, because this package
            is neither installed nor next to its ``pyproject.toml``.

    >>> stack = check()  # doctest: +SKIP
    >>> bool(stack), stack.clashes  # doctest: +SKIP
    (True, ())
    """
    packages = [p for p in _packages() if not p.extra or p.extra in _OPTIONAL]
    clocks = f"from {__name__} import read_clocks; found = {{}}; read_clocks(found)"
    imports = {p.name: p.tried + _BUILD * (p.name == "torch") for p in packages if p.installed}
    extras = [imports[p.name] for p in packages if p.installed and p.extra]
    required = [statement for statement in imports.values() if statement not in extras]
    sets = [*required, clocks], extras  # the clocks need what is required: import it once
    with ThreadPoolExecutor() as pool:
        outcomes = dict(zip(chain(*sets), chain(*pool.map(isolated_imports, sets)), strict=True))
    error, found = outcomes[clocks]
    results = {name: outcomes[statement] for name, statement in imports.items()}
    for at, package in enumerate(packages):
        failed, version = results.get(package.name, ("", None))
        packages[at] = replace(package, error=failed, installed=version or package.installed)
    return Stack(
        tuple(packages),
        tuple(name for name in _RUNTIMES if _installed(name)),
        Clocks(**{name: Reading(*pair) for name, pair in (found or {}).items()}, error=error),
        _platform(packages),
    )


@contextmanager
def needs(task: str, *extras: str) -> Iterator[None]:
    """Name what the optional part of the project that ``task`` uses lacks, and the line to type.

    Raises:
        MissingPackageError: the body imports a package that is not installed.

    >>> with needs("A plot", "plot"):
    ...     import matplotlib
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = [p for p in _packages() if p.extra in extras and not p.installed]
        if not missing:
            raise
        fix = _install(missing, "")
        raise MissingPackageError(f"{task} needs more: {fix.what}", fix.command) from error


@dataclass(frozen=True)
class Clash:
    """What keeps the stack from working, and the one command that fixes it."""

    what: str
    command: str


@dataclass(frozen=True)
class Package:
    """A requirement of the project and what is installed for it.

    ``installed`` is the version, or None; ``tried`` is the statement that was run and ``error`` is
    what it raised; ``extra`` is the optional part of the project that needs the package;
    ``tested`` is the version that the project was tested with, "" if that is not known.
    """

    name: str
    installed: str | None
    required: str
    tried: str
    error: str = ""
    extra: str = ""
    tested: str = ""

    @property
    def is_newer(self) -> bool:
        """Whether it is newer than what was tested.

        >>> Package("torch", "2.15.0+cpu", ">=2.9", "import torch", tested="2.13.0").is_newer
        True
        """
        fits = self.tested and self.verdict == "ok"
        return bool(fits) and not _fits(self.version, f"<={self.tested}")

    @property
    def version(self) -> str:
        """The version without the build label: ``2.13.0+cpu`` is ``2.13.0``."""
        return (self.installed or "-").partition("+")[0]

    @property
    def verdict(self) -> str:
        """``ok``, ``missing``, ``absent`` (missing, but optional), ``out of range`` or ``broken``.

        >>> Package("torch", "2.5.1+cpu", ">=2.9", "import torch").verdict
        'out of range'
        """
        if self.installed is None:
            return "absent" if self.extra else "missing"
        if not _fits(self.installed, self.required):
            return "out of range"
        return "broken" if self.error else "ok"

    @property
    def index(self) -> str:
        """The option of pip for PyTorch's index, which has a folder for each build: cpu, cu124."""
        build = (self.installed or "+cpu").partition("+")[2] if self.name == "torch" else ""
        return f" --index-url https://download.pytorch.org/whl/{build}" if build else ""

    def fix(self) -> Clash:
        """For a package that is out of range or broken."""
        sentence, option = _FIXES[self.verdict]
        what = sentence.format(version=self.version, **vars(self))
        why = ""
        if (self.name, self.verdict) == ("torch", "out of range"):
            call = next(call for since, call in _EXPORTERS if _fits(self.version, f">={since}"))
            why = f" This project needs a newer one; to export without it, {call}."
        command = f'python -m pip install {option} "{self.name}{self.required}"{self.index}'
        return Clash(what + why, command)

    def _row(self) -> tuple[str, ...]:
        verdict = f"absent, {_OPTIONAL[self.extra]}" if self.verdict == "absent" else self.verdict
        plain = self.tried == f"import {self.name.replace('-', '_')}"
        tried = Code("import" if plain else self.tried)
        return self.name, self.version, self.required, tried, verdict


class Reading(NamedTuple):
    """An opset and an IR version, None where they could not be read."""

    opset: int | None = None
    ir: int | None = None


_UNREAD = Reading()


@dataclass(frozen=True, repr=False)
class Clocks(Report):
    """The opset and IR version that each part of the stack has reached.

    ``default`` is what ``torch.onnx.export`` writes unless told otherwise, ``writes`` the highest
    that it writes and that onnx's checker and ONNX Runtime accept, ``knows`` the highest that onnx
    defines, ``loads`` the highest that ONNX Runtime loads. ``error`` says why a reading is absent.
    """

    default: Reading = _UNREAD
    writes: Reading = _UNREAD
    knows: Reading = _UNREAD
    loads: Reading = _UNREAD
    error: str = ""

    def _parts(self) -> Iterator[Part]:
        readings = {
            "torch.onnx.export writes by default": self.default,
            "torch.onnx.export writes at most": self.writes,
            "onnx knows at most": self.knows,
            "onnxruntime loads at most": self.loads,
        }
        rows = [(what, *("-" if n is None else n for n in pair)) for what, pair in readings.items()]
        yield Table(rows, ("clock", "opset", "IR version"), right=(1, 2))


@dataclass(frozen=True, repr=False)
class Stack(Report):
    """The report of :func:`check`; true where everything fits together.

    ``runtimes`` are the installed builds of ONNX Runtime, of which there must be one.
    """

    packages: tuple[Package, ...]
    runtimes: tuple[str, ...]
    clocks: Clocks
    platform: str

    @property
    def clashes(self) -> tuple[Clash, ...]:
        """What does not fit, each with the one command that fixes it."""
        return tuple(self._clashes())

    def __bool__(self) -> bool:
        return not self.clashes

    def _parts(self) -> Iterator[Part]:
        count = len(self.clashes)
        yield (
            f"This stack has {plural(count, 'problem')}:" if count else "This stack fits together."
        )
        for number, clash in enumerate(self.clashes, 1):
            yield f"{number}. {clash.what}"
            yield Code(f"   {clash.command}")
        yield ""
        header = ("package", "installed", "required", "tried", "verdict")
        yield Table([package._row() for package in self.packages], header)
        yield ""
        yield self.clocks
        yield ""
        if newer := [f"{p.name} {p.version} ({p.tested})" for p in self.packages if p.is_newer]:
            yield f"Newer than what was tested: {', '.join(newer)}"
            yield ""
        yield self.platform

    def _clashes(self) -> Iterator[Clash]:
        if len(self.runtimes) > 1:
            yield Clash(  # uninstalling one build breaks the others, so uninstall all
                f"{' and '.join(self.runtimes)} are installed into the same folder; the last one "
                "overwrote the others.",
                f"python -m pip uninstall --yes {' '.join(self.runtimes)} && "
                f"python -m pip install {self.runtimes[-1]}",
            )
        missing = [package for package in self.packages if package.verdict == "missing"]
        for index in dict.fromkeys(package.index for package in missing):
            yield _install([package for package in missing if package.index == index], index)
        follows = {f"No module named '{package.name}'" for package in missing}
        for package in self.packages:
            caused = any(cause in package.error for cause in follows)  # fixed with its cause
            if package.verdict in _FIXES and not caused:
                yield package.fix()
        if all(package.verdict in ("ok", "absent") for package in self.packages):
            yield from self._clash_of_clocks()

    def _clash_of_clocks(self) -> Iterator[Clash]:
        default, loads = self.clocks.default, self.clocks.loads
        if self.clocks.error:
            yield Clash(
                f"A model of one node cannot be exported and run: {self.clocks.error}.",
                "python -m pip install --upgrade onnx onnxscript onnxruntime",
            )
        elif any((wrote or 0) > (most or 0) for wrote, most in zip(default, loads, strict=True)):
            yield Clash(
                f"torch.onnx.export writes opset {default.opset} and IR version {default.ir} by "
                f"default; this onnxruntime loads at most {loads.opset} and {loads.ir}.",
                f"python -m pip install --upgrade {self.runtimes[0]}",
            )


def isolated_imports(statements: Sequence[str], timeout: float = 300.0) -> list[tuple[str, Any]]:
    """Run statements in another process; return the error of each, and what it left in ``found``.

    They share one process until one of them fails or ends it. If it was the first there, the error
    is its own; if not, an earlier one may be to blame, and it runs again in a new process.

    >>> isolated_imports(["found = 1", "import no_such_module", "found = 2"])
    [('', 1), ("ModuleNotFoundError: No module named 'no_such_module'", None), ('', 2)]
    """
    outcomes: list[tuple[str, Any]] = []
    while rest := statements[len(outcomes) :]:
        done, end = _shared_process(rest, timeout)
        good = [outcome for outcome in done if not outcome[0]]
        outcomes += good or done[:1] or [(end, None)]
    return outcomes


def _shared_process(statements: Sequence[str], timeout: float) -> tuple[list[tuple[str, Any]], str]:
    """The outcomes up to the first error, and how the process ended."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        try:
            code = subprocess.run(
                [sys.executable, "-P", "-c", _CHILD, *statements],
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=timeout,
            ).returncode
            end = f"the process ended with exit code {code}"
            if code < 0:
                end = f"the process was killed by {signal.Signals(-code).name}"
        except subprocess.TimeoutExpired:
            end = f"no answer within {timeout:.0f} s"
        output.seek(0)
        found = _OUTCOME.findall(output.read())
    return [tuple(json.loads(outcome)) for outcome in found], end


def read_clocks(found: dict[str, tuple[int, int]]) -> None:
    """Fill in the opset and IR version of each clock. Imports torch, onnx and onnxruntime.

    An export counts where the file has the opset that was asked for: the exporter falls back to
    another one, and only logs it, when asked for more than it knows.
    """
    import onnx
    import torch

    knows = found["knows"] = onnx.defs.onnx_opset_version(), int(onnx.IR_VERSION)
    oldest = onnx.helper.VERSION_TABLE[0][1]
    found["loads"] = (
        max(opset for opset in range(1, knows[0] + 8) if _loads(_identity(opset, oldest))),
        max(ir for ir in range(1, knows[1] + 8) if _loads(_identity(7, ir))),
    )
    program = torch.export.export(torch.nn.GELU(), (torch.ones(2),))  # Gelu is young: opset 20

    def written(opset: int | None) -> Any:
        exported: Any = torch.onnx.export(program, opset_version=opset, verbose=False)
        return exported.model_proto

    found["default"] = _stamp(written(None))
    for opset in range(knows[0], 0, -1):
        model = written(opset)
        valid = _stamp(model)[0] == opset and _passes(
            onnx.checker.check_model, model, full_check=True
        )
        if valid and _loads(model):
            found["writes"] = _stamp(model)
            return
    raise RuntimeError("no export is accepted by both onnx.checker and ONNX Runtime")


def _stamp(model: Any) -> tuple[int, int]:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return opset, model.ir_version


def _identity(opset: int, ir: int) -> Any:
    from onnx import parser

    text = f'<ir_version: {ir}, opset_import: ["": {opset}]> identity (float[1] x) => (float[1] y)'
    return parser.parse_model(f"{text} {{ y = Identity(x) }}")


def _loads(model: Any) -> bool:
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    return _passes(onnxruntime.InferenceSession, model.SerializeToString(), providers=providers)


def _passes(attempt: Callable[..., Any], *args: Any, **options: Any) -> bool:
    try:
        attempt(*args, **options)
    except Exception:  # onnxruntime raises a class of its own for each cause
        return False
    return True


def _install(missing: list[Package], index: str) -> Clash:
    *names, last = (package.name for package in missing)
    subject = f"{', '.join(names)} and {last} are" if names else f"{last} is"
    why = _WHY_SCRIPT if any(package.name == "onnxscript" for package in missing) else ""
    command = " ".join(f'"{package.name}{package.required}"' for package in missing)
    return Clash(f"{subject} missing.{why}", f"python -m pip install {command}{index}")


def _packages() -> list[Package]:
    """What the project requires, as it is installed here."""
    tested = {name.lower().replace("_", "-"): pin for name, pin in _PIN.findall(_pins())}
    found = [_look_up(line) for line in _requirements() if not line.startswith(_PROJECT)]
    return [replace(p, tested=tested.get(p.name.lower().replace("_", "-"), "")) for p in found]


def _pins() -> str:
    """The tested versions: constraints.txt of the source tree, or what was installed of it."""
    source = Path(__file__).parents[2] / "constraints.txt"
    with suppress(metadata.PackageNotFoundError):
        if not source.exists():
            files = metadata.files(_PROJECT) or ()
            source = next((Path(f.locate()) for f in files if f.name == source.name), source)
    return source.read_text(encoding="utf-8") if source.exists() else ""


def _requirements() -> list[str]:
    """The project's requirements in the form of PEP 508.

    They come from the source tree where there is one: its installed metadata may be older.
    """
    source = Path(__file__).parents[2] / "pyproject.toml"
    if not source.exists():
        return metadata.requires(_PROJECT) or []
    project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    return project["dependencies"] + [
        f'{line}; extra == "{extra}"' for extra, lines in extras for line in lines
    ]


def _look_up(requirement: str) -> Package:
    parts = _REQUIREMENT.match(requirement)
    assert parts is not None
    name, required, extra = parts.groups("")
    builds = _RUNTIMES if name == "onnxruntime" else (name,)
    version = next(filter(None, map(_installed, builds)), None)
    tried = _STATEMENTS.get(name, f"import {name.replace('-', '_')}")
    return Package(name, version, required, tried, extra=extra)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(version: str, required: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError:  # which the report names as missing
        return True
    return SpecifierSet(required).contains(version, prereleases=True)


def _platform(packages: list[Package]) -> str:
    system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    torch = next((p.installed for p in packages if p.name == "torch" and p.installed), "")
    build = torch.partition("+")[2]
    return f"{system}, torch built for {build}" if build else system
