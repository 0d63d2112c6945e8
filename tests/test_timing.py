"""race() and sweep(): in this process by a clock of the targets, in workers by what was done,
not by how fast it was."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import ExitStack, nullcontext

import numpy as np
import onnx
import pytest
import torch
from models import relu_file
from onnx import parser
from torch import nn

import onnx_workbench as ow
from onnx_workbench.calls import PreparedCall
from onnx_workbench.errors import InputError, LoadError, TrainingModeWarning
from onnx_workbench.ort import Options
from onnx_workbench.timing import bench, worker
from onnx_workbench.timing.targets import PLAIN, ModelCall
from onnx_workbench.timing.worker import NotSendable, Parcel, Worker, WorkerError

X = torch.arange(6.0).reshape(3, 2)


class Clock:
    """Nanoseconds that pass only when a target says so."""

    def __init__(self):
        self.now, self.log = 0, []

    def target(self, name, *costs, drift=lambda: 1.0):
        """Each call costs the next of ``costs`` in microseconds, and the last one from then on."""
        remaining = list(costs)

        def call(*args, **kwargs):
            self.log.append(name)
            cost = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            self.now += round(1000 * cost * drift())

        return call


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(bench, "perf_counter_ns", lambda: made.now)
    monkeypatch.setattr(bench, "queued", lambda: 0)
    return made


def quick(targets, *args, seconds=0.1, **options):
    return ow.race(targets, args, quick=True, seconds=seconds, **options)


# ---------------------------------------------------------------- in this process


def test_medians_and_ratios_are_those_of_the_clock(clock):
    found = quick({"a": clock.target("a", 2000), "b": clock.target("b", 500)})
    assert found.result("a").quartiles == (2e-3, 2e-3, 2e-3)
    assert found.result("b").percentile(99) == 5e-4
    assert found.ratio("b").value == pytest.approx(4.0)
    assert not found.conditions.workers
    assert "a quick race" in repr(found)


def test_first_call_is_apart_and_blocks_last_about_4_ms(clock):
    found = quick({"a": clock.target("a", 70_000, 10), "b": clock.target("b", 9000)})
    (a,), (b,) = (found.result(name).replicates for name in "ab")
    assert (a.started.first, max(a.times)) == (0.07, 1e-5)
    assert (a.started.calls, set(a.blocks)) == (400, {4_000_000})
    assert (b.started.calls, set(b.blocks)) == (1, {9_000_000})
    assert len(a.blocks) == len(b.blocks) >= 5


def test_every_round_runs_everybody_in_an_order_that_the_seed_fixes(clock):
    def blocks(seed):
        clock.log.clear()
        quick({name: clock.target(name, 40_000) for name in "abc"}, seed=seed, seconds=3.0)
        return "".join(clock.log)

    first = blocks(1)
    assert first == blocks(1) != blocks(2)


def test_machine_that_slows_down_does_not_change_the_ratio(clock):
    def drift():
        return 1.0 + len(clock.log) / 1000

    a, b = (clock.target(name, cost, drift=drift) for name, cost in (("a", 4000), ("b", 2000)))
    found = quick({"a": a, "b": b}, seconds=2)
    assert found.ratio("b").value == pytest.approx(2.0, rel=0.01)
    assert max(found.result("a").times) > 1.3 * min(found.result("a").times)


def test_block_takes_off_what_both_the_scheduler_and_the_thread_say(clock, monkeypatch):
    one = bench.Bench(ModelCall(clock.target("a", 5)))
    one.start()
    for queued, busy, off in ((1000, 49_000, 1000), (0, 20_000, 0), (9_000_000, 49_000, 1000)):
        waits, times = iter((7, 7 + queued)), iter((3, 3 + busy))
        monkeypatch.setattr(bench, "queued", lambda waits=waits: next(waits))
        monkeypatch.setattr(bench, "thread_time_ns", lambda times=times: next(times))
        assert one.block(10) == (50_000, off)
    one.close()


def test_target_that_fails_stays_in_the_table_and_the_others_race(clock):
    calls = iter(range(1000))

    def tired(x):
        clock.now += 4_000_000
        if next(calls) >= 20:
            raise OSError("tired")

    class Picky:
        def __call__(self): ...
        def timed_call(self, args, kwargs, threads):
            raise InputError("two dimensions are expected")

    targets = {"late": tired, "a": clock.target("a", 4000), "picky": Picky()}
    found = quick(targets, X, seconds=0.5)
    assert (found.baseline, found.result("a").ran) == ("a", True)
    assert found.result("late").error == "OSError: tired"
    assert found.result("picky").error == "InputError: two dimensions are expected"


def test_nobody_who_runs_is_an_error_with_every_reason():
    with pytest.raises(InputError, match=r"a: ZeroDivisionError.*b: KeyError") as caught:
        quick({"a": lambda x: 1 / 0, "b": lambda x: {}[x]}, X)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


class Session:
    """A target that says itself what is timed."""

    def __init__(self, log):
        self.log = log

    def __call__(self, *args):
        raise AssertionError("the convenience call must not be timed")

    def timed_call(self, args, kwargs, threads=1):
        self.log.append((args, kwargs, threads))
        return self

    def prepare(self):
        return PreparedCall(int, "no copies", 3, "API", lambda: self.log.append("close"))


def test_target_with_a_timed_call_is_timed_as_it_says_and_closed():
    log = []
    found = ow.race({"s": Session(log)}, X, {"scale": 2}, quick=True, seconds=0.01)
    assert log == [((X,), {"scale": 2}, 1), "close", "close"]
    assert found.result("s").started.timed == "no copies"
    assert "s: 3, as read back\n" in repr(found)

    class Model(nn.Linear):
        timed_call = Session.timed_call

    assert quick({"model": Model(2, 2).eval()}, X).result("model").started.timed == PLAIN


def test_model_runs_in_eval_and_inference_mode_with_threads_and_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[2].eval()
    before, modes = torch.get_num_threads(), set()
    model.register_forward_hook(
        lambda module, *_: modes.add(
            (module.training, torch.is_inference_mode_enabled(), torch.get_num_threads())
        )
    )
    with pytest.warns(TrainingModeWarning) as warned:
        found = ow.race({"net": model}, X, quick=True, seconds=0.001, threads=before + 1)
    assert warned[0].filename == __file__
    assert modes == {(False, True, before + 1)}
    assert found.result("net").started.threads == before + 1
    assert [part.training for part in model.modules()] == [True, True, True, False]
    assert (torch.get_num_threads(), torch.is_inference_mode_enabled()) == (before, False)


def test_collector_is_off_in_the_rounds_and_on_again_afterwards():
    states = set()
    quick({"f": lambda: states.add(gc.isenabled())}, seconds=0.001)
    assert states == {False}
    assert gc.isenabled()


def test_interrupt_in_this_process_returns_what_was_measured(clock):
    calls = iter(range(1000))

    def impatient():
        clock.now += 4_000_000
        if next(calls) == 70:  # two warm up with 26 calls each
            raise KeyboardInterrupt

    found = quick({"a": impatient}, seconds=1)
    assert found.conditions.interrupted
    assert found.result("a").replicates[0].blocks
    assert "interrupted" in repr(found).splitlines()[0]
    with pytest.raises(KeyboardInterrupt):
        quick({"a": lambda: (_ for _ in ()).throw(KeyboardInterrupt)})


# ---------------------------------------------------------------- workers


def steady(milliseconds=1.0):
    """A function that is sent by value: it says nothing of this module."""

    def wait(*args):
        import time

        time.sleep(milliseconds / 1e3)

    return wait


def workers():
    """Those of a race. The one that runs loaded files is spawned, and stays for other tests."""
    spawned = multiprocessing.context.SpawnProcess
    return [each for each in multiprocessing.active_children() if not isinstance(each, spawned)]


def test_race_starts_everybody_anew_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    found = ow.race({"a": steady(), "b": steady(2), "relu": torch.relu}, X, seconds=0.5)
    assert workers() == []
    assert found.conditions.workers
    assert found.replicates == 2
    assert found.ratio("b").value < 0.8
    assert all(one.ran and one.startup["load"] > 0 for one in found.results)
    assert found.result("relu").startup["import"] > 0
    assert repr(found).startswith("It took "), "two replicates need more than half a second"
    assert (list(tmp_path.iterdir()), torch.get_num_threads()) == ([], before)
    if sys.platform == "linux":
        assert found.conditions.one_core
        assert found.result("relu").peak > 50e6


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    return relu_file(tmp_path_factory.mktemp("relu") / "m.onnx", 3, 2)


def test_only_those_who_need_torch_have_it(relu, start):
    class Told:  # of a function, so that it is sent by value
        def __init__(self, *modules):
            self.modules = modules

        def prepare(self):
            import sys

            return PreparedCall(int, "with torch" if "torch" in sys.modules else "without")

    assert relu.timed_call((X,), {}).modules == ("onnxruntime",)
    assert ModelCall(torch.relu, (X,)).modules == ModelCall(nn.ReLU()).modules == ("torch",)
    assert ModelCall(abs, (1,)).modules == ()
    for modules, said in ((("onnxruntime",), "without"), (("torch",), "with torch")):
        held = start(1, Parcel.of(Told(*modules)))
        held.opened()
        assert held.start().timed == said


def test_worker_that_dies_is_told_and_the_others_go_on():
    parent = os.getpid()

    def fatal(*args):
        import os

        if os.getpid() != parent:
            os._exit(7)

    found = ow.race({"a": steady(), "fatal": fatal}, seconds=0.5)
    assert found.conditions.workers
    assert found.result("fatal").error == "WorkerError: its process ended with code 7"
    assert found.result("a").ran
    assert workers() == []


def test_what_a_target_prints_and_its_errors_stay_with_it(capfd):
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    def broken():
        raise Odd("only", "here")

    def chatty():
        import os
        import time

        os.write(1, b"what it prints disturbs nobody")
        time.sleep(1e-3)

    found = ow.race({"chatty": chatty, "broken": broken}, seconds=0.5)
    assert found.result("chatty").ran
    assert "only here" in found.result("broken").error
    assert capfd.readouterr().out == ""


def test_what_cannot_be_sent_races_in_this_process():
    lock = threading.Lock()

    def closure():
        assert not lock.locked()

    found = ow.race({"a": closure}, seconds=0.1)
    assert not found.conditions.workers
    assert "cannot pickle" in repr(found)
    with pytest.raises(NotSendable):
        Parcel.of(closure)


class Unpacked:
    """Packed without trouble, and nobody can unpack it."""

    def __reduce__(self):
        return eval, ("1 / 0",)


@pytest.fixture
def start():
    """Starts workers, which end with the test."""
    with ExitStack() as stack:

        def start(*args, **options):
            held = Worker(*args, **options)
            stack.callback(held.close)
            return held

        yield start


def test_what_cannot_be_unpacked_is_told(start):
    held = start(1, Parcel.of(Unpacked()))
    with pytest.raises(NotSendable, match="ZeroDivisionError"):
        held.opened()


def interrupt_after(seconds):
    def send():
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(seconds, send)
    timer.start()
    return timer


def test_interrupt_returns_what_was_measured_and_ends_every_worker():
    ow.race({"a": steady()}, seconds=0.1)  # what is started once is there already
    begin = time.monotonic()
    interrupt_after(6.0)
    found = ow.race({"a": steady(), "b": steady()}, seconds=600)
    assert found.conditions.interrupted
    assert found.result("a").ran
    assert time.monotonic() - begin < 60
    assert workers() == []


def test_interrupt_before_the_first_round_propagates():
    def slow(*args):
        import time

        time.sleep(20)

    interrupt_after(1.5)
    with pytest.raises(KeyboardInterrupt):
        ow.race({"a": slow}, seconds=600)
    assert workers() == []


def test_worker_ends_with_its_parent_even_in_an_endless_call():
    code = (
        "import os, signal, threading\n"
        "from onnx_workbench.timing.worker import Worker\n"
        "held = Worker()\n"
        "pid = held.call(os.getpid)\n"
        "threading.Thread(target=held.call, args=(eval, '[1 for _ in iter(int, 1)]')).start()\n"
        "print(pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    if sys.platform == "win32":
        pytest.skip("Windows has no SIGKILL")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    late = time.monotonic() + 10
    while time.monotonic() < late and runs(int(done.stdout)):
        time.sleep(0.05)
    assert not runs(int(done.stdout))


def runs(pid):
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_script_without_a_guard_is_not_run_again(tmp_path):
    (tmp_path / "script.py").write_text(
        "import onnx_workbench as ow\n"
        "print('once')\n"
        "print(ow.race({'sum': lambda x: x.sum()}, __import__('torch').ones(3), seconds=0.1)"
        ".conditions.workers)\n"
    )
    command = [sys.executable, tmp_path / "script.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "once\nTrue\n", done.stderr


def test_worker_calls_functions_where_its_caller_is_and_says_with_what_code_it_ended(
    start, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNX_WORKBENCH_TEST", "here")
    held = start(threads=3)
    assert held.call(os.getcwd) == str(tmp_path)
    assert held.call(os.getenv, "ONNX_WORKBENCH_TEST") == "here"
    assert {held.call(os.getenv, name) for name in worker.POOLS} == {"3"}
    with pytest.raises(ZeroDivisionError):
        held.call(divmod, 1, 0)
    held.kill()
    with pytest.raises(WorkerError) as caught:
        held.call(max, 1, 2)
    assert caught.value.code != 0


# ---------------------------------------------------------------- files and models


def test_isolated_file_races_in_workers_only(tmp_path):
    path = tmp_path / "deadly.onnx"
    onnx.save(
        parser.parse_model(
            '<ir_version: 10, opset_import: ["": 20]> g (int64[1] x, int64[1] d) => (int64[1] y) '
            "{ y = Div(x, d) }"
        ),
        path,
    )
    file = ow.load(path, isolated=True)
    deadly = torch.tensor([-(2**63)]), torch.tensor([-1])
    with pytest.raises(InputError, match="isolated"):
        ow.race({"a": file}, deadly, quick=True)
    with pytest.raises(InputError, match="isolated"):
        ow.sweep({"a": file.using(bound=True)}, lambda n: deadly, n=(1, 2), quick=True)
    lock = threading.Lock()
    with pytest.raises(InputError, match="isolated"):
        ow.race({"a": file, "lock": lambda *args: lock}, deadly)
    found = ow.race({"sum": torch.add, "a": file}, deadly, seconds=0.5)
    assert "its process ended with code" in found.result("a").error
    assert found.result("sum").ran


def test_buffers_are_bound_once_and_give_the_same_numbers(relu):
    ready = relu.using(bound=True).timed_call((X,), {}).prepare()
    assert (ready.mode, ready.threads) == ("compute", 1)
    (binding,) = ready.run.args
    assert not binding.get_outputs()[0].has_value(), "nothing has run before the first call"
    ready.first()
    ready.run()
    np.testing.assert_allclose(binding.copy_outputs_to_cpu()[0], relu(X).numpy(), rtol=1e-6)
    pointers = [value.data_ptr() for value in binding.get_outputs()]
    ready.run()
    assert [value.data_ptr() for value in binding.get_outputs()] == pointers


def test_unbound_variant_is_the_same_call_with_its_copies(relu, tmp_path):
    other = relu_file(tmp_path / "other.onnx", 3, 2)
    targets = {
        **{"elsewhere": other, "run": relu, "bound": relu.using(bound=True)},
        **{"basic, bound": relu.using(bound=True, level="basic")},
    }
    found = quick(targets, X, seconds=0.01)
    assert {one.name: one.unbound for one in found.results if one.unbound} == {"bound": "run"}
    assert list(found.copies) == ["bound"]


def test_variants_change_one_option_each_and_race_as_one_kind(relu):
    variants = relu.variants()
    calls = {name: one.timed_call((X,), {}) for name, one in variants.items()}
    assert calls["defaults"].options == Options()
    assert calls["graph optimization off"].options == Options(level="off")
    assert calls["IOBinding"].options == Options(bound=True)
    assert len({repr(call.options) for call in calls.values()}) == len(calls)
    assert {call.prepare().mode for call in calls.values()} == {""}
    found = quick(variants, X, seconds=0.1)
    assert [name for name in variants if found.ratio(name)] == list(variants)[1:]
    assert torch.equal(variants["arena off"](X), relu(X))


@pytest.mark.parametrize(("name", "new"), [("weigh", "startup"), ("tune", "variants")])
def test_former_door_says_what_to_write_now(name, new):
    with pytest.raises(InputError) as caught:
        getattr(ow, name)({"a": abs}, X)
    assert new in caught.value.hint
    assert name not in ow.__all__


def test_session_options_arrive_in_the_session(relu):
    import onnxruntime

    options = {"level": "basic", "spinning": False, "arena": False, "parallel": True}
    ready = relu.using(**options).timed_call((X,), {}).prepare()
    granted = ready.run.func.__self__.get_session_options()
    assert granted.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert granted.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not granted.enable_cpu_mem_arena
    parallel = Options(parallel=True).for_session(threads=2)  # a session does not tell its own
    assert (parallel.intra_op_num_threads, parallel.inter_op_num_threads) == (2, 2)


def test_provider_that_is_not_here_is_left_out_with_a_sentence(relu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    absent = relu.using(provider="NoSuchExecutionProvider", bound=True)
    targets = {"CPU": relu, "ORT": absent, "torch": ow.placed(nn.Linear(2, 2).eval())}
    with warnings.catch_warnings(action="error"):  # onnxruntime warns, and takes the CPU
        found = quick(targets, X, seconds=0.01)
    assert "NoSuchExecutionProvider cannot be used here" in found.result("ORT").error
    assert "finds no CUDA device" in found.result("torch").error


def test_provider_that_falls_back_to_the_cpu_is_not_raced_under_its_name(relu, monkeypatch):
    import onnxruntime

    cuda, real = "CUDAExecutionProvider", onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: real(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(LoadError, match=cuda):
        relu.using(provider=cuda).timed_call((X,), {}).prepare()


def test_placed_model_and_its_inputs_move_and_the_callers_stay():
    model = nn.Linear(2, 2)
    target = ow.placed(model, "meta")
    ready = target.timed_call((X,), {}).prepare()
    assert ready.run().device.type == target(X).device.type == "meta"
    ready.close()
    assert next(model.parameters()).device.type == X.device.type == "cpu"
    assert model.training
    assert not torch.is_inference_mode_enabled()


def test_compiled_model_is_compiled_where_it_races():
    seen = []

    def backend(graph, inputs):
        seen.append(len(inputs))
        return graph

    model = nn.Linear(2, 2).eval()
    target = ow.compiled(model, backend=backend, dynamic=True)
    ready = target.timed_call((X,), {}).prepare()
    ready.run()
    ready.close()
    assert len(seen) == 1
    assert "torch.compile(model, backend=" in ready.timed
    assert torch.equal(target(X), model(X))


# ---------------------------------------------------------------- sweep


def test_sweep_races_each_size_in_ascending_order():
    seen = []
    pair = {"sum": lambda x: seen.append(x.shape[1]) or x.sum(), "max": torch.max}
    found = ow.sweep(pair, lambda n: torch.ones(2, n), n=(9, 3, 9), quick=True, seconds=0.02)
    assert list(dict.fromkeys(seen)) == [3, 9]
    assert (found.over, list(found.races), found.names) == ("n", [3, 9], ("sum", "max"))
    assert all(record["throughput"] > 0 for record in found.records() if record["target"] == "sum")


def test_sweep_over_threads_gives_each_race_its_number():
    seen = []
    count = {"f": lambda x: seen.append(torch.get_num_threads())}
    found = ow.sweep(count, (X,), threads=range(1, 3), quick=True, seconds=0.01)
    assert list(dict.fromkeys(seen)) == [1, 2]
    assert [race.conditions.threads for race in found.races.values()] == [1, 2]


@pytest.mark.parametrize("at", [1, 2])
def test_interrupt_keeps_the_races_before_it(at):
    def inputs(n):
        if n == at:
            raise KeyboardInterrupt
        return X

    with nullcontext() if at > 1 else pytest.raises(KeyboardInterrupt):
        found = ow.sweep({"a": torch.relu}, inputs, n=(1, 2), quick=True, seconds=0.01)
        assert (list(found.races), found.interrupted) == ([1], True)


@pytest.mark.parametrize(
    ("inputs", "axes"),
    [
        (X, {}),
        (X, {"batch": (1, 2)}),
        (abs, {"threads": (1, 2)}),
        (abs, {"a": (1,), "b": (2,)}),
        *((abs, {"batch": sizes}) for sizes in ((), (0, 1), (1, 2.5), 0)),
    ],
)
def test_there_is_one_thing_to_sweep_over(inputs, axes):
    with pytest.raises(InputError):
        ow.sweep({"a": abs}, inputs, **axes)


def test_random_state_is_left_alone():
    before = random.getstate()
    quick({"a": abs}, -1, seconds=0.01)
    assert random.getstate() == before
