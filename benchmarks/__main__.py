"""What the workbench costs, beside what does the same without it.

    python benchmarks                    every figure that needs neither minutes nor a browser
    python benchmarks import export      some of them
    python benchmarks set-up             minutes, 3 GB of disk while it runs, and the network
    python benchmarks viewer             minutes, 2 GB of disk, and Chromium
    python benchmarks netron-releases    minutes, the network and Chromium

Each figure runs ours and the bare way side by side in one go, turn by turn in random order where
that is possible, and prints the median of each and the median of the ratios within a turn (with
quartiles where there are four turns or more). Read the ratios: the times are those of this machine
at this moment. Run it with the Python of `.venv`; nothing is written outside a temporary folder.

    import      a new Python that imports the package, beside a new Python
    export      capture + export of two models, beside a bare torch.onnx.export of the same
    lines       how much of ONNX Runtime's time finds its line, on eight architectures of models.py,
                and what trace() and profile() take; tables of their own, beside nothing
    audit       the traps and their fixed twins, ten sound models, 500 nodes, 1 GB of weights; each
                row as soon as it is known
    values      every value of a model of 200 nodes against PyTorch's: verify(values=True) beside
                torch.onnx.verification, which opens a session for each
    memory      the peak of export, verify(values=True) and audit with 1 GB of weights, less that of
                the model alone, each in a new process, beside torch.onnx.export
    notebooks   each lesson run in a new kernel, wall time and peak memory of the kernel and its
                children, beside a notebook that imports torch and onnxruntime
    viewer      view() in JupyterLab, from running the cell until drawn, beside Netron alone in the
                same browser; a click, heat, memory and 1 GB of weights, beside what they may cost
    fuzz        a thousand damaged files at every door that reads one: what each door did, and exit
                code 1 where one was a raw exception, a crash or a hang. Beside nothing
    netron-releases
                a table of every netron 9 of the package index: does view() draw with it, and show
                a node's line and heat? Beside nothing
    race        how often a race is wrong where the truth is known, beside the protocols of torch,
                triton and onnxruntime; some 8 minutes a --races, and only when asked for
    set-up      `workbench.py test --version` in a fresh copy, beside `pip install` of its pins
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import audit_report
import export_time
import fuzz
import import_time
import line_profile
import memory_cost
import netron_releases
import notebook_cost
import race_honesty
import setup_cost
import values_time
import viewer_time
from side_by_side import Pair

from onnx_workbench.formatting import table

FIGURES: dict[str, Callable[[], Iterable[Pair]]] = {
    "import": import_time.measure,
    "export": export_time.measure,
    "notebooks": notebook_cost.measure,
    "viewer": viewer_time.measure,
    "set-up": setup_cost.measure,
}
TABLES: dict[str, Callable[[], Iterable[str]]] = {
    "lines": line_profile.report,
    "values": values_time.report,
    "audit": audit_report.report,
    "memory": memory_cost.report,
    "fuzz": fuzz.report,
    "netron-releases": netron_releases.report,
}
RACE = "race"
ALL = [*FIGURES, *TABLES, RACE]
ASKED = ("set-up", "viewer", "netron-releases", "audit", "memory", "fuzz", RACE)
UNASKED = [name for name in ALL if name not in ASKED]


def main() -> None:
    options = argparse.ArgumentParser(
        prog="python benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("figures", nargs="*", choices=[*ALL, []], default=UNASKED)
    race = options.add_argument_group("race")
    race.add_argument("--races", type=int, default=1, help="of each part; 0 prints what is there")
    race.add_argument("--into", type=Path, help="JSON lines: races are added, tables are of all")
    race.add_argument("--only", nargs="+", choices=race_honesty.WORDS, default=[], help="parts")
    race.add_argument("--seconds", type=float, help="of each race")
    chosen, rows = options.parse_args(), []
    for name in chosen.figures:
        print(f"measuring {name} ...", file=sys.stderr)
        if name in TABLES:
            for part in TABLES[name]():
                print(part, flush=True)
        elif name == RACE:
            print(race_honesty.report(chosen.races, chosen.into, chosen.only, chosen.seconds))
        else:
            rows += [pair.row() for pair in FIGURES[name]()]
    if rows:
        header = ("figure", "ours", "beside", "ratio", "quartiles", "turns")
        print(table(rows, header, right=[1, 2, 3]))


main()
