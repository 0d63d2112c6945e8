"""What starting costs: in processes of their own, that leave nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
import threading

import matplotlib
import psutil
import pytest
import torch

matplotlib.use("Agg")

from onnx_workbench import costs, export, weigh
from onnx_workbench.coldstart import Life, Script, live
from onnx_workbench.costs import Bill, Costs
from onnx_workbench.errors import InputError

X = torch.ones(2, 4)


def life(load=0.5, first=0.1, again=(9.0, 2e-3), peak=80_000_000, trouble=""):
    return Life({"import": 1.0, "load": load, "first call": first}, again, peak, trouble)


# ---------------------------------------------------------------- one process


def test_steps_share_a_namespace_and_are_timed_in_order():
    lived = live(
        Script(
            {"a": "import time; time.sleep(given)", "b": "time.sleep(0)"},
            "time",
            2,
            {"given": 0.05},
        )
    )
    assert list(lived.steps) == ["a", "b"]
    assert lived.steps["a"] >= 0.05
    assert (len(lived.again), lived.trouble) == (2, "")


def test_what_a_library_prints_is_not_taken_for_the_report():
    assert live(Script({"a": "import os; print('{'); os.write(1, b'{')"})).trouble == ""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("int('x')", "ValueError: invalid literal for int() with base 10: 'x'"),
        ("import sys; sys.exit()", "SystemExit"),
        ("import os; os._exit(3)", "the process ended with exit code 3"),
    ],
)
def test_a_process_that_fails_says_why(source, told):
    assert live(Script({"load": source})).trouble == told


def test_a_process_that_never_ends_is_ended():
    assert "exit code" in live(Script({"load": "while True: pass"}), patience=0.5).trouble
    assert psutil.Process().children(recursive=True) == []


def test_the_memory_of_the_parent_is_not_the_childs():
    ballast = "x = bytearray(400_000_000); x[::4096] = x[::4096]"
    look = "from onnx_workbench.coldstart import Script, live; print(live(Script({})).peak)"
    code = f"{ballast}\n{look}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1_000_000 < int(done.stdout) < 100_000_000


def test_memory_that_was_given_back_counts():
    held = live(Script({"a": "x = bytearray(300_000_000); x[::4096] = x[::4096]; del x"}))
    assert 300_000_000 < held.peak < 400_000_000


# ---------------------------------------------------------------- several


@pytest.fixture
def scripts(monkeypatch):
    """No processes: what would have been run in them, in order."""
    run = []

    def pretend(script):
        run.append(script)
        return life(trouble="ValueError: no" if "bad" in script.given else "")

    monkeypatch.setattr(costs, "live", pretend)
    return run


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    return export(torch.nn.ReLU().eval(), tmp_path_factory.mktemp("relu") / "relu.onnx", X)


def test_onnx_runtime_is_started_without_torch(relu, scripts):
    weigh({"ort": relu}, X, times=1)
    (script,) = scripts
    probe = Script(
        {**script.steps, "look": "import sys; assert 'torch' not in sys.modules"},
        given=script.given,
    )
    assert live(probe).trouble == ""


def test_each_kind_of_contestant_is_called_as_a_race_calls_it(relu, scripts):
    weigh(
        {"eager": torch.nn.ReLU(), "ort": relu, "compiled": torch.compile(torch.nn.ReLU())},
        X,
        times=1,
        threads=2,
    )
    by_call = {script.steps["load"]: script for script in scripts}
    assert sum("torch.compile" in load for load in by_call) == 1
    for script in scripts:
        assert list(script.steps) == ["import", "load", "first call"]
        assert script.again == script.steps["first call"]
        assert script.given["threads"] == 2
        assert ("inference_mode" in script.again) == ("import torch" in script.steps["import"])
        assert "threads" in script.steps["load"] + script.steps["import"]


def test_a_model_from_a_cell_is_sent_in_eval_mode_and_left_as_it_was():
    class FromACell(torch.nn.Module):
        def forward(self, x):
            assert not self.training
            assert torch.is_inference_mode_enabled()
            assert torch.get_num_threads() == 1
            return x

    FromACell.__module__ = "__main__"
    model = FromACell()
    (bill,) = weigh({"mine": model}, X, times=1).bills
    assert bill.trouble == ""
    assert model.training


def test_processes_are_started_in_random_order_once_a_round(scripts):
    weigh({name: torch.nn.ReLU() for name in "abcdef"}, X, times=4)
    rounds = [tuple(map(id, scripts[at : at + 6])) for at in range(0, 24, 6)]
    assert [len(set(each)) for each in rounds] == [6] * 4
    assert len(set(rounds)) > 1


def test_one_that_fails_is_named_and_not_tried_again(monkeypatch):
    tried = []

    def pretend(script):
        tried.append(script)
        return life(trouble="ValueError: no")

    monkeypatch.setattr(costs, "live", pretend)
    found = weigh({"bad": torch.nn.ReLU()}, X, times=5)
    assert len(tried) == 1
    assert re.search("(?m)^bad( +-){5}  not started$", repr(found))
    assert "not started  bad: ValueError: no" in repr(found)
    assert found.records() == []


def test_ctrl_c_returns_what_was_measured(monkeypatch):
    lives = [life()]

    def pretend(script):
        if not lives:
            raise KeyboardInterrupt
        return lives.pop()

    monkeypatch.setattr(costs, "live", pretend)
    found = weigh({"a": torch.nn.ReLU(), "b": torch.nn.ReLU()}, X)
    assert (len(found.bills), found.interrupted) == (1, True)
    assert repr(found).startswith(
        "Costs, 1 time in a fresh process, interrupted: what was measured"
    )
    with pytest.raises(KeyboardInterrupt):
        weigh({"a": torch.nn.ReLU()}, X)


def test_what_cannot_be_weighed_is_told():
    with pytest.raises(InputError) as caught:
        weigh({}, X)
    assert str(caught.value) == (
        "weigh() was given 0 contestants and times=5; it takes one of each or more. Write "
        'weigh({"PyTorch": model, "ONNX Runtime": onnx}, x).'
    )
    lock = threading.Lock()
    with pytest.raises(InputError) as caught:
        weigh({"a": lambda x: lock}, X)
    assert str(caught.value).startswith("Contestant 'a' cannot be sent to a process of its own: ")
    assert caught.value.__cause__ is not None


# ---------------------------------------------------------------- the report

TWO = Costs(
    (
        Bill("PyTorch", (life(peak=240_000_000), life(load=0.7, peak=250_000_000))),
        Bill("ONNX Runtime", (life(load=0.02, first=1e-3),)),
    )
)


def test_the_report():
    assert (
        repr(TWO)
        == """\
