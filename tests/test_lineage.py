"""Every ONNX node and the line that made it, also where the file does not say so."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from models import Cond, Folds, module, parsed
from torch import nn
from torch._higher_order_ops import scan, while_loop

import onnx_workbench as ow
from onnx_workbench import proto
from onnx_workbench.errors import CaptureError, InputError
from onnx_workbench.exporter_metadata import STACK
from onnx_workbench.graph import exporter
from onnx_workbench.graph.guards import Guard
from onnx_workbench.lineage.annotated_source import annotated
from onnx_workbench.lineage.instructions import instructions
from onnx_workbench.source import Line, Sources, model_line, user_line
from onnx_workbench.viewer.origin import encoded


@pytest.fixture(scope="module")
def encoder():
    small = ow.lessons.encoder()
    return ow.trace(ow.export(small.model, small.inputs))


@pytest.fixture(scope="module")
def folds():
    return ow.trace(ow.export(Folds().eval(), torch.ones(1, 3, 8, 8)))


def loaded(folder, text, traces):
    """A file from ONNX text; ``traces`` gives nodes a stack trace, or its line alone."""
    model = parsed(text)
    for ref in proto.node_refs(model):
        if trace := traces.get(ref.name):
            if isinstance(trace, int):
                trace = f'File "/home/ada/net.py", line {trace}, in forward'
            ref.node.metadata_props.add(key=STACK, value=trace)
    onnx.save(model, folder / "loaded.onnx")
    return ow.trace(ow.load(folder / "loaded.onnx"))


CHAIN = """(float[2] x) => (float[2] c)
{ [one] a = Relu(x)  [two] b = Sin(a)  [three] c = Cos(b) }"""

BRANCH = """(bool p, float[2] x) => (float[2] y)
{ [if] y = If(p) <then_branch = t () => (float[2] u) { [in_then] u = Sin(x) },
                  else_branch = e () => (float[2] v) { [in_else] v = Cos(x) }> }"""

FUNCTION = """(float[2] x) => (float[2] y) { [before] h = Relu(x) [call] y = mine.twice(h) }
<domain: "mine", opset_import: ["": 20]> twice (a) => (b) { [once] h = Sin(a)  b = Cos(h) }"""


# Nodes with metadata


def test_lines_modules_and_fx_nodes_know_their_nodes(encoder):
    line = encoder.line_of("node_softmax")
    nodes = encoder.at(line)
    assert Counter(origin.operator for origin in nodes) == {"Div": 3, "Softmax": 3}
    assert nodes == encoder.at(line.number) == encoder.at(line.place)
    assert encoder.without == ()
    origin = encoder.of("node_softmax_1")
    assert (origin.module, origin.fx) == ("blocks.1.attention", "softmax_1")
    assert (origin.operator, origin.rule, origin.why) == ("Softmax", "metadata", "")
    with pytest.raises(InputError, match=r"(?s)'node_softmax_l'.*Did you mean 'node_softmax_"):
        encoder.of("node_softmax_l")


def doubled(x):
    return x * 2


def test_lines_of_helper_functions_are_told_from_the_line_that_calls_them():
    model = module(lambda self, x: doubled(self.cut(x)), cut=lambda x: x.clamp(0, 1))
    lineage = ow.trace(ow.export(model, torch.ones(4)))
    (clip, own), (mul, line) = ((o.operator, o.line.text) for o in lineage.origins)
    assert (clip, mul, line) == ("Clip", "Mul", "return x * 2")
    assert own.endswith("x.clamp(0, 1))")


# FX nodes without an ONNX node


def test_each_line_without_a_node_has_its_reason(folds):
    conv = folds.origins[0]
    assert {line.text: why for line, why in folds.silent.items()} == {
        "x = self.conv(x)": f"merged into what uses it: {conv.node}",
        "x = self.drop(x)": "it returns its input unchanged",
        "scale = torch.arange(4).float() * 2": "computed at export: it depends on no input",
        "right = self.head(x)": (
            "computed once, together with an equal operation on the same input: node_linear"
        ),
    }
    assert (conv.operator, conv.line.text) == ("Conv", "x = self.norm(x)")
    assert [line.text for line in conv.also] == ["x = self.conv(x)"]


def idle(self, x):
    torch.sin(x)
    return torch.cos(x)


def turns(self, x):
    y = x.transpose(0, 1)
    y = y.transpose(0, 1)
    return y.sin()


@pytest.mark.parametrize(
    ("forward", "reasons"),
    [(idle, ["nothing uses its result"]), (turns, ["merged into what uses it: node_sin"] * 2)],
)
def test_unused_results_and_views_that_export_merged_are_told_and_take_no_share(forward, reasons):
    lineage = ow.trace(ow.export(module(forward), torch.ones(2, 3)))
    assert [*lineage.silent.values()] == reasons
    assert [origin.also for origin in lineage.origins] == [()]


def halves(self, x, y):
    first, second = x.chunk(2)
    third, fourth = y.split(1)  # the decomposed graph calls a part of the other line `split`
    scaled = first * 2
    turned = third * -1
    return scaled + second + turned + fourth


def test_a_node_in_place_of_an_fx_node_has_its_line_and_its_names():
    lineage = ow.trace(ow.export(module(halves), (torch.ones(2, 3), torch.ones(2, 3))))
    nodes = [origin.node for origin in lineage.origins if origin.operator == "Split"]
    splits = [chain for chain in lineage.chains if chain.node in nodes]
    assert [(chain.line.text[:5], chain.fx) for chain in splits] == [
        ("first", "chunk"),
        ("third", "split"),
    ]
    decomposed = {node.name for node in lineage.artifact.exported_program.graph.nodes}
    assert {chain.decomposed for chain in splits} <= decomposed


def test_an_input_that_is_returned_as_it_is_has_the_line_of_the_return():
    def forward(self, x, length):
        y = x + 1
        return y, length

    artifact = ow.export(module(forward), (torch.ones(2), torch.ones(3)))
    (origin,) = (o for o in ow.trace(artifact).origins if o.operator == "Identity")
    assert (origin.line.text, origin.rule) == ("return y, length", "neighbor")


# Nodes without metadata


GENERATED = 'File "<eval_with_key>.7", line 5, in forward'


@pytest.mark.parametrize(
    ("text", "traces", "lines", "node", "why"),
    [
        (CHAIN, {"one": 5, "three": 7}, [5, 7, 7], "two", "consumer three"),
        (CHAIN, {"one": 5}, [5, 5, 5], "three", "producer two"),
        (CHAIN, {"one": 1, "two": GENERATED, "three": 3}, [1, 3, 3], "two", "consumer three"),
        (BRANCH, {"if": 4}, [4, 4, 4], "in_else", "enclosing node if"),
        (FUNCTION, {"call": 9}, [9, 9, 9, 9], "twice/b", "enclosing node call"),
        # the value h of a function is not the value h outside
        (FUNCTION, {"call": 9, "twice/once": 2}, [9, 9, 2, 2], "before", "consumer call"),
    ],
)
def test_a_node_without_a_line_takes_that_of_a_neighbor(text, traces, lines, node, why, tmp_path):
    lineage = loaded(tmp_path, text, traces)
    assert [origin.line.number for origin in lineage.origins] == lines
    assert (lineage.of(node).rule, lineage.of(node).why) == ("neighbor", f"line of its {why}")


def test_nodes_in_the_branches_of_cond_have_lines_and_the_module_of_their_owner():
    lineage = ow.trace(ow.export(nn.Sequential(Cond()).eval(), torch.ones(3)))
    branch = [origin for origin in lineage.origins if origin.inside]
    assert {origin.operator for origin in branch} == {"Add", "Sub"}
    assert {origin.line.text.startswith("return torch.cond(") for origin in branch} == {True}
    assert {(origin.module, origin.why) for origin in branch} == {
        ("0", f"module of its enclosing node {branch[0].inside}")
    }
    codes = {record["bytecode"] for record in lineage.records()} - {None}
    assert codes
    assert not any(" at 0x" in code for code in codes), "the branches are code, at an address"


def test_a_model_that_exec_made_is_not_called_a_file_of_another_tool():
    names = {}
    exec("class Made(nn.Module):\n    def forward(self, x): return x.sin()", {"nn": nn}, names)
    lineage = ow.trace(ow.export(names["Made"]().eval(), torch.ones(3)))
    assert "the model's code is in no file" in repr(lineage)


def test_a_file_without_torch_metadata_says_why_it_has_no_lines_and_its_name_is_text(tmp_path):
    lineage = loaded(tmp_path, CHAIN, {})
    assert " ".join(repr(lineage).split()) == (
        "loaded.onnx: 3 nodes from 0 lines (3 without a line) "
        "3 nodes no line: the file has no torch metadata: made by another tool, or with "
        "dynamo=False"
    )
    renamed = lineage.artifact.path.rename(tmp_path / "<b>.onnx")
    picture = ow.trace(ow.load(renamed)).svg()
    assert "&lt;b&gt;.onnx" in picture
    assert "<b>" not in picture


def test_nodes_without_a_name_or_with_that_of_another_are_told_apart(tmp_path):
    bare = loaded(tmp_path, CHAIN.replace("[two]", ""), {})
    assert [origin.node for origin in bare.origins] == ["one", "b", "three"]
    twice = loaded(tmp_path, BRANCH.replace("_then", "").replace("_else", ""), {})
    assert [origin.node for origin in twice.origins] == ["if", "in", "in_2"]


def test_torchs_own_machinery_is_no_line():
    frame = f'File "{torch.__file__}", line 3, in '
    assert model_line(f"{frame}insert_checks") is None
    assert model_line(f"{frame}forward").number == 3


# The report


def test_the_report_is_the_source_with_counts_in_the_margin(folds):
    first = min(origin.line.number for origin in folds.origins) - 2
    rows = repr(folds).splitlines()
    assert rows[0].endswith(".onnx: 5 nodes from 4 lines (5 by their metadata)")
    assert rows[1:13] == [
        "nodes  operators   line  source",
        "-----  ----------  ----  ---------------------------------------",
        "                         models.py, in forward:",
        f"                   {first:>4}  def forward(self, x):",
        f"    0              {first + 1:>4}      x = self.conv(x)",
        f"    1  Conv        {first + 2:>4}      x = self.norm(x)",
        f"    0              {first + 3:>4}      x = self.drop(x)",
        f"    1  ReduceMean  {first + 4:>4}      x = x.mean((2, 3))",
        f"    0              {first + 5:>4}      scale = torch.arange(4).float() * 2",
        f"    1  Gemm        {first + 6:>4}      left = self.head(x)",
        f"    0              {first + 7:>4}      right = self.head(x)",
        f"    2  Mul, Add    {first + 8:>4}      return left * right + scale",
    ]
    notes = " ".join(" ".join(rows[13:]).split())
    assert all(f" no node: {why}" in notes for why in folds.silent.values())
    assert [folds.below(line) for line in folds.lines] == [[]] * len(folds.lines)  # single layers


@pytest.mark.parametrize(
    ("text", "numbers", "expected"),
    [
        ("x = x + 1", [3], ["1  def forward(x):", "2      x = x + 1", "7     3      x = x + 1"]),
        (
            *("x = x + 1", [2, 30]),
            ["1  def forward(x):", "7     2      x = x + 1", "...", "7    30      x = x + 1"],
        ),
        ("return y", [3], ["7     3  return y"]),
    ],
    ids=["lines between", "a long gap", "source that has changed"],
)
def test_the_report_shows_lines_between_and_never_shows_changed_source(
    text, numbers, expected, tmp_path
):
    file = tmp_path / "net.py"
    file.write_text("def forward(x):\n" + "    x = x + 1\n" * 30)
    cells = {Line(str(file), n, "forward", text): ("7",) for n in numbers}
    rows = str(annotated(cells, ("nodes",), sources=Sources(near=(tmp_path,)))).splitlines()
    assert [row.strip() for row in rows[3:]] == expected


def test_a_function_in_one_line_is_its_own_line_and_not_the_one_above(tmp_path):
    file, text = tmp_path / "net.py", "def forward(x): return x + 2"
    file.write_text(f"def forward(x): return x + 1\n\n{text}\nawait later()\n")
    line, sources = Line(str(file), 3, "forward", text), Sources(near=(tmp_path,))
    shown = str(annotated({line: ("7",)}, ("nodes",), sources=sources))
    assert "x + 2" in shown
    assert "x + 1" not in shown
    assert "LOAD_FAST" in " ".join(instructions(line, sources)), "a cell with a top-level await"


def test_a_name_of_a_node_is_no_path(tmp_path):
    model = parsed("(float[2] x) => (float[2] z) { y = Relu(x) z = Sin(y) }")
    names = "/one/Layer", "/two/Layer"
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    onnx.save(model, tmp_path / "m.onnx")
    floors = ow.trace(ow.load(tmp_path / "m.onnx"), torch.ones(2), seconds=0.01).floors
    floors.choose(names[1])
    assert floors.marked == [names[1]]


def test_no_file_is_read_but_what_lies_beside_a_loaded_model(tmp_path, monkeypatch):
    """What the trace names is shown as the trace has it."""
    monkeypatch.chdir("/")
    (tmp_path / "key.txt").write_text("secret = 3\n")
    (tmp_path / "net.py").write_text("def forward(x):\n    # three rows\n    return x.sin()\n")
    told = {
        "one": f'File "{tmp_path}/key.txt", line 1, in forward',
        "two": f'File "{tmp_path}/net.py", line 3, in forward\n    return x.sin()',
    }
    wrong = {"three": f'File "{tmp_path}/net.py", line 2, in forward'}
    lineage = loaded(tmp_path, CHAIN, told | wrong)
    assert [line.text for line in lineage.lines] == ["", "return x.sin()", ""]
    assert "secret" not in repr(lineage)
    assert "three rows" not in repr(lineage)
    assert "three rows" in repr(loaded(tmp_path, CHAIN, told))


# Regions, branches and loops


@torch.no_grad()
def still(x):
    return x.sinh()  # Sinh


def regions(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.set_grad_enabled(False):
            y = still(x).cosh()  # Cosh
        y = y.asin()  # Asin
    with torch.autocast("cpu", enabled=False), torch.enable_grad():
        z = x.float().atan()  # Atan
    return y.float() + z


def branches(self, x):
    def deeper(x):
        return x.sinh()  # Sinh

    def low(x):
        return deeper(x).cosh()  # Cosh

    def high(x):
        with torch.no_grad():
            return x.atan()  # Atan

    return torch.cond(x.sum() > 0, low, high, (x,))  # If


def loops(self, x):
    def going(i, x):
        return i < 3  # Less

    def turn(i, x):
        return i + 1, x.sinh()  # Sinh

    return while_loop(going, turn, (torch.tensor(0), x))[1]  # Loop


def scans(self, x):
    def step(carry, x):
        y = carry.tanh()  # Tanh
        return y + x, y.cos()  # Cos

    return scan(step, torch.zeros(3), x)[1]  # Scan


def marks(forward):
    """Operator -> the number of the line that ends in a comment with its name."""
    texts, first = inspect.getsourcelines(forward)
    found = ((text.rpartition("  # ")[2].strip(), n) for n, text in enumerate(texts, first))
    return {operator: number for operator, number in found if operator.isidentifier()}


@pytest.mark.parametrize("forward", [regions, branches, loops, scans])
def test_regions_branches_and_loops_keep_their_lines(forward):
    lineage = ow.trace(ow.export(ow.capture(module(forward), torch.ones(3, 3))))
    places = {o.operator: o.line.place for o in lineage.origins if o.rule == "metadata"}
    found = marks(forward) | (marks(still) if forward is regions else {})
    asked = {operator: f"{Path(__file__).name}:{n}" for operator, n in found.items()}
    assert {operator: places.get(operator) for operator in asked} == asked
    assert "eval_with_key" not in repr(lineage)


def test_a_program_that_torch_exported_alone_keeps_the_lines_of_its_regions():
    program = torch.export.export(module(regions), (torch.ones(3, 3),))
    decomposed = exporter.translate(program).exported_program
    (cosh,) = (node for node in decomposed.graph.nodes if "cosh" in node.name)
    assert user_line(cosh.meta["stack_trace"]).number == marks(regions)["Cosh"]


# Models of libraries


LIBRARY = """
import functools
import torch
from torch import nn


