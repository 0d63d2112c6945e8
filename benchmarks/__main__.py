"""What the workbench costs, beside what does the same without it.

    python benchmarks                    every figure but set-up
    python benchmarks import export      some of them
    python benchmarks set-up             minutes, 3 GB of disk while it runs, and the network

Each figure runs ours and the bare way side by side in one go, turn by turn in random order where
that is possible, and prints the median of each and the median of the ratios within a turn (with
quartiles where there are four turns or more). Read the ratios: the times are those of this machine
at this moment. Run it with the Python of `.venv`; nothing is written outside a temporary folder.

    import      a new Python that imports the package, beside a new Python
    export      capture + export of two models, beside a bare torch.onnx.export of the same
    lines       how much of ONNX Runtime's time finds its line, on eight architectures of models.py,
                and what trace() and profile() take; tables of their own, beside nothing
    values      every value of a model of 200 nodes against PyTorch's: verify(values=True) beside
                torch.onnx.verification, which opens a session for each
    notebooks   each lesson run in a new kernel, wall time and peak memory of the kernel and its
                children, beside a notebook that imports torch and onnxruntime
    set-up      `workbench.py test --version` in a fresh copy, beside `pip install` of its pins
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable

import export_time
import import_time
import line_profile
import notebook_cost
import setup_cost
import values_time
from side_by_side import Pair

from onnx_workbench.text import table

FIGURES: dict[str, Callable[[], Iterable[Pair]]] = {
    "import": import_time.measure,
    "export": export_time.measure,
    "notebooks": notebook_cost.measure,
    "set-up": setup_cost.measure,
}
REPORTS: dict[str, Callable[[], str]] = {
    "lines": line_profile.report,
    "values": values_time.report,
}
ALL = [*FIGURES, *REPORTS]
UNASKED = [name for name in ALL if name != "set-up"]


def main() -> None:
    options = argparse.ArgumentParser(
        prog="python benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("figures", nargs="*", choices=[*ALL, []], default=UNASKED)
    rows = []
    for name in options.parse_args().figures:
        print(f"measuring {name} ...", file=sys.stderr)
        if name in REPORTS:
            print(REPORTS[name]())
        else:
            rows += [pair.row() for pair in FIGURES[name]()]
    if rows:
        header = ("figure", "ours", "beside", "ratio", "quartiles", "turns")
        print(table(rows, header, right=[1, 2, 3]))


main()
