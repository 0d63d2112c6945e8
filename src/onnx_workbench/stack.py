"""What is installed, whether it fits together, and the one command that mends what does not.

Standard library alone, and nothing of the stack is imported into this process: the report comes out
also where torch is broken, absent, or kills the process that imports it.
"""

from __future__ import annotations

import operator
import platform
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from . import trial
from .text import plural, table

_PROJECT = "onnx-workbench"
_OPTIONAL = {"lab": "needed only to open the notebooks"}  # the extras that are reported

_TRIED = {
    "torch": "import torch; torch.zeros(1).numpy()",  # fails where built for another NumPy
    "onnxscript": "from onnxscript import opset18",
    "scikit-learn": "import sklearn",
}
_REQUIREMENT = re.compile(r"([\w.-]+)\s*([^;\s]*)(?:.*extra == ['\"](\w+)['\"])?")
_CLOCKS = {"knows": "found = knows()", "loads": "found = loads()", "writes": "found = writes()"}
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")

_MENDS = {  # by verdict: what to say, and how to call pip
    "missing": ("{name} is missing.", ""),
    "out of range": ("{name} {version} is out of the range {required}.", "--upgrade "),
    "broken": ("{name} {version} is broken: `{tried}` gives {trouble}.", "--force-reinstall "),
}
_WHY = {
    ("torch", "out of range"): (
        " Before 2.9 torch.onnx.export traces with TorchScript unless told otherwise, and from 2.1 "
        "to 2.8 the exporter that this project teaches was called torch.onnx.dynamo_export."
    ),
    ("onnxscript", "missing"): (
        " torch.onnx.export takes from it how each operator is written in ONNX."
    ),
}
_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def check() -> Stack:
    """Look at every package of the stack, try its import, and read the clocks of ONNX.

    Imports are tried in a process of their own: a package that kills it hides no other. The clocks
    are read live, from tiny models that are exported, checked and loaded. Takes some seconds.

    Raises:
        importlib.metadata.PackageNotFoundError: this package is neither installed nor beside its
            ``pyproject.toml``, so that nothing says what it requires.

    >>> stack = check()
    >>> bool(stack), stack.clashes
    (True, ())
    >>> stack.clocks.writes.opset <= stack.clocks.loads.opset
    True
    """
    packages = [p for p in map(_look_up, _requirements()) if not p.extra or p.extra in _OPTIONAL]
    present = {package.name: package.tried for package in packages if package.installed}
    # One after the other: side by side they would take a gigabyte, half of what Binder gives.
    troubles = {name: outcome.trouble for name, outcome in trial.run(present).items()}
    return Stack(
        tuple(replace(package, trouble=troubles.get(package.name, "")) for package in packages),
        tuple(name for name in _RUNTIMES if _installed(name)),
        _read(trial.run(_CLOCKS)),
        _platform(packages),
    )


@dataclass(frozen=True)
class Clash:
    """What keeps the stack from working, and the one command that mends it."""

    what: str
    command: str


@dataclass(frozen=True)
class Package:
    """A requirement of the project, and what became of it.

    ``installed`` is its version, None where it is absent; ``tried`` the statement that was run;
    ``trouble`` what that raised, empty where it ran; ``extra`` the optional part of the project
    that needs the package, empty where all of it does.
    """

    name: str
    installed: str | None
    required: str
    tried: str
    trouble: str = ""
    extra: str = ""

    @property
    def version(self) -> str:
        """Without the label of the build: ``2.13.0+cpu`` is ``2.13.0``."""
        return (self.installed or "-").partition("+")[0]

    @property
    def verdict(self) -> str:
        """``ok``, ``missing``, ``absent`` (missing, and optional), ``out of range`` or ``broken``.

        >>> Package("torch", "2.5.1+cpu", ">=2.9", "import torch").verdict
        'out of range'
        """
        if self.installed is None:
            return "absent" if self.extra else "missing"
        if not _fits(self.installed, self.required):
            return "out of range"
        return "broken" if self.trouble else "ok"

    @property
    def clash(self) -> Clash | None:
        if self.verdict not in _MENDS:
            return None
        sentence, option = _MENDS[self.verdict]
        what = sentence.format(version=self.version, **vars(self))
        why = _WHY.get((self.name, self.verdict), "")
        command = f'python -m pip install {option}"{self.name}{self.required}"{self._index()}'
        return Clash(what + why, command)

    def _index(self) -> str:
        """The label of a torch's build names the folder of PyTorch's index that has its like."""
        build = (self.installed or "+cpu").partition("+")[2] if self.name == "torch" else ""
        return f" --index-url https://download.pytorch.org/whl/{build}" if build else ""

    def _row(self) -> tuple[str, ...]:
        verdict = f"absent, {_OPTIONAL[self.extra]}" if self.verdict == "absent" else self.verdict
        return self.name, self.version, self.required, self.tried, verdict


@dataclass(frozen=True)
class Reading:
    """An opset and an IR version, None where they could not be read; ``trouble`` says why."""

    opset: int | None = None
    ir: int | None = None
    trouble: str = ""


@dataclass(frozen=True)
class Clocks:
    """Three clocks that tick apart: the versions of the packages, the opset, and the IR.

    ``default`` is what ``torch.onnx.export`` writes unless told otherwise, ``writes`` the highest
    it writes such that onnx's checker and ONNX Runtime accept it, ``knows`` the highest that onnx
    has definitions for, ``loads`` the highest that ONNX Runtime loads.
    """

    default: Reading
    writes: Reading
    knows: Reading
    loads: Reading

    def __repr__(self) -> str:
        rows = [
            (what, *("-" if value is None else value for value in (reading.opset, reading.ir)))
            for what, reading in (
                ("torch.onnx.export writes by default", self.default),
                ("torch.onnx.export writes at most", self.writes),
                ("onnx knows at most", self.knows),
                ("onnxruntime loads at most", self.loads),
            )
        ]
        return table(rows, ("clock", "opset", "IR version"), right=(1, 2))


