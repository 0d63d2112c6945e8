"""What the workbench costs, beside what does the same without it.

    python benchmarks                    every figure that needs neither minutes nor a browser
    python benchmarks import export      some of them

Each figure runs ours and the bare way side by side in one go, turn by turn in random order where
that is possible, and prints the median of each and the median of the ratios within a turn. Read
the ratios: the times are those of this machine at this moment. Run it with the Python of `.venv`;
nothing is written outside a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

FIGURES = {
    "import": ("costs.imports", "a new Python that imports the package, beside a new Python"),
    "export": ("costs.export", "capture + export of three models, beside torch.onnx.export"),
    "lines": ("costs.lines", "how much of ONNX Runtime's time finds its line, on eight models"),
    "trace": ("costs.trace", "trace() of 1,000 to 20,000 nodes, beside onnx.load of the file"),
    "values": ("costs.values", "verify(values=True), beside torch.onnx.verification"),
    "notebooks": ("costs.notebooks", "each lesson, time and memory, beside one of two imports"),
    "audit": ("costs.audit", "what it finds in ten sound models; what 500 nodes cost"),
    "memory": ("costs.memory", "the peak with 1 GB of weights, beside torch.onnx.export"),
    "memory-lines": ("line_memory.report", "profile().memory, beside a process that runs the file"),
    "fuzz": ("fuzz.report", "a thousand damaged files: exit code 1 for a raw exception or a crash"),
    "race": ("race_honesty.report", "how often a race is wrong where the truth is known"),
    "viewer": ("viewer_time.report", "view() in JupyterLab, beside Netron alone; needs Chromium"),
    "floors": ("viewer_time.floors", "the floors of 20 to 20,000 nodes; needs Chromium"),
    "set-up": ("costs.set_up", "`workbench.py` in a fresh copy, beside `pip install` of its pins"),
}
QUICK = ("import", "export", "lines", "trace", "values", "notebooks")

sys.path.append(str(Path(__file__).parents[1]))
"""Some figures use models and pages of the tests, or workbench.py."""


def main() -> None:
    rows = "\n".join(f"    {name:15}{what}" for name, (_, what) in FIGURES.items())
    options = argparse.ArgumentParser(
        prog="python benchmarks",
        description=f"{__doc__}\n{rows}\n\nThose after {QUICK[-1]!r} run only when asked for.",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    options.add_argument("figures", nargs="*", choices=[*FIGURES, []], default=QUICK)
    race = options.add_argument_group("race")
    race.add_argument("--races", type=int, default=1, help="rounds of all workloads")
    race.add_argument("--busy", action="store_true", help="beside a process that never rests")
    race.add_argument("--seconds", type=float, help="of each race")
    asked = options.parse_args()
    for name in asked.figures:
        print(f"measuring {name} ...", file=sys.stderr)
        how = (asked.races, asked.busy, asked.seconds) if name == "race" else ()
        module, _, function = FIGURES[name][0].partition(".")
        for row in getattr(importlib.import_module(module), function)(*how):
            print(row, flush=True)


main()