Costs, 2 times in a fresh process
contestant    import     load  first call  ready after  later calls  peak memory
------------  ------  -------  ----------  -----------  -----------  -----------
PyTorch       1.00 s   600 ms      100 ms       1.70 s      2.00 ms       245 MB
ONNX Runtime  1.00 s  20.0 ms     1.00 ms       1.02 s      2.00 ms      80.0 MB

values       medians over the processes, which were started in random order
not counted  the start of Python itself; what the system keeps of files once read
load         from memory (PyTorch: unpickled) or from the file (ONNX Runtime: optimised)
threads      1"""
    )


def test_the_first_half_of_the_later_calls_is_warm_up():
    assert Bill("a", (life(again=(9.0, 8.0, 1.0, 2.0, 3.0, 2.0)),)).later == 2.0


def test_records_are_the_raw_values():
    assert TWO.records()[1] == {
        **{"contestant": "PyTorch", "import": 1.0, "load": 0.7, "first call": 0.1},
        **{"later call": 2e-3, "peak_memory": 250_000_000},
    }


def test_the_plot_stacks_until_so_many_calls_are_done():
    ax = TWO.plot(calls=500)
    assert ax.get_title(loc="left").replace("\n", " ") == (
        "first answer: ONNX Runtime after 1.02 s and with 80.0 MB; "
        "PyTorch after 1.70 s and with 245 MB"
    )
    assert [bar.get_width() for bar in ax.patches[:4]] == pytest.approx([1.0, 0.6, 0.1, 1.0])
    assert ax.get_legend().get_texts()[-1].get_text() == "500 calls more"
