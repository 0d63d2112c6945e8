"""What starting costs: in processes of their own, that leave nothing behind."""

from __future__ import annotations

import re
import threading

import matplotlib
import psutil
import pytest

matplotlib.use("Agg")

from onnx_workbench import costs, weigh
from onnx_workbench.costs import Bill, Costs, Life
from onnx_workbench.errors import InputError


def nothing(x):
    return x


def life(load=0.5, first=0.1, later=2e-3, peak=80_000_000):
    return Life(load, first, later, peak)


def busy(seconds, calls):
    """A function from a cell, so that it is sent by value; its first call takes ``seconds``."""

    def wait(x):
        import time

        if not calls:
            time.sleep(seconds)
            calls.append(bytearray(50_000_000))

    return wait


def processes() -> set[int]:
    """Those that this one has started; a browser of another test may be among them."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_a_process_is_started_for_each_and_none_is_left():
    before = processes()
    found = weigh({"slow": busy(0.2, []), "fast": lambda x: x}, 1, times=2)
    slow, fast = found.bills
    assert [len(bill.lives) for bill in found.bills] == [2, 2]
    assert all(each.first > 0.2 for each in slow.lives), "a first call in each process"
    assert fast.parts["first call"] < 0.1
    assert slow.later < 0.1
    assert all(each.load > 0 for each in fast.lives)
    assert processes() <= before
    if psutil.LINUX:
        assert 40_000_000 < slow.lives[0].peak - fast.lives[0].peak < 70_000_000


class Slow:
    """Slow to arrive in a process, as what imports much is, and slow to open there."""

    def __reduce__(self):
        code = (
            "(__import__('time').sleep(0.2), lambda: (__import__('time').sleep(0.2), "
            "__import__('onnx_workbench.contestant').contestant.Prepared(int, 'call'))[1])[1]"
        )
        return eval, (code,)

    def __call__(self): ...

    def entry(self, args, kwargs, threads):
        return self


def test_the_load_counts_imports_as_well_as_opening():
    (bill,) = weigh({"slow": Slow()}, 1, times=1).bills
    assert bill.lives[0].load > 0.4
    assert bill.lives[0].first < 0.2


def test_one_that_fails_is_named_and_not_tried_again(monkeypatch):
    def fails(x):
        raise ValueError("no")

    started, before = [], processes()
    real = costs.Worker
    monkeypatch.setattr(costs, "Worker", lambda *args: started.append(1) or real(*args))
    found = weigh({"bad": fails}, 1, times=5)
    assert len(started) == 1
    assert processes() <= before
    assert re.search("(?m)^bad( +-){4}  not started$", repr(found))
    assert "not started  bad: ValueError: no" in repr(found)
    assert found.records() == []


@pytest.fixture
def order(monkeypatch):
    """No processes: what would have been started, in order, until there is no life left."""
    started, lives = [], [life()] * 24

    def pretend(payload, threads):
        if not lives:
            raise KeyboardInterrupt
        started.append(payload)
        return lives.pop()

    monkeypatch.setattr(costs, "_lived", pretend)
    monkeypatch.setattr(costs, "_sendable", lambda name, entry: (name, entry.threads))
    return started, lives


def test_processes_are_started_in_random_order_once_a_round(order):
    started, _ = order
    found = weigh(dict.fromkeys("abcdef", nothing), 1, times=4, threads=2)
    rounds = [tuple(started[at : at + 6]) for at in range(0, 24, 6)]
    assert [len(set(each)) for each in rounds] == [6] * 4
    assert len(set(rounds)) > 1
    assert {threads for _, threads in started} == {2}
    assert repr(found).splitlines()[-1] == "threads      2"


def test_ctrl_c_returns_what_was_measured(order):
    del order[1][1:]
    found = weigh(dict.fromkeys("ab", nothing), 1)
    assert (len(found.bills), found.interrupted) == (1, True)
    assert repr(found).startswith("Costs, 1 time in a fresh process, interrupted: what was")
    with pytest.raises(KeyboardInterrupt):
        weigh({"a": nothing}, 1)


def test_what_cannot_be_weighed_is_told():
    with pytest.raises(InputError) as caught:
        weigh({}, 1)
    assert str(caught.value) == (
        "weigh takes a dict of name -> callable, and got nothing to race. "
        'Write weigh({"PyTorch": model, "ONNX Runtime": artifact}, x).'
    )
    lock = threading.Lock()
    with pytest.raises(InputError) as caught:
        weigh({"a": lambda x: lock}, 1)
    assert re.fullmatch(
        r"Contestant 'a' cannot be sent to a process of its own \(TypeError: cannot pickle .*\)\. "
        "Pass a model, an Artifact, or a function that holds neither files nor locks.",
        str(caught.value),
    )
    assert caught.value.__cause__ is not None


# ---------------------------------------------------------------- the report

TWO = Costs(
    (
        Bill("PyTorch", (life(peak=240_000_000), life(load=0.7, peak=250_000_000))),
        Bill("ONNX Runtime", (life(load=0.02, first=1e-3, peak=None),)),
    )
)


def test_the_report():
    assert (
        repr(TWO)
        == """\
Costs, 2 times in a fresh process
contestant       load  first call  ready after  later calls  peak memory
------------  -------  ----------  -----------  -----------  -----------
PyTorch        600 ms      100 ms       700 ms      2.00 ms       245 MB
ONNX Runtime  20.0 ms     1.00 ms      21.0 ms      2.00 ms            -

values       medians over the processes, started one at a time in random order
load         imports, the model's way into the process, and what opens or compiles it
not counted  the start of Python itself; files that the system has read before
peak memory  not told by this system: Linux alone does
threads      1"""
    )


def test_records_are_the_raw_values():
    assert TWO.records()[1] == {
        **{"contestant": "PyTorch", "load": 0.7, "first": 0.1},
        **{"later": 2e-3, "peak": 250_000_000},
    }


def test_the_plot_stacks_until_so_many_calls_are_done():
    ax = TWO.plot(calls=500)
    assert ax.get_title(loc="left").replace("\n", " ") == (
        "first answer: ONNX Runtime after 21.0 ms; PyTorch after 700 ms and with 245 MB"
    )
    assert [bar.get_width() for bar in ax.patches[:3]] == pytest.approx([0.6, 0.1, 1.0])
    assert ax.get_legend().get_texts()[-1].get_text() == "500 calls more"
