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
from contextlib import nullcontext
from importlib import metadata

import numpy as np
import onnxruntime
import psutil
import pytest
import torch
from models import relu_file, saved
from onnxruntime import GraphOptimizationLevel
from torch import nn

import onnx_workbench as ow
from onnx_workbench.calls import PreparedCall
from onnx_workbench.errors import InputError, LoadError, TrainingModeWarning
from onnx_workbench.ort import Options
from onnx_workbench.timing import bench
from onnx_workbench.timing.targets import EAGER, ModelCall
from onnx_workbench.timing.worker import POOLS, Worker, WorkerError

X = torch.arange(6.0).reshape(3, 2)


@pytest.fixture(scope="module", autouse=True)
def frozen_heap():
    """A race in this process collects garbage, and torch makes that slow."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


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
    monkeypatch.setattr(bench, "SCHEDULER", "no such file")
    return made


def quick(targets, *args, seconds=0.1, **options):
    return ow.race(targets, args, quick=True, seconds=seconds, **options)


# In this process


def test_times_are_those_of_the_clock_and_blocks_last_about_4_ms(clock):
    found = quick({"a": clock.target("a", 70_000, 10), "b": clock.target("b", 9000)})
    (a,), (b,) = (found.result(name).replicates for name in "ab")
    assert (a.started.first, a.started.calls, set(a.blocks)) == (0.07, 400, {4_000_000})
    assert (b.started.calls, set(b.blocks)) == (1, {9_000_000})
    assert len(a.blocks) == len(b.blocks) >= 5
    assert found.result("a").quartiles == (1e-5, 1e-5, 1e-5)
    assert found.result("b").percentile(99) == 9e-3
    assert found.ratio("b").value == pytest.approx(1 / 900)
    assert not found.conditions.workers
    assert "a quick race" in repr(found)


def test_seed_fixes_the_order_of_every_round(clock):
    def order(seed):
        clock.log.clear()
        quick({name: clock.target(name, 40_000) for name in "abc"}, seed=seed, seconds=3.0)
        return "".join(clock.log)

    before = random.getstate()
    first = order(1)
    assert first == order(1) != order(2)
    assert random.getstate() == before


def test_machine_that_slows_down_does_not_change_the_ratio(clock):
    def drift():
        return 1.0 + len(clock.log) / 1000

    a, b = (clock.target(name, cost, drift=drift) for name, cost in (("a", 4000), ("b", 2000)))
    found = quick({"a": a, "b": b}, seconds=2)
    assert found.ratio("b").value == pytest.approx(2.0, rel=0.01)
    assert max(found.result("a").times) > 1.3 * min(found.result("a").times)


@pytest.mark.parametrize(("waited", "off"), [(1_000_000, 1_000_000), (0, 0), (10**12, 49_000_000)])
def test_block_takes_off_what_both_the_scheduler_and_the_thread_say(
    waited, off, clock, monkeypatch, tmp_path
):
    monkeypatch.setattr(bench, "SCHEDULER", tmp_path / "schedstat")
    monkeypatch.setattr(bench, "thread_time_ns", lambda: clock.now // 50)  # 2 % of the time

    def call():
        clock.now += 50_000_000
        total = clock.now // 50_000_000 * waited
        (tmp_path / "schedstat").write_text(f"0 {total} 0")

    one = bench.Bench(ModelCall(call))
    one.start()
    assert one.block(1) == (50_000_000, off)
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

    broken = {"late": tired, "picky": Picky(), "leaves": lambda x: sys.exit("no")}
    found = quick({**broken, "a": clock.target("a", 4000)}, X, seconds=0.5)
    assert (found.baseline, found.result("a").ran) == ("a", True)
    assert found.result("late").error == "OSError: tired"
    assert found.result("picky").error == "InputError: two dimensions are expected"
    assert found.result("leaves").error == "SystemExit: no"
    with pytest.raises(InputError, match=r"late: OSError.*picky: InputError") as caught:
        quick(broken, X)
    assert isinstance(caught.value.__cause__, OSError)


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
    assert "s: 3, as reported\n" in repr(found)

    class Model(nn.Linear):
        timed_call = Session.timed_call

    assert quick({"model": Model(2, 2).eval()}, X).result("model").started.timed == EAGER


def test_model_runs_in_eval_and_inference_mode_and_all_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[2].eval()
    before, seen = torch.get_num_threads(), set()

    def look(module, *_):
        threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
        seen.add((module.training, inference, threads, gc.isenabled()))

    model.register_forward_hook(look)
    with pytest.warns(TrainingModeWarning) as warned:
        found = ow.race({"net": model}, X, quick=True, seconds=0.001, threads=before + 1)
    assert warned[0].filename == __file__
    assert seen == {(False, True, before + 1, False)}
    assert found.result("net").started.threads == before + 1
    assert [part.training for part in model.modules()] == [True, True, True, False]
    assert (torch.get_num_threads(), torch.is_inference_mode_enabled()) == (before, False)
    assert gc.isenabled()


def test_versions_are_those_of_what_is_installed(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return "1.2.3" if name == "onnxruntime-gpu" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    environment = quick({"a": abs}, 1, seconds=0.01).conditions.environment
    names = ["chip", "system", "Python", "torch", "onnxruntime-gpu", "numpy"]
    assert list(environment) == names
    assert environment["onnxruntime-gpu"] == "onnxruntime-gpu 1.2.3"


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


# Workers


def steady(milliseconds=1.0, path=os.devnull):
    """A function that is sent by value, and writes down the process that it runs in."""
    path = str(path)

    def wait(*args):
        import os
        import time

        with open(path, "a") as file:  # noqa: PTH123
            file.write(f"{os.getpid()}\n")
        time.sleep(milliseconds / 1e3)

    return wait


def seen(path):
    """How many processes have called a steady function."""
    return len(set(path.read_text().split())) if path.exists() else 0


def workers():
    """Those of a race. The one that runs loaded files is spawned, and stays for other tests."""
    spawned = multiprocessing.context.SpawnProcess
    return [each for each in multiprocessing.active_children() if not isinstance(each, spawned)]


@pytest.fixture(scope="module")
def raced():
    """A race of the sound and the broken, whose targets are sent by value."""
    parent = os.getpid()

    class Odd(Exception):  # cannot be unpickled
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    def broken(*args):
        raise Odd("only", "here")

    def fatal(*args):
        import os

        if os.getpid() != parent:
            os._exit(7)

    def chatty(*args):
        import os
        import time

        os.write(1, b"what it prints disturbs nobody")
        time.sleep(1e-3)

    class Imports:
        def __init__(self, *modules):
            self.modules = modules

        __call__ = broken

        def timed_call(self, *args):
            return self

        def prepare(self):
            import sys

            return PreparedCall(int, f"with torch: {'torch' in sys.modules}")

    targets = {"a": steady(), "b": steady(20), "relu": torch.relu, "chatty": chatty}
    targets |= {"fatal": fatal, "broken": broken}
    targets |= {"lean": Imports("onnxruntime"), "torch": Imports("torch")}
    return ow.race(targets, X, seconds=0.5)


def test_every_target_starts_anew_and_none_is_left_behind(raced):
    assert workers() == []
    assert raced.conditions.workers
    assert raced.replicates == 2
    assert repr(raced).startswith("It took "), "two replicates need more than half a second"
    assert raced.ratio("b").value < 0.8
    ran = [one for one in raced.results if one.ran]
    assert [one.name for one in ran] == ["a", "a again", "b", "relu", "chatty", "lean", "torch"]
    assert all(one.startup["load"] > 0 for one in ran)
    assert raced.result("relu").startup["import"] > 0
    if sys.platform == "linux":
        assert raced.conditions.one_core
        assert raced.result("relu").peak > 50e6


def test_target_that_fails_or_dies_stays_in_the_table_and_who_needs_torch_has_it(raced, relu):
    assert raced.result("fatal").error == "WorkerError: its process ended with code 7"
    assert "only here" in raced.result("broken").error
    assert raced.result("lean").started.timed == "with torch: False"
    assert raced.result("torch").started.timed == "with torch: True"
    assert relu.timed_call((X,), {}).modules == ("onnxruntime",)
    assert ModelCall(torch.relu, (X,)).modules == ModelCall(nn.ReLU()).modules == ("torch",)
    assert ModelCall(abs, (1,)).modules == ()


class Unpacked:
    """Packed without trouble, and no other process can unpack it."""

    def __reduce__(self):
        return eval, ("1 / 0",)

    def __call__(self): ...


def locked():
    lock = threading.Lock()
    return lambda: lock.locked()


@pytest.mark.parametrize(("make", "why"), [(locked, "cannot pickle"), (Unpacked, "ZeroDivision")])
def test_what_cannot_be_sent_races_in_this_process(make, why):
    found = ow.race({"a": make()}, seconds=0.1)
    assert not found.conditions.workers
    assert why in repr(found)


def interrupt_when(condition):
    def watch():
        wait_until(condition)
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def test_interrupt_returns_what_was_measured_and_ends_every_worker(raced, tmp_path):
    path = tmp_path / "processes"
    interrupt_when(lambda: seen(path) > 3)  # a, its control and b have raced once
    found = ow.race({"a": steady(path=path), "b": steady(path=path)}, seconds=600)
    assert found.conditions.interrupted
    assert found.result("a").ran
    assert workers() == []


def test_interrupt_before_the_first_round_propagates(tmp_path):
    path = tmp_path / "processes"
    interrupt_when(lambda: seen(path) > 0)
    with pytest.raises(KeyboardInterrupt):
        ow.race({"a": steady(20_000, path)}, seconds=600)
    assert workers() == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_script_without_a_guard_runs_once_and_its_workers_end_with_it(tmp_path):
    (tmp_path / "script.py").write_text(
        "import os, onnx_workbench as ow\n"
        "print('once', flush=True)\n"
        "def endless(x):\n"
        "    open('pid', 'a').write(f'{os.getpid()}\\n')\n"
        "    while True: pass\n"
        "ow.race({'endless': endless}, 1)\n"
    )
    command = [sys.executable, "script.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as script:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        script.kill()
        assert script.stdout.read() == "once\n"
    pid = int((tmp_path / "pid").read_text())
    assert pid != script.pid
    wait_until(lambda: not runs(pid))


def wait_until(condition, seconds=120):
    late = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < late
        time.sleep(0.05)


def runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_worker_calls_functions_where_its_caller_is_and_says_how_it_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNX_WORKBENCH_TEST", "here")
    worker = Worker(threads=3)
    try:
        assert worker.call(os.getcwd) == str(tmp_path)
        assert worker.call(os.getenv, "ONNX_WORKBENCH_TEST") == "here"
        assert {worker.call(os.getenv, name) for name in POOLS} == {"3"}
        with pytest.raises(ZeroDivisionError):
            worker.call(divmod, 1, 0)
        worker.kill()
        with pytest.raises(WorkerError) as caught:
            worker.call(max, 1, 2)
        assert caught.value.code != 0
    finally:
        worker.close()


# Files and models


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    return relu_file(tmp_path_factory.mktemp("relu") / "m.onnx", 3, 2)


def test_isolated_file_races_in_workers_only(tmp_path):
    text = "(int64[1] x, int64[1] d) => (int64[1] y) { y = Div(x, d) }"
    path, lock = saved(tmp_path / "deadly.onnx", text).path, threading.Lock()
    file = ow.load(path, isolated=True)
    deadly = torch.tensor([-(2**63)]), torch.tensor([-1])
    for race in (
        lambda: ow.race({"a": file}, deadly, quick=True),
        lambda: ow.sweep({"a": file.using(bound=True)}, lambda n: deadly, n=(1, 2), quick=True),
        lambda: ow.race({"a": file, "lock": lambda *args: lock}, deadly),
    ):
        with pytest.raises(InputError, match="isolated"):
            race()
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


def test_variants_change_one_option_each_and_race_as_one_kind(relu, tmp_path):
    variants = relu.variants()
    calls = {name: one.timed_call((X,), {}) for name, one in variants.items()}
    assert calls["defaults"].options == Options()
    assert calls["graph optimization off"].options == Options(level="off")
    assert calls["IOBinding"].options == Options(bound=True)
    assert len({repr(call.options) for call in calls.values()}) == len(calls)
    other = relu_file(tmp_path / "other.onnx", 3, 2)
    basic = relu.using(bound=True, level="basic")
    found = quick({"elsewhere": other, **variants, "basic, bound": basic}, X, seconds=0.1)
    assert [name for name in variants if found.ratio(name)] == list(variants)
    unbound = {one.name: one.unbound for one in found.results if one.unbound}
    pairs = {"IOBinding": "defaults", "basic, bound": "graph optimization basic"}
    assert unbound == pairs, "the same call with its copies"
    assert list(found.copies) == list(pairs)
    assert torch.equal(variants["arena off"](X), relu(X))


def test_session_options_arrive_in_the_session(relu):
    options = {"level": "basic", "spinning": False, "arena": False, "parallel": True}
    ready = relu.using(**options).timed_call((X,), {}, threads=2).prepare()
    assert ready.run.func.__self__ is not relu.session
    granted = ready.run.func.__self__.get_session_options()
    assert (granted.intra_op_num_threads, ready.threads) == (2, 2)
    assert granted.graph_optimization_level == GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert granted.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not granted.enable_cpu_mem_arena
    parallel = Options(parallel=True).for_session(threads=2)  # a session does not tell its own
    assert (parallel.intra_op_num_threads, parallel.inter_op_num_threads) == (2, 2)


def test_device_that_is_not_here_is_left_out_with_a_sentence(relu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    absent = relu.using(provider="NoSuchExecutionProvider", bound=True)
    targets = {"CPU": relu, "ORT": absent, "torch": ow.placed(nn.Linear(2, 2).eval())}
    with warnings.catch_warnings(action="error"):  # onnxruntime warns, and takes the CPU
        found = quick(targets, X, seconds=0.01)
    assert "NoSuchExecutionProvider cannot be used here" in found.result("ORT").error
    assert "finds no CUDA device" in found.result("torch").error
    # nor is a provider that falls back to the CPU raced under its name
    cuda, real = "CUDAExecutionProvider", onnxruntime.InferenceSession
    on_cpu = lambda path, options, providers: real(path, options, ["CPUExecutionProvider"])  # noqa: E731
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda])
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    with pytest.raises(LoadError, match=cuda):
        relu.using(provider=cuda).timed_call((X,), {}).prepare()


def test_model_is_placed_or_compiled_where_it_races_and_the_callers_stays():
    seen, model = [], nn.Linear(2, 2)

    def backend(graph, inputs):
        seen.append(len(inputs))
        return graph

    on_meta, compiled = ow.placed(model, "meta"), ow.compiled(model, backend=backend, dynamic=True)
    ready = [target.timed_call((X,), {}).prepare() for target in (on_meta, compiled)]
    assert [one.run().device.type for one in ready] == ["meta", "cpu"]
    for one in reversed(ready):
        one.close()
    assert len(seen) == 1
    assert "torch.compile(model, backend=" in ready[1].timed
    assert on_meta(X).device.type == "meta"
    assert torch.equal(compiled(X), model(X))
    assert next(model.parameters()).device.type == X.device.type == "cpu"
    assert model.training
    assert not torch.is_inference_mode_enabled()


# Sweep


def test_sweep_races_each_size_or_number_of_threads_in_ascending_order():
    seen = []
    target = {"f": lambda x: seen.append((len(x), torch.get_num_threads()))}
    found = ow.sweep(target, lambda n: torch.ones(n), n=(9, 3, 9), quick=True, seconds=0.01)
    assert (found.over, list(found.races), found.names) == ("n", [3, 9], ("f",))
    ow.sweep(target, {"x": X}, threads=range(1, 3), quick=True, seconds=0.01)
    assert list(dict.fromkeys(seen)) == [(3, 1), (9, 1), (3, 2)]


@pytest.mark.parametrize("last", [1, 2])
def test_interrupt_keeps_the_races_before_it(last):
    def inputs(n):
        if n == last:
            raise KeyboardInterrupt
        return X

    with nullcontext() if last > 1 else pytest.raises(KeyboardInterrupt):
        found = ow.sweep({"a": torch.relu}, inputs, n=(1, 2), quick=True, seconds=0.01)
        assert (list(found.races), found.interrupted) == ([1], True)


def test_there_is_one_thing_to_sweep_over():
    sizes = [{"batch": sizes} for sizes in ((), (0, 1), (1, 2.5), 0)]
    taken = {"copies": (1, 2)}  # a column of records()
    for axes in ({"threads": (1, 2)}, {"a": (1,), "b": (2,)}, taken, *sizes):
        with pytest.raises(InputError):
            ow.sweep({"a": abs}, abs, **axes)
    for axes in ({}, {"batch": (1, 2)}):
        with pytest.raises(InputError):
            ow.sweep({"a": abs}, X, **axes)
