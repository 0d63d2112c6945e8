"""What the workbench costs, beside what does the same without it.

    python benchmarks                    every figure that needs neither minutes nor a browser
    python benchmarks import export      some of them

Each figure runs ours and the bare way side by side in one go, turn by turn in random order where
that is possible, and prints the median of each and the median of the ratios within a turn. Read
the ratios: the times are those of this machine at this moment. Run it with the Python of `.venv`;
nothing is written outside a temporary folder.

    import      a new Python that imports the package, beside a new Python
    export      capture + export of two models, beside a bare torch.onnx.export of the same
    lines       how much of ONNX Runtime's time finds its line, on eight architectures
    trace       trace() of 1,000 to 20,000 nodes, beside onnx.load of the same file
    values      verify(values=True) on 200 nodes, beside torch.onnx.verification
    notebooks   each lesson in a new kernel, time and peak memory, beside one that imports torch

These take minutes, and run only when asked for:

    audit       what it finds in ten sound models, and what 500 nodes cost; tests/test_traps.py
                has the models that are not sound
    memory      the peak of export, verify and audit with 1 GB of weights, beside torch.onnx.export
    memory-lines
                the peak of activations that profile().memory computes, beside the growth of a
                process that runs the file; Linux only
    fuzz        a thousand damaged files at every door that reads one; exit code 1 for a raw
                exception, a crash or a hang
    race        how often a race is wrong where the truth is known: against itself, and against
                itself with 5 % more work; --races rounds of all workloads, --busy beside a process
                that never rests
    viewer      view() in JupyterLab, beside Netron alone in the same browser; needs Chromium
    floors      the floors of 20 to 20,000 nodes in a saved page; needs Chromium
    set-up      `workbench.py test --version` in a fresh copy, beside `pip install` of its pins, and
                `lab --version` beside `test --version`
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

FIGURES = {
    "import": "costs.imports",
    "export": "costs.export",
    "lines": "costs.lines",
    "trace": "costs.trace",
    "values": "costs.values",
    "notebooks": "notebook_cost.report",
    "audit": "costs.audit",
    "memory": "costs.memory",
    "memory-lines": "line_memory.report",
    "fuzz": "fuzz.report",
    "race": "race_honesty.report",
    "viewer": "viewer_time.report",
    "floors": "floors_time.report",
    "set-up": "setup_cost.report",
}
UNASKED = ("import", "export", "lines", "trace", "values", "notebooks")


sys.path.append(str(Path(__file__).parents[1]))
"""Some figures use models and pages of the tests, or workbench.py."""


def main() -> None:
    options = argparse.ArgumentParser(
        prog="python benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("figures", nargs="*", choices=[*FIGURES, []], default=UNASKED)
    race = options.add_argument_group("race")
    race.add_argument("--races", type=int, default=1, help="rounds of all workloads")
    race.add_argument("--busy", action="store_true", help="beside a process that never rests")
    race.add_argument("--seconds", type=float, help="of each race")
    asked = options.parse_args()
    for name in asked.figures:
        print(f"measuring {name} ...", file=sys.stderr)
        how = (asked.races, asked.busy, asked.seconds) if name == "race" else ()
        module, _, function = FIGURES[name].partition(".")
        for row in getattr(importlib.import_module(module), function)(*how):
            print(row, flush=True)


main()
