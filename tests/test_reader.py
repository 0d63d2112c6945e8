"""Damaged and hostile files: one planned error at the door, and bounded work behind it."""

import os

import numpy as np
import onnx
import pytest
import torch
from models import parsed, saved
from onnx import TensorProto, helper

import onnx_workbench as ow
from onnx_workbench import proto, reader
from onnx_workbench.errors import InputError, LoadError
from onnx_workbench.ort import values

P = "pkg.torch.onnx."


def tiny():
    return parsed(
        "(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { h = Add(x, w)  y = Relu(h) }"
    )


def external(**entries):
    def edit(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.data", **entries}.items():
            tensor.external_data.add(key=key, value=value)

    return edit


def function(name, *calls):
    nodes = [helper.make_node(call, ["x"], ["y"], domain="d") for call in calls]
    return helper.make_function(
        "d", name, ["x"], ["y"], nodes, [helper.make_opsetid("", 20), helper.make_opsetid("d", 1)]
    )


def functions(*made):
    def edit(model):
        model.functions.extend(made)
        model.opset_import.add(domain="d", version=1)
        model.graph.node.append(helper.make_node(made[0].name, ["x"], ["z"], domain="d"))

    return edit


def ladder(depth):
    """Each calls the next ten times: ten to the power of depth nodes."""
    steps = [function(f"f{at}", *[f"f{at + 1}"] * 10) for at in range(depth)]
    return functions(*steps, function(f"f{depth}", "leaf"))


WRONG = {
    "no opset": (lambda m: m.ClearField("opset_import"), "opset"),
    "huge opset": (lambda m: setattr(m.opset_import[0], "version", 2**62), "opset 4611"),
    "negative dimension": (lambda m: m.graph.initializer[0].dims.append(-2), r"'w'.*-2"),
    "a long name": (lambda m: setattr(m.graph.node[1], "name", "n" * 5000), "5,000"),
    "a long value": (lambda m: m.graph.node[1].input.append("n" * 5000), "5,000"),
    "a long input": (lambda m: setattr(m.graph.input[0], "name", "n" * 5000), "5,000"),
    "a wrong key": (external(shade="green"), "'shade'"),
    "a wrong offset": (external(offset="-4"), "offset.*'-4'"),
    "an offset of many digits": (external(offset="9" * 5000), "offset"),
    "a wrong length": (external(length="2.5"), "length.*'2.5'"),
    "a long location": (external(location="w" * 5000), "'w'"),
    "a location outside": (external(location="../../etc/passwd"), "passwd"),
    "memory as a location": (external(location="*/_ORT_MEM_ADDR_/*"), "ADDR"),
    "an attribute without a type": (lambda m: m.graph.node[0].attribute.add(name="a"), "'a'"),
    "functions in a circle": (functions(function("f", "g"), function("g", "f")), "circle.*f"),
    "functions into the billions": (ladder(9), "inlined"),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_function_that_reads_a_file_reports_its_fault(name, tmp_path):
    edit, said = WRONG[name]
    model, path = tiny(), tmp_path / "m.onnx"
    edit(model)
    path.write_bytes(model.SerializeToString())
    for door in (ow.load, ow.view, lambda _: ow.view(path.read_bytes()), lambda _: ow.view(model)):
        with pytest.raises(LoadError, match=said):
            door(path)


FIELDS = {
    "graph.node[1].name": "y_named",
    "graph.node[0].output[0]": "hhh",
    "graph.input[0].name": "xxx",
    "producer_name": "maker",
    "graph.node[0].metadata_props[0].value": "noted",
}


@pytest.mark.parametrize("place", FIELDS)
def test_error_names_text_that_is_not_utf8(place, tmp_path):
    model, text, path = tiny(), FIELDS[place], tmp_path / "m.onnx"
    model.graph.node[1].name, model.producer_name = "y_named", "maker"
    model.graph.node[0].metadata_props.add(key="k", value="noted")
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "hhh"
    model.graph.input[0].name = model.graph.node[0].input[0] = "xxx"
    data = model.SerializeToString()
    path.write_bytes(data.replace(text.encode(), b"\xff" * len(text)))
    for door in (ow.load, ow.view):
        with pytest.raises(LoadError, match="UTF-8 at ") as caught:
            door(path)
        where = caught.value.message.partition("UTF-8 at ")[2]
        assert where.startswith((place, "graph.node[0].input", "graph.node[0].output"))
    at = data.index(b"\x22\x04Relu") + 1  # an inner field that is damaged
    path.write_bytes(data[:at] + b"\x7e" + data[at + 1 :])
    with pytest.raises(LoadError, match=rf"byte {at - 1:,}: graph\[0\].node\[1\].op_type\[0\]"):
        ow.load(path)


@pytest.mark.parametrize("door", [ow.load, ow.view])
@pytest.mark.parametrize("given", [None, 3, "a\0b", "n" * 5000 + ".onnx", "no/such.onnx"])
def test_wrong_path_is_a_planned_error(door, given):
    with pytest.raises((InputError, LoadError)):
        door(given)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
def test_fifo_and_device_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.onnx")
    for path in (tmp_path / "fifo.onnx", "/dev/zero"):
        with pytest.raises(InputError):
            ow.load(path)
        with pytest.raises(LoadError, match="regular"):
            ow.view(path)


def test_sound_model_stays_as_it_is():
    assert reader.check(tiny(), "").model == tiny()
    grown = tiny()
    ladder(3)(grown)  # a thousand nodes: no harm
    assert reader.check(grown, "").cut == ""


# What is behind the door


def test_load_view_and_trace_open_no_session(tmp_path, monkeypatch):
    def none(*args, **kwargs):
        raise AssertionError("a session was made")

    onnx.save(tiny(), tmp_path / "m.onnx")
    monkeypatch.setattr("onnxruntime.InferenceSession", none)
    loaded = ow.load(tmp_path / "m.onnx")
    assert repr(loaded.inputs + loaded.outputs) == "(x float32[2], y float32[2])"
    assert "Relu" in repr(ow.view(loaded)) + repr(loaded)
    assert len(ow.trace(loaded).origins) == 2


def test_inputs_and_outputs_of_the_file_are_those_of_the_session(tmp_path):
    text = "(float[N, 2] x, int64[3] i, bfloat16[1] b) => (float[N, 2] y, bool[3] z)"
    loaded = saved(tmp_path / "m.onnx", text + " { y = Relu(x) z = Cast <to: int = 9> (i) }")
    ours = *loaded.inputs, *loaded.outputs
    theirs = *loaded.session.get_inputs(), *loaded.session.get_outputs()
    assert [(v.name, list(v.shape)) for v in ours] == [(v.name, v.shape) for v in theirs]
    assert [v.dtype for v in loaded.inputs] == ["float32", "int64", "bfloat16"]


def test_an_input_without_a_rank_takes_any(tmp_path):
    loaded = saved(tmp_path / "m.onnx", "(double[] x) => (double[] y) { y = Neg(x) }")
    assert repr(loaded.inputs[0]) == "x float64 of any shape"
    for shape in ((), (3,), (2, 1, 4)):
        x = torch.ones(shape, dtype=torch.float64)
        assert torch.equal(loaded(x), -x)
    with pytest.raises(InputError, match="float64"):
        loaded(x.float())
    report = ow.audit(loaded, x)
    assert {finding.verdict for finding in report.findings} <= {"ok", "not tried"}


def test_an_output_without_a_rank_promises_nothing(tmp_path):
    """A fault that the fuzzer found: probe compared the shapes that come out with None."""
    text = "(float[n, 2] x, float[] z) => (float[] y, float[] w) { y = Neg(x)  w = Abs(z) }"
    loaded = saved(tmp_path / "m.onnx", text)
    assert [value.shape for value in loaded.outputs] == [None, None]
    call = torch.ones(3, 2), torch.ones(())
    assert [tuple(result.shape) for result in loaded(*call)] == [(3, 2), ()]
    (dimension,) = ow.probe(loaded, call).dimensions
    assert {trial.outcome for trial in dimension.trials} == {"runs"}
    contract = next(f for f in ow.audit(loaded, call).findings if f.stage == "contract")
    assert contract.verdict in ("ok", "not tried")


def test_a_sequence_gets_a_repair_that_works(tmp_path):
    text = "(seq(float[2]) xs) => (float[n] y) { y = ConcatFromSequence <axis = 0> (xs) }"
    artifact = saved(tmp_path / "m.onnx", text)
    assert repr(artifact.inputs[0]) == "xs sequence(float32)"
    assert repr(artifact.cut) == "''"
    for given in (torch.ones(2), [torch.ones(2)]):
        with pytest.raises(InputError) as caught:
            artifact(given)
        call = str(caught.value).rpartition("arrays: ")[2].rstrip(".")
    array = np.ones(2, np.float32)
    (out,) = eval(call.replace(", ...", ", array"), {"artifact": artifact, "array": array})
    assert out.tolist() == [1, 1, 1, 1]
    maybe = parsed("(optional(seq(float[2])) o) => (float[2] y) { }").graph.input
    assert repr(values(maybe)[0]) == "o optional(sequence(float32))"


def test_a_text_gets_a_repair_that_works_too(tmp_path):
    artifact = saved(tmp_path / "m.onnx", "(string[1] x) => (string[1] y) { y = Identity(x) }")
    for given in (torch.ones(1), "abc"):
        with pytest.raises(InputError, match="with NumPy arrays: ") as caught:
            artifact(given)
    call = str(caught.value).rpartition("arrays: ")[2].rstrip(".")
    (out,) = eval(call, {"artifact": artifact, "array": np.array(["abc"])})
    assert out.tolist() == ["abc"]


def test_a_result_that_is_a_sequence_is_a_list(tmp_path):
    text = "(float[2] x) => (seq(float[]) ys) { ys = SequenceConstruct(x, x) }"
    artifact = saved(tmp_path / "m.onnx", text)
    assert [tensor.tolist() for tensor in artifact(torch.ones(2))] == [[1, 1], [1, 1]]


def test_a_sparse_initializer_counts(tmp_path):
    values = helper.make_tensor("w", TensorProto.DOUBLE, [3], [1.0, 2.0, 3.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [3], [0, 5, 9])
    model = parsed("(double[N, 5] x) => (double[N, 2] y) { y = MatMul(x, w) }")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [5, 2]))
    onnx.save(model, tmp_path / "m.onnx")
    sparse = ow.load(tmp_path / "m.onnx")
    assert sparse.weight_bytes == 3 * 8 + 3 * 8
    assert ow.trace(sparse, torch.ones(2, 5).double(), seconds=0.01).values
    assert "initializers  1, together 10 numbers, 48 B" in repr(ow.view(model))


def test_a_small_integer_in_external_data_does_not_stop_view(tmp_path, monkeypatch):
    model = parsed("(float[4] x) => (float[2, 2] y) { y = Reshape(x, s) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 2]), "s"))
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="s.data", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)  # where the file of weights is not to be read from either
    for _ in range(2):
        shown = ow.view(tmp_path / "m.onnx")
        assert "external data  s.data" in repr(shown)
        assert "Reshape" in shown.svg()
        (tmp_path / "s.data").unlink(missing_ok=True)


def noted(**notes):
    model = tiny()
    for node in model.graph.node:
        for key, value in notes.items():
            node.metadata_props.add(key=P + key, value=value)
    return model


def test_long_metadata_is_cut_and_reported(tmp_path):
    frame = 'File "net.py", line 3, in forward\n    y\n'
    onnx.save(
        noted(stack_trace=frame * 100_000, fx_node="%a : [target=" * 30_000), tmp_path / "m.onnx"
    )
    loaded = ow.load(tmp_path / "m.onnx")
    assert "4 of its metadata entries" in loaded.cut
    for answer in (ow.view(tmp_path / "m.onnx"), ow.trace(loaded)):
        assert "4 of its metadata entries" in repr(answer)
    assert max(len(p.value) for n in loaded.proto.graph.node for p in n.metadata_props) < 20_000
    assert ow.trace(loaded).origins[0].line.place == "net.py:3"


DEEP = repr(["", *(f"m{at}" for at in range(2000)), "z"])
MANY = 'File "a.py", line 1, in f\n  a\n' * 250
WIDE = f'File "a.py", line 1, in f\n  {"a" * 2000}'


@pytest.mark.parametrize(
    ("notes", "cut"),
    [
        ({"name_scopes": DEEP}, True),
        ({"stack_trace": MANY}, True),
        ({"stack_trace": WIDE}, True),
        ({"name_scopes": "['', 'a', 'b']"}, False),
    ],
)
def test_metadata_read_in_part_is_reported(notes, cut, tmp_path):
    onnx.save(noted(**notes), tmp_path / "m.onnx")
    assert ("2 of its metadata entries" in ow.load(tmp_path / "m.onnx").cut) == cut
    model = tiny()  # beside a value, where a quantizer leaves it
    for key, value in notes.items():
        model.graph.output[0].metadata_props.add(key=P + key, value=value)
    onnx.save(model, tmp_path / "m.onnx")
    assert ("1 of its metadata entries" in ow.load(tmp_path / "m.onnx").cut) == cut


@pytest.mark.parametrize("above", [0, reader.STEP_OVER_ABOVE])
def test_file_with_a_wrong_opset_label_is_reported(above, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "STEP_OVER_ABOVE", above)
    text = "(float[2] x) => (float[2] y) { y = Gelu(x) }"
    with pytest.raises(LoadError, match=r"(?s)opset 18 and holds Gelu, .*: Export it again"):
        saved(tmp_path / "m.onnx", text, opset=18)(torch.ones(2))


def test_deep_scopes_are_cut():
    model = noted(name_scopes=DEEP)
    model.graph.node.extend([node for _ in range(600) for node in model.graph.node])
    assert "1,202: " in repr(ow.view(model))


def test_many_nodes_of_one_name_get_names_of_their_own():
    """In quadratic time this would take minutes."""
    model = tiny()
    model.graph.node.extend([helper.make_node("Relu", ["x"], ["h"], name="n")] * 40_000)
    names = [ref.name for ref in proto.walk(model)]
    assert len(set(names)) == 40_002
    assert names[-1] == "n_40000"
