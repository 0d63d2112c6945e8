"""How workers start: what is forked shares an import of torch, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest
import torch
from models import relu_file

from onnx_workbench import isolated
from onnx_workbench.racing import heats, process
from onnx_workbench.racing import race as racing
from onnx_workbench.racing.call import PLAIN, Call
from onnx_workbench.racing.race import race
from onnx_workbench.racing.worker import Worker, WorkerError, packed

if not process.FORKS:
    pytest.skip("here every worker is a new Python", allow_module_level=True)

X = torch.arange(6.0).reshape(3, 2)
RELU = packed([Call(torch.relu, (X,))])


@contextmanager
def forks(*payloads: bytes, threads: int = 1):
    with process.forked(len(payloads), threads) as found, ExitStack() as stack:
        workers = []
        for payload, one in zip(payloads, found, strict=True):
            workers.append(Worker(payload, threads, process=one))
            stack.callback(workers[-1].close)
        yield workers


@pytest.fixture(autouse=True, scope="module")
def no_worker_of_files():
    """The worker that runs loaded files stays for later calls; other tests may have started it."""
    isolated._end()


def below() -> list[int]:
    """The workers and nests of this process; a browser of other tests is none."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended since
            if any("onnx_workbench.racing" in word for word in one.cmdline()):
                found.append(one.pid)
    return found


def opened(workers):
    for one in workers:
        one.opened()
    return [one._process.pid for one in workers]


@pytest.mark.parametrize("threads", [1, 2])
def test_forks_of_one_nest_answer_and_leave_no_process(threads):
    payload = packed([Call(torch.relu, (X,), threads=threads)])
    with forks(payload, payload, threads=threads) as workers:
        pids = opened(workers)
        (parent,) = {psutil.Process(pid).ppid() for pid in pids}
        assert sorted(below()) == sorted([parent, *pids])
        for one in workers:
            (ready,) = one.ready()
            assert (ready.timed, ready.threads) == (PLAIN, threads)
            took, _ = one.block(0, 3)
            assert took > 0
    assert below() == []


def test_a_frozen_fork_stands_still_and_ends_with_its_nest():
    with forks(RELU, RELU) as workers:
        pids = opened(workers)
        for one in workers:
            one.freeze()
        assert all(map(_stands_still, pids))
    assert not any(map(psutil.pid_exists, pids))


def _stands_still(pid: int) -> bool:
    """Told to stop, a process stops a little later."""
    late, status = time.monotonic() + 5, psutil.Process(pid).status
    while status() != psutil.STATUS_STOPPED and time.monotonic() < late:
        time.sleep(0.001)
    return status() == psutil.STATUS_STOPPED


@pytest.mark.parametrize("at", [0, 1])
def test_a_fork_that_dies_says_with_what_code_and_the_other_goes_on(at, monkeypatch):
    parent = os.getpid()

    def fatal(x):
        if os.getpid() != parent:
            os._exit(7)
        return torch.relu(x)

    payloads = [RELU, RELU]
    payloads[at] = packed([Call(fatal, (X,))])
    with forks(*payloads) as workers:
        opened(workers)
        dying, other = workers[at], workers[1 - at]
        with pytest.raises(WorkerError, match=r"^its process ended with code 7$"):
            dying.ready()
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", pytest.fail)
            dying.freeze()  # its number may be another's by now
        assert other.ready()[0].timed == PLAIN
        nest = other._process.nest.process
    assert nest.returncode == 0
    assert below() == []


def test_a_nest_that_dies_takes_its_forks_along_and_says_with_what_code():
    with forks(RELU) as (worker,):
        opened([worker])
        nest = worker._process.nest.process
        nest.kill()
        nest.wait()
        with pytest.raises(WorkerError, match=r"^its process ended with code -9$"):
            worker.ready()
        worker.freeze()
    assert below() == []


def test_a_nest_without_torch_leaves_it_to_the_worker_to_say_so(monkeypatch):
    missing = "import sys; sys.modules['torch'] = None; "
    monkeypatch.setattr(process, "_START", missing + process._START)
    said = "^ModuleNotFoundError: "  # in Python's own words, which change
    with forks(RELU) as (worker,), pytest.raises(WorkerError, match=said):
        worker.opened()
    assert below() == []


def test_forks_end_with_the_parent_of_their_nest_even_when_they_are_frozen():
    code = (
        "import os, signal\n"
        "from onnx_workbench.racing import call, process\n"
        "from onnx_workbench.racing.worker import Worker, packed\n"
        "with process.forked(1, 1) as (fork,):\n"
        "    one = Worker(packed([call.Call(print)]), 1, process=fork)\n"
        "    one.opened(); one.freeze()\n"
        "    print(fork.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    gone = time.monotonic() + 5
    while time.monotonic() < gone and _runs(int(done.stdout)):
        time.sleep(0.01)
    assert not _runs(int(done.stdout))


def _runs(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_an_interrupt_while_torch_is_imported_leaves_nothing(monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 0.05)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(heats, "run", interrupted)
    before = psutil.Process().num_fds()
    with pytest.raises(KeyboardInterrupt):
        race({"relu": torch.relu}, X)
    assert below() == []
    assert psutil.Process().num_fds() <= before


@pytest.mark.parametrize("forks", [True, False])
def test_each_stratum_has_a_nest_of_its_own_for_those_who_need_torch(tmp_path, monkeypatch, forks):
    monkeypatch.setattr(heats, "ROUNDS", 2)
    monkeypatch.setattr(heats, "LEAST_ROUNDS", 2)
    monkeypatch.setattr(racing, "LEAST_STRATA", 2)
    monkeypatch.setattr(racing, "FORKS", forks)
    parents: list[int] = []

    class Watched(Worker):
        def ready(self):
            parents.append(psutil.Process(self._process.pid).ppid())
            return super().ready()

    monkeypatch.setattr(racing, "Worker", Watched)
    file = relu_file(tmp_path / "m.onnx", 3, 2)
    result = race({"relu": torch.relu, "onnx": file}, X, seconds=0.1)
    assert (result.conditions.how, result.strata) == ("workers", 2)
    mine = [parent for parent in parents if parent == os.getpid()]
    nests = set(parents) - {os.getpid()}
    assert (len(parents), len(mine), len(nests)) == ((6, 2, 2) if forks else (6, 6, 0))
    assert below() == []


def test_what_is_sent_tells_whether_it_needs_torch(tmp_path):
    file = relu_file(tmp_path / "torch.onnx", 3, 2)
    assert not process.needs_torch(packed([file.entry((X,), {})]))
    assert process.needs_torch(packed([Call(torch.nn.Linear(2, 2), (X,))]))
    assert process.needs_torch(packed([Call(lambda: torch.ones(2))]))
    assert not process.needs_torch(packed([Call(print, ("torchlight",))]))
