"""A file that kills or hangs ONNX Runtime ends its own process, and this one goes on."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import onnx
import pytest
import torch
from models import parsed

import onnx_workbench as ow
from onnx_workbench import isolated
from onnx_workbench.errors import InputError, LoadError, RunError

LEAST = -(2**63)
LOCATION = "pkg.torch.onnx.stack_trace"


def saved(path, text, **options):
    model = parsed(text)
    for node in model.graph.node:
        where = f'File "net.py", line {len(node.name)}, in forward\n    {node.name}'
        node.metadata_props.add(key=LOCATION, value=where)
    onnx.save(model, path, **options)
    return path


@pytest.fixture
def deadly(tmp_path):
    """Dies while it is loaded: constants are folded."""
    return saved(
        tmp_path / "fold.onnx",
        "(float[2] x) => (float[2] y, int64[1] z) "
        f"<int64[1] a = {{{LEAST}}}, int64[1] b = {{-1}}> "
        "{ [one] h = Relu(x)  [two] y = Neg(h)  [least] q = Div(a, b)  [four] z = Abs(q) }",
    )


@pytest.fixture
def fatal(tmp_path):
    """Dies while it runs, by what it is called with."""
    return saved(
        tmp_path / "run.onnx",
        "(int64[N] x, int64[N] d) => (int64[N] y) "
        "{ [before] h = Abs(d)  [minus] n = Neg(h)  [quotient] q = Div(x, n)  [after] y = Neg(q) }",
    )


LOOP = (
    "Loop(n, go, {}) <body = b (int64 i, bool c, float[2] s) => (bool k, float[2] t) "
    "{{ k = Identity(c)  t = Neg(s) }}>"
)
ENDLESS = "<int64 n = {4611686018427387904}, bool go = {1}"


@pytest.fixture
def endless(tmp_path):
    """Does not end while it runs."""
    return saved(
        tmp_path / "loop.onnx",
        f"(float[2] x) => (float[2] y) {ENDLESS}> "
        f"{{ [one] a = Abs(x)  [endless] y = {LOOP.format('a')} }}",
    )


@pytest.fixture
def relu(tmp_path):
    return saved(tmp_path / "m.onnx", "(float[N] x) => (float[N] y) { [relu] y = Relu(x) }")


CALL = torch.tensor([LEAST]), torch.tensor([1])
X = torch.ones(2)


def test_crash_while_loading_names_its_node(deadly):
    artifact = ow.load(deadly, isolated=True)
    with pytest.raises(LoadError, match=r"SIG.*'least' \(Div\)") as caught:
        artifact(X)
    assert caught.value.line.place == "net.py:5"
    assert "Div" in repr(ow.view(artifact))
    assert ow.trace(artifact).line_of("least").number == 5


def test_a_file_that_is_like_an_export_is_profiled_in_its_own_process(tmp_path):
    onnx = ow.export(torch.nn.ReLU().eval(), X, tmp_path / "m.onnx")
    spots = ow.profile(ow.load(onnx.path, like=onnx, isolated=True), X, seconds=0.01)
    assert (spots.unattributed, spots.laps) == (0, ())


def test_crash_while_running_names_its_node_and_later_calls_work(fatal):
    artifact = ow.load(fatal, isolated=True)
    assert artifact(torch.tensor([8]), torch.tensor([2])).tolist() == [4]
    with pytest.raises(RunError, match=r"SIG.*'quotient' \(Div\)") as caught:
        artifact(*CALL)
    assert caught.value.line.number == len("quotient")
    assert artifact(torch.tensor([8]), torch.tensor([4])).tolist() == [2]


def test_crash_in_a_branch_names_the_if_node(tmp_path):
    path = saved(
        tmp_path / "if.onnx",
        "(bool c, int64[1] x, int64[1] d) => (int64[1] y) { [other] e = Abs(x) [fork] y = If(c) <"
        "then_branch = t () => (int64[1] a) { a = Div(x, d) }, "
        "else_branch = f () => (int64[1] b) { b = Identity(e) }> }",
    )
    with pytest.raises(RunError, match=r"'fork' \(If\)"):
        ow.load(path, isolated=True)(torch.tensor(True), torch.tensor([LEAST]), torch.tensor([-1]))


def test_endless_run_is_stopped_and_names_its_node(endless):
    report = ow.audit(ow.load(endless, isolated=True, timeout=1), X)
    first = next(f for f in report.findings if f.stage == "model")
    assert (first.verdict, first.line.place) == ("broken", "net.py:7")
    assert re.search(r"1 s.*'endless' \(Loop\)", first.sentence)


def test_endless_load_names_its_node(tmp_path):
    """All is constant, so that it is computed where the session is made."""
    path = saved(
        tmp_path / "fold.onnx",
        f"(float[2] x) => (float[2] y) {ENDLESS}, float[2] w = {{1, 2}}> "
        f"{{ [first] a = Abs(w)  [folded] l = {LOOP.format('a')} [last] y = Add(l, x) }}",
    )
    with pytest.raises((LoadError, RunError), match=r"'folded' \(Loop\)"):
        ow.load(path, isolated=True, timeout=1)(X)


@pytest.mark.parametrize("outside", [False, True])
def test_crash_in_a_large_file_names_its_node_without_sending_weights(outside, tmp_path):
    text = (
        "(float[N, 4] x, int64[1] i) => (float[N, 2300] y, int64[1] z) { [big] y = MatMul(x, w) "
        "[low] a = Mul(i, m)  [least] z = Div(a, o) }"
    )
    model = parsed(text)
    weights = {"w": np.ones((4, 2300), np.float32), "rest": np.ones(4_500_000, np.float32)}
    weights |= {"m": np.array([LEAST]), "o": np.array([-1])}
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    options = {"save_as_external_data": True, "location": "w.data"} if outside else {}
    onnx.save(model, tmp_path / "m.onnx", **options)
    artifact = ow.load(tmp_path / "m.onnx", isolated=True)
    assert len(artifact.proto.SerializeToString()) < 100_000
    with pytest.raises(RunError, match=r"SIG.*'least' \(Div\)"):
        artifact(torch.ones(2, 4), torch.tensor([1]))


def test_isolated_file_never_runs_in_this_process(fatal):
    artifact = ow.load(fatal, isolated=True)
    with pytest.raises(InputError, match=r"(?s)run\.onnx.*isolated"):
        artifact.session  # noqa: B018
    with pytest.raises(InputError, match="graph"):
        ow.verify(artifact, artifact, CALL, values=True)
    with pytest.raises(RunError, match="'quotient'"):
        ow.profile(artifact, CALL, seconds=0.1)


def test_long_profile_is_no_timeout(relu):
    artifact = ow.load(relu, isolated=True, timeout=2)
    assert ow.profile(artifact, torch.ones(4_000_000), seconds=2.2).recording.kernels


def test_audit_and_probe_survive_a_crash(fatal):
    file, rows = ow.load(fatal), {"x": {0: torch.export.Dim("N", max=2)}}
    report = ow.audit(file, CALL)
    verdicts = {finding.stage: finding.verdict for finding in report.findings}
    assert verdicts["model"] == "broken"
    assert verdicts["latency"] == verdicts["hot lines"] == "not tried"
    assert verdicts["portability"] == verdicts["size"] == "ok"
    assert "'quotient'" in repr(report)
    (dimension,) = ow.probe(file, CALL, dynamic_shapes=rows).dimensions
    assert {trial.outcome for trial in dimension.trials} == {"the file fails"}


def test_sound_file_is_audited_in_one_process_that_has_no_torch(relu):
    report = ow.audit(ow.load(relu, timeout=30), torch.ones(100_000))  # takes microseconds
    said = {finding.stage: finding.sentence for finding in report.findings}
    assert "30 s" in said["model"]
    assert "net.py:4" in said["hot lines"]
    assert "a call" in said["latency"]
    one = isolated.ask(os.getpid, timeout=30)
    assert one != os.getpid()
    assert ow.probe(ow.load(relu), X).dimensions
    assert ow.load(relu, isolated=True)(X).tolist() == [1, 1]
    assert isolated.ask(os.getpid, timeout=30) == one
    assert not isolated.ask(eval, "'torch' in __import__('sys').modules", timeout=30)


def test_errors_of_onnx_runtime_read_as_in_this_process(tmp_path):
    path = saved(tmp_path / "m.onnx", "(float[N] x) => (float[N] y) { y = NoSuch(x) }")
    said = []
    for isolated_ in (False, True):
        with pytest.raises(LoadError) as caught:
            ow.load(path, isolated=isolated_)(X)
        said.append((caught.value.message, caught.value.hint))
    assert said[0] == said[1]
    assert "does not have this operator" in said[0][1]
    text = "(float[N] x) => (float[2] y) <float[3] w = {1, 2, 3}> { y = Add(x, w) }"
    path = saved(tmp_path / "r.onnx", text)
    for isolated_ in (False, True):
        with pytest.raises(RunError, match=r"x float32\[2\]"):
            ow.load(path, isolated=isolated_)(X)


def test_results_of_every_dtype_come_back(tmp_path):
    for dtype in ("bfloat16", "float16", "bool"):
        text = f"({dtype}[N, 2] x) => ({dtype}[N, 2] y) {{ [same] y = Identity(x) }}"
        given = torch.tensor([[1, 0], [1, 1]]).to(getattr(torch, dtype))
        assert torch.equal(ow.load(saved(tmp_path / "m.onnx", text), isolated=True)(given), given)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
def test_running_out_of_memory_is_an_error(tmp_path):
    path = saved(tmp_path / "m.onnx", "(int64[N] n) => (float[M] y) { y = ConstantOfShape(n) }")
    artifact = ow.load(path, isolated=True)
    with pytest.raises(RunError, match=r"running m\.onnx.*machine is out of memory"):
        artifact(torch.tensor([2**38]))
    assert artifact(torch.tensor([3])).tolist() == [0, 0, 0]


def test_wrong_timeout_is_an_input_error(relu):
    for timeout in (0, float("nan"), "5", True):
        with pytest.raises(InputError, match="timeout"):
            ow.load(relu, timeout=timeout)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_ends_the_worker(endless):
    artifact = ow.load(endless, isolated=True, timeout=300)
    pid = isolated.ask(os.getpid, timeout=30)
    stop = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        stop.start(), artifact(X)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert isolated.ask(os.getpid, timeout=30) != pid


def test_worker_ends_with_its_parent():
    code = "from onnx_workbench.isolated import ask; import os; print(ask(os.getpid, timeout=60))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    late = time.monotonic() + 120
    while time.monotonic() < late:
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("it is still there")
