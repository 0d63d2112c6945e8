"""trace() with a call: each floor of a line whose way to the kernel is known."""

import json
from pathlib import Path

import onnx
import pytest
import torch
import zoo_factories
from models import Cond, module, parsed
from torch import nn

import onnx_workbench as ow

KEYS = [
    *("line", "stack", "module", "bytecode", "fx", "decomposed", "onnx", "optimized", "kernel"),
    *("rule", "seconds", "bytes", "shape", "dtype", "error"),
]


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A fusion, a constant that is folded away, a line without a node, a value that is known."""

    def forward(self, x):
        edges = torch.relu(self.conv(x))  # Conv + Relu become one kernel
        factor = self.scale * 3  # computed at export
        flat = edges.flatten(1)
        return flat * 0 + factor  # 6.0 everywhere

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("known") / "known.onnx"
    model = module(forward, conv=nn.Conv2d(4, 8, 3), scale=nn.Buffer(torch.tensor(2.0)))
    return ow.export(model, torch.randn(2, 4, 8, 8), path)


@pytest.fixture(scope="module")
def lineage(known):
    return ow.trace(known, torch.randn(2, 4, 8, 8), seconds=0.1)


def of_line(lineage, text):
    return [chain for chain in lineage.chains if chain.line and chain.line.text.startswith(text)]


def test_records_have_every_key_in_order_and_are_json(lineage):
    records = lineage.records()
    assert {tuple(record) for record in records} == {tuple(KEYS)}
    assert json.loads(json.dumps(records)) == records
    assert len(lineage.to_frame()) == len(records)


def test_a_fusion_runs_two_nodes_in_one_kernel(lineage):
    chains = of_line(lineage, "edges")
    operators = {lineage.of(chain.node).operator for chain in chains if chain.node}
    kernels = {chain.kernel for chain in chains if chain.fx == "conv2d"}
    assert {"Conv", "Relu"} <= operators
    assert len(kernels) == 1
    assert kernels < {chain.kernel for chain in chains if chain.fx == "relu"}
    assert {chain.fx for chain in chains} >= {"conv2d", "relu"}
    assert all(chain.decomposed for chain in chains if chain.node and chain.fx)


def test_a_constant_line_has_its_fx_node_and_no_kernel(lineage):
    chains = of_line(lineage, "factor")
    assert {(chain.fx, chain.node, chain.kernel) for chain in chains} == {("mul", "", "")}
    assert "depends on no input" in chains[0].remark


def test_seconds_of_the_chains_add_up_to_those_of_the_kernels(lineage):
    spent = sum(chain.seconds or 0.0 for chain in lineage.chains)
    assert spent == pytest.approx(sum(lineage.call.seconds.values()), rel=1e-6)


def test_values_are_summarized_with_their_error(lineage, known):
    value = lineage.call.values[known.proto.graph.output[0].name]
    assert (value.shape, value.dtype, value.size) == ((2, 288), "float32", 2 * 288 * 4)
    assert (value.least, value.mean, value.greatest) == (6.0, 6.0, 6.0)
    assert value.error == 0.0 < value.tolerance
    assert (value.picture.width, value.picture.height) == (64, 2)


def test_bytecode_is_that_of_the_line(lineage):
    (record, *_) = [r for r in lineage.records() if r["fx"] == "flatten"]
    assert "flatten" in record["bytecode"]
    assert "relu" not in record["bytecode"]


def test_without_a_call_nothing_runs_and_the_upper_floors_are_joined(known):
    lineage = ow.trace(known)
    assert lineage.call is None
    assert {record["kernel"] for record in lineage.records()} == {None}
    kernel = lineage.sheet["floors"][-1]
    assert kernel["rows"] == []
    assert "trace(onnx, args)" in kernel["note"]


def test_a_call_by_name_alone_is_a_call(known):
    assert ow.trace(known, kwargs={"x": torch.randn(2, 4, 8, 8)}, seconds=0.01).call


def test_a_loaded_file_says_that_it_has_no_bytecode(known):
    lineage = ow.trace(ow.load(known.path), torch.randn(2, 4, 8, 8), seconds=0.1)
    floors = {floor["name"]: floor for floor in lineage.sheet["floors"]}
    assert floors["bytecode"]["rows"] == []
    assert "loaded file" in floors["bytecode"]["note"]
    assert floors["kernel"]["rows"]
    assert {record["error"] for record in lineage.records()} == {None}


def test_the_optimizer_names_what_it_inserted(lineage):
    """ONNX Runtime stores a convolution's result blocked by channels and reorders it behind."""
    rows = lineage.sheet["floors"][5]["rows"]
    remarks = {row["m"]: row.get("x", "") for row in rows}
    if "ReorderOutput" not in remarks:
        pytest.skip("this ONNX Runtime inserts nothing here")
    assert "inserted" in remarks["ReorderOutput"]


def test_kernels_of_a_function_that_is_inlined_are_not_inserted(tmp_path):
    model = parsed("""(float[2] x) => (float[2] y) { y = mine.twice(x) }
    <domain: "mine", opset_import: ["": 20]> twice (a) => (b) { h = Sin(a)  b = Cos(h) }""")
    onnx.save(model, tmp_path / "m.onnx")
    lineage = ow.trace(ow.load(tmp_path / "m.onnx"), torch.ones(2), seconds=0.01)
    assert {"Sin", "Cos"} <= {kernel.operator for kernel in lineage.call.kernels.values()}
    assert not any("inserted" in chain.remark for chain in lineage.chains)


