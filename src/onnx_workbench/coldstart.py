"""A process that is born, works through a few statements, and says what each took.

The parent starts this very file, and hands it a pickled :class:`Script`. What is imported is what
the script imports, and that is timed too.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Script:
    """Statements by the name of what they do, run one after the other in one namespace.

    ``given`` is in that namespace from the start. ``again`` is then run ``times`` times more, for
    the time that it takes once everything is warm.
    """

    steps: Mapping[str, str]
    again: str = ""
    times: int = 0
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Life:
    """Seconds of each step and of each run of ``again``, and the most memory held, in bytes."""

    steps: Mapping[str, float]
    again: tuple[float, ...]
    peak: int
    trouble: str = ""


def live(script: Script, patience: float = 600.0) -> Life:
    """Run a script in a process of its own.

    >>> life = live(Script({"import": "import json", "load": "json.loads('[1]')"}, "len('a')", 3))
    >>> list(life.steps), len(life.again), life.peak > 1_000_000
    (['import', 'load'], 3, True)
    >>> live(Script({"load": "1 / 0"})).trouble
    'ZeroDivisionError: division by zero'
    """
    child = subprocess.Popen(
        [sys.executable, "-P", __file__],  # -P: the rooms of this package are no top-level modules
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)},
    )
    try:
        said, _ = child.communicate(pickle.dumps(vars(script)), timeout=patience)
    except subprocess.TimeoutExpired:
        said = b""
    finally:  # Ctrl-C too: nothing is left behind
        child.kill()
        child.communicate()
    if not said:
        return Life({}, (), 0, f"the process ended with exit code {child.returncode}")
    return Life(**json.loads(said))


def main() -> None:
    """The child: one line of JSON on standard output, and nothing else."""
    report = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints, from C too
    json.dump(_lived(**pickle.load(sys.stdin.buffer)), report)
    report.close()
    os._exit(0)  # a library that crashes while Python shuts down has nothing to say here


def _lived(
    steps: Mapping[str, str], again: str, times: int, given: Mapping[str, Any]
) -> dict[str, Any]:
    names, took, laps, trouble = dict(given), dict[str, float](), list[float](), ""
    try:
        for name, source in steps.items():
            took[name] = _timed(source, names)
        laps = [_timed(again, names) for _ in range(times)]
    except BaseException as error:
        first = next(iter(str(error).strip().splitlines()), "")
        trouble = f"{type(error).__name__}: {first}".rstrip(": ")
    return {"steps": took, "again": laps, "peak": _peak(), "trouble": trouble}


def _timed(source: str, names: dict[str, Any]) -> float:
    code = compile(source, "<script>", "exec")
    start = perf_counter()
    exec(code, names)
    return perf_counter() - start


def _peak() -> int:
    """Bytes of memory that this process held at most.

    On Linux not by getrusage, which counts what the parent held before the child became itself.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    main()