def recorded(forward):
    @functools.wraps(forward)
    def around(self, *args, **kwargs):
        return forward(self, *args, **kwargs)
    return around


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 4)

    @recorded
    def forward(self, x):
        return self.squash(self.dense(x))  # Gemm

    def squash(self, x):
        return torch.sinh(x)  # Sinh


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer() for _ in range(3)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)  # Layer
        return x.cosh()  # Cosh


class Fixed(nn.Module):
    def forward(self, x):
        return x + torch.ones(2, 1)  # fixed
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The module of an installed package that defines a model."""
    folder = tmp_path_factory.mktemp("env") / "site-packages"
    (folder / "netlib").mkdir(parents=True)
    (folder / "netlib" / "net.py").write_text(LIBRARY)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("netlib.net")
    sys.path.remove(str(folder))


def wrapped(model):
    def forward(self, x):
        y = self.backbone(x)  # backbone
        return y * 2  # own

    return module(forward, backbone=model)


def place_of(mark):
    number = next(n for n, text in enumerate(LIBRARY.split("\n"), 1) if text.endswith(mark))
    return f"netlib/net.py:{number}"


def short_of(mark):
    return place_of(mark).removeprefix("netlib/")


@pytest.fixture(scope="module")
def wrapper(library):
    return ow.export(wrapped(library.Net()), torch.ones(1, 4))


def test_below_a_line_that_calls_a_library_stand_the_librarys_lines_and_modules(wrapper):
    lineage = ow.trace(wrapper)
    call, own = lineage.lines
    assert (call.text, own.text) == ("y = self.backbone(x)  # backbone", "return y * 2  # own")
    assert {(g.line.place, g.module, len(g.items)) for g in lineage.below(call)} == {
        (place_of("# Gemm"), "backbone.layers.*.dense", 3),
        (place_of("# Sinh"), "backbone.layers.*", 3),
        (place_of("# Cosh"), "backbone", 1),
    }
    assert lineage.below(own) == []
    assert {origin.operator for origin in lineage.at(place_of("# Sinh"))} == {"Sinh"}
    assert len(lineage.at(call)) == 7
    row = next(row for row in repr(lineage).splitlines() if "# Sinh" in row)
    assert row.split()[:2] == ["3", "3"]
    assert f"{short_of('# Sinh')}  return torch.sinh(x)  # Sinh" in row


def test_view_shows_the_librarys_line_below_the_users_and_selects_by_it(wrapper):
    netron = ow.view(wrapper)
    sinh = [name for name, origin in netron.origins.items() if origin.op == "Sinh"]
    assert [*netron.select(place_of("# Sinh"))] == sinh
    assert len(netron.select(ow.trace(wrapper).lines[0])) == 7, "the user's line has all of them"
    told = encoded(netron.origins, netron._model.sources)
    *_, module, below, own = told["nodes"][sinh[1]]
    lines = [told["lines"][at] for at in (below, own)]
    assert module == "backbone.layers.1"
    assert lines[0]["place"] == place_of("# Sinh")
    assert [line["text"] for line in lines] == [
        "return torch.sinh(x)  # Sinh",
        "y = self.backbone(x)  # backbone",
    ]


LEAVES = ["Gemm", "Sinh", "Cosh"]


def test_depth_chooses_how_far_below_the_users_line(wrapper):
    for depth, marks in ((0, []), (1, ["Layer", "Cosh"]), (2, ["Gemm", "Cosh"]), (9, LEAVES)):
        lineage = ow.trace(wrapper, depth=depth)
        places = {group.line.place for group in lineage.below(lineage.lines[0])}
        assert places == {place_of(f"# {mark}") for mark in marks}
    for wrong in (-1, 1.0, "2", True):
        with pytest.raises(InputError, match="depth"):
            ow.trace(wrapper, depth=wrong)


BLOCKS = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2, enable_nested_tensor=False)
LAYERS = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("layer", "modules"),
    [
        (LAYERS, {"net.0", "net.2"}),
        (BLOCKS, {"net.layers.*.linear1", "net.layers.*.linear2"}),
    ],
    ids=["container", "layers of layers"],
)
def test_a_line_that_calls_a_container_of_torch_is_taken_apart_by_its_layers(layer, modules):
    model = module(lambda self, x: self.net(x), net=layer)
    lineage = ow.trace(ow.export(model, torch.ones(3, 1, 4)))
    found = {g.module for g in lineage.below(lineage.lines[0]) if "linear.py" in g.line.place}
    assert found == modules


def test_profile_shares_the_time_of_a_librarys_model_out_to_its_lines(wrapper):
    spots = ow.profile(wrapper, torch.ones(1, 4), seconds=0.1)
    call = next(spot for spot in spots.spots if spot.line == spots.lineage.lines[0])
    assert {(spot.name, spot.module) for spot in call.below if spot.runs} == {
        (place_of("# Gemm"), "backbone.layers.*.dense"),
        (place_of("# Sinh"), "backbone.layers.*"),
        (place_of("# Cosh"), "backbone"),
    }
    whole = [sum(runs) for runs in zip(*(s.runs for s in call.below if s.runs), strict=True)]
    assert whole == pytest.approx(call.runs)
    assert sum(spot.torch for spot in call.below) == pytest.approx(call.torch)
    assert spots.unattributed == 0
    said = repr(spots)
    assert said.index("self.backbone(x)") < said.index(short_of("# Sinh"))
    assert place_of("# Sinh") in spots._repr_html_()
    flat = ow.profile(wrapper, torch.ones(1, 4), seconds=0.1, depth=0)
    assert not any(spot.below for spot in flat.spots)


def test_an_error_and_a_guard_name_the_users_line_first_and_the_librarys_second(library):
    with pytest.raises(CaptureError) as caught:
        ow.capture(wrapped(library.Net()), torch.ones(1, 5))
    line, said = caught.value.line, str(caught.value)
    assert line.text == "y = self.backbone(x)  # backbone"
    assert line.library.place == place_of("# Gemm")
    assert 0 < said.index(line.place) < said.index(place_of("# Gemm"))
    model, names = wrapped(library.Fixed()), {"x": {0: "n"}}
    with pytest.raises(CaptureError) as caught:
        ow.capture(model, torch.ones(2, 4), dynamic_shapes=names)
    line = caught.value.line
    assert line.text == "y = self.backbone(x)  # backbone"
    assert line.library.place == place_of("# fixed")
    assert line.where == f"{line.place}, in {line.library.place}"
    assert str(Guard("Eq(s1, 2)", {}, line, {})).endswith(repr(line.library))
