"""Each trap still fails as described, and its fixed twin passes.

A failure here after an upgrade is news about torch, onnxscript or ONNX Runtime: change the trap.
"""

import re

import pytest
from more_traps import UNTAUGHT

from onnx_workbench import audit
from onnx_workbench.lessons.traps import TRAPS
from onnx_workbench.report.finding import FAULTS
from onnx_workbench.report.stages import STAGES

KNOWN = [*TRAPS, *UNTAUGHT]
NAMES = [trap.name for trap in KNOWN]
ORDER = [stage.name for stage in STAGES]
SLOW = {"opsets", "latency", "hot lines"}


def run(call, last="size"):
    skip = SLOW.union(ORDER[ORDER.index(last) + 1 :])
    return audit(
        call.model,
        call.args,
        dynamic_shapes=call.dynamic_shapes,
        opset_version=call.opset_version,
        skip=skip,
    )


def place(finding):
    return finding.line.place if finding.line else None


@pytest.mark.parametrize("trap", KNOWN, ids=NAMES)
def test_a_trap_is_found_by_its_code_in_its_words_and_on_its_line(trap):
    found = [
        (finding.code, place(finding))
        for finding in run(trap.broken(), trap.stage).faults
        if finding.sentence.startswith(trap.sentence)
    ]
    assert (trap.code, trap.place) in found


@pytest.mark.parametrize("trap", KNOWN, ids=NAMES)
def test_its_fixed_twin_is_not_accused(trap):
    report = run(trap.fixed())
    accused = [fault for fault in report.faults if fault.verdict in FAULTS]
    assert accused == [], report
    assert report or report.case.model is None, report


def test_each_trap_has_a_name_a_stage_and_a_thread_of_its_own():
    assert (len(TRAPS), len(UNTAUGHT)) == (15, 13)
    assert len(set(NAMES)) == len(NAMES)
    for trap in KNOWN:
        assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", trap.thread)


def test_a_trap_without_a_line_is_one_that_no_line_is_to_blame_for():
    nameless = {trap.name for trap in KNOWN if trap.place is None}
    assert nameless == {"training mode", "missing data file", "opset out of reach"}