@dataclass(frozen=True)
class Stack:
    """The report of :func:`check`; true where everything fits together.

    ``runtimes`` are the builds of ONNX Runtime that are installed, of which there must be one;
    ``platform`` is the one line that differs from machine to machine.
    """

    packages: tuple[Package, ...]
    runtimes: tuple[str, ...]
    clocks: Clocks
    platform: str

    @property
    def clashes(self) -> tuple[Clash, ...]:
        """What does not fit, each with the one command that mends it."""
        return tuple(self._clashes())

    def __bool__(self) -> bool:
        return not self.clashes

    def __repr__(self) -> str:
        header = ("package", "installed", "required", "tried", "verdict")
        packages = table((package._row() for package in self.packages), header)
        return "\n\n".join([self._verdict(), packages, repr(self.clocks), self.platform])

    def _verdict(self) -> str:
        if self:
            return "This stack fits together."
        mends = [
            f"{number}. {clash.what}\n   {clash.command}"
            for number, clash in enumerate(self.clashes, start=1)
        ]
        return "\n".join([f"This stack has {plural(len(mends), 'fault')}:", *mends])

    def _clashes(self) -> Iterator[Clash]:
        if len(self.runtimes) > 1:
            yield _several(self.runtimes)
        missing = [package for package in self.packages if package.verdict == "missing"]
        yield from _grouped(missing)
        follow = {f"No module named '{package.name}'" for package in missing}
        for package in self.packages:
            caused = any(cause in package.trouble for cause in follow)  # mended with its cause
            if package.clash and package not in missing and not caused:
                yield package.clash
        if all(package.verdict in ("ok", "absent") for package in self.packages):
            yield from self._clash_of_clocks()

    def _clash_of_clocks(self) -> Iterator[Clash]:
        upgrade = "python -m pip install --upgrade"
        default, loads = self.clocks.default, self.clocks.loads
        trouble = default.trouble or self.clocks.knows.trouble or loads.trouble
        if trouble:
            yield Clash(
                f"A model of one node does not get from torch to ONNX Runtime: {trouble}.",
                f"{upgrade} onnx onnxscript onnxruntime",
            )
        elif _above(default, loads):
            yield Clash(
                f"torch.onnx.export writes opset {default.opset} and IR version {default.ir} by "
                f"default, and this onnxruntime loads at most {loads.opset} and {loads.ir}.",
                f"{upgrade} {self.runtimes[0]}",
            )


def _grouped(missing: list[Package]) -> Iterator[Clash]:
    """One command for all that are missing, but for those that need a word or an index."""
    plain = [p for p in missing if (p.name, p.verdict) not in _WHY and not p._index()]
    yield from (p.clash for p in missing if p.clash and (p not in plain or len(plain) == 1))
    if len(plain) > 1:
        *names, last = (p.name for p in plain)
        command = " ".join(f'"{p.name}{p.required}"' for p in plain)
        yield Clash(
            f"{', '.join(names)} and {last} are missing.", f"python -m pip install {command}"
        )


def _several(runtimes: tuple[str, ...]) -> Clash:
    """Builds of ONNX Runtime share one folder: taking one away breaks the other, so take all."""
    keep = runtimes[-1]
    return Clash(
        f"{' and '.join(runtimes)} are installed into the same folder, and the one that came last "
        "overwrote the other.",
        f"python -m pip uninstall --yes {' '.join(runtimes)} && python -m pip install {keep}",
    )


def _above(a: Reading, b: Reading) -> bool:
    return (a.opset or 0) > (b.opset or 0) or (a.ir or 0) > (b.ir or 0)


def _read(outcomes: Mapping[str, trial.Outcome]) -> Clocks:
    knows, loads, writes = (outcomes[name] for name in ("knows", "loads", "writes"))
    return Clocks(
        default=_reading(writes, "default"),
        writes=_reading(writes, "highest"),
        knows=_reading(knows),
        loads=_reading(loads),
    )


def _reading(outcome: trial.Outcome, key: str | None = None) -> Reading:
    if outcome.trouble:
        return Reading(trouble=outcome.trouble)
    return Reading(*(outcome.found[key] if key else outcome.found))


def _requirements() -> list[str]:
    """The project's own requirements, as PEP 508 writes them.

    A source tree has them first hand; its metadata, where it has any, may be older.
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
    tried = _TRIED.get(name, f"import {name.replace('-', '_')}")
    return Package(name, version, required, tried, extra=extra)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(version: str, required: str) -> bool:
    bounds = re.findall(r"([<>=!]=?)\s*([\w.]+)", required)
    return all(_COMPARE[sign](_release(version), _release(bound)) for sign, bound in bounds)


def _release(version: str) -> tuple[int, ...]:
    """``2.13.0.dev3+cpu`` -> (2, 13): the numbers, without the zeros at the end."""
    leading = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(number) for number in leading[0].split(".")] if leading else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _platform(packages: list[Package]) -> str:
    build = next((p.installed for p in packages if p.name == "torch" and p.installed), "")
    label = build.partition("+")[2]
    system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return f"{system}, torch built for {label}" if label else system