def test_repeated_blocks_fold(tmp_path):
    encoder = ow.lessons.encoder()
    sheet = ow.trace(ow.export(encoder.model, encoder.inputs, tmp_path / "e.onnx")).sheet
    groups = [row["g"] for row in sheet["floors"][4]["rows"] if "g" in row]
    assert groups
    assert all(groups.count(group) >= 3 for group in groups)


class Loops(nn.Module):
    def forward(self, x):
        for _ in range(3):
            x = torch.tanh(x)
        return x


OWN = zoo_factories.Custom(), zoo_factories.TRANSLATIONS, "return torch.ops.onnx_work"


@pytest.mark.parametrize(
    ("model", "table", "text", "fx", "operators", "kernels"),
    [
        (Cond(), {}, "return torch.cond", {"sum_1", "gt", "cond"}, {"If", "Add", "Sub"}, {"If"}),
        (Loops(), {}, "x = torch.tanh(x)", {"tanh", "tanh_1", "tanh_2"}, {"Tanh"}, {"Tanh"}),
        (*OWN, {"thrice"}, {"Mul"}, {"Mul"}),
    ],
)
def test_a_choice_on_the_source_lights_the_whole_chain(
    model, table, text, fx, operators, kernels, tmp_path
):
    x = torch.ones(4)
    onnx = ow.export(model.eval(), x, tmp_path / "m.onnx", custom_translation_table=table)
    sheet = ow.trace(onnx, x, seconds=0.1).sheet
    rows = [floor["rows"] for floor in sheet["floors"]]
    (line,) = [at for at, row in enumerate(rows[0]) if row["t"].strip().startswith(text)]
    lit = [{link[floor] for link in sheet["links"] if link[0] == line} - {-1} for floor in range(7)]
    assert {rows[2][at]["t"] for at in lit[2]} >= fx
    assert {rows[4][at]["m"] for at in lit[4]} >= operators
    assert {rows[6][at]["t"] for at in lit[6]} >= kernels
    assert all(lit[1:])
    back = {link[0] for link in sheet["links"] for floor in (2, 4, 6) if link[floor] in lit[floor]}
    assert line in back


def branches(self, x):
    doubled = x * 2
    if doubled.sum() > 0:
        return doubled
    return -doubled


def frozen(self, x):
    doubled = x * 2
    return doubled + self.table


def untranslated(self, x):
    doubled = x * 2
    return torch.special.bessel_j0(doubled)


def rejected(self, x):
    doubled = x.bfloat16() * 2
    return doubled.float()


@pytest.mark.parametrize(
    ("forward", "x", "shapes", "text"),
    [
        (branches, torch.ones(3), None, "if doubled.sum() > 0:"),
        (frozen, torch.ones(2, 16, 8), {"x": {1: "n"}}, "return doubled + self.table"),
        (untranslated, torch.ones(3), None, "return torch.special.bessel_j0(doubled)"),
        (rejected, torch.ones(3), None, "doubled = x.bfloat16() * 2"),
    ],
)
def test_a_model_that_stops_shows_the_floors_so_far(forward, x, shapes, text):
    with pytest.raises(ow.errors.WorkbenchError) as caught:
        ow.export(module(forward, table=torch.ones(16, 8)), x, dynamic_shapes=shapes)
    stopped = ow.trace(caught.value)
    sheet = stopped.sheet
    row = sheet["floors"][0]["rows"][sheet["stop"]["row"]]
    assert row["t"].strip() == stopped.line.text == text
    assert sheet["stop"]["reason"] == caught.value.reason
    assert stopped.way == "" or "mul" in stopped.nodes
    assert text in repr(stopped)
    assert ".:" not in repr(stopped)


def test_the_picture_is_of_the_line_that_was_asked_for(lineage):
    (line,) = {chain.line for chain in of_line(lineage, "flat")}
    (picture,) = {lineage.svg(named) for named in (line, line.number, line.place)}
    assert "1 FX node, 1 ONNX node, 1 kernel" in picture
    assert lineage.svg(line, times=True) != picture
    with pytest.raises(ow.errors.InputError, match="No node comes from"):
        lineage.svg("model.py:7")


def test_another_error_is_refused():
    with pytest.raises(ow.errors.InputError, match="stopped no model"):
        ow.trace(ow.errors.LoadError("no such file"))


class Quotes(nn.Module):
    def forward(self, x):
        return x + len("/home/ada/weights.pt")


def test_a_saved_page_names_no_folder_of_this_machine(tmp_path):
    onnx = ow.export(Quotes().eval(), torch.ones(3), tmp_path / "quotes.onnx")
    page = ow.trace(onnx, torch.ones(3), seconds=0.1).save(tmp_path / "lineage.html").read_text()
    assert "weights.pt" in page
    assert "/home/ada" not in page
    assert str(tmp_path) not in page
    assert str(Path(__file__).parent) not in page


def renamed(self, x):
    """The decomposed node of the first line has the name of the captured node of the second."""
    flat = x.flatten(1)
    pair = self.scale.view(1, 2)
    return flat * pair


def test_a_name_of_one_graph_is_not_taken_for_that_of_another(tmp_path):
    model = module(renamed, scale=nn.Buffer(torch.tensor([2.0, 3.0])))
    onnx = ow.export(model, torch.ones(3, 1, 2), tmp_path / "renamed.onnx")
    (chain, *_) = of_line(ow.trace(onnx), "pair")
    assert chain.fx == "view"
    assert "depends on no input" in chain.remark
