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
from models import Cond, Folds, Helpers
from onnx import parser
from torch import nn
from torch._higher_order_ops import scan, while_loop
from torch.fx.proxy import TracerBase

import onnx_workbench as ow
from onnx_workbench import exporter_metadata, proto
from onnx_workbench.errors import InputError
from onnx_workbench.exporter_metadata import call_site
from onnx_workbench.graph import exporter, traces
from onnx_workbench.graph.guards import Guard
from onnx_workbench.lineage import annotated_source, folding
from onnx_workbench.source import Line, Sources, user_line
from onnx_workbench.viewer.origin import sheet

STACK = "pkg.torch.onnx.stack_trace"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    small = ow.lessons.encoder()
    file = tmp_path_factory.mktemp("lineage") / "encoder.onnx"
    return ow.trace(ow.export(small.model, small.inputs, file))


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    file = tmp_path_factory.mktemp("lineage") / "folds.onnx"
    return ow.trace(ow.export(Folds().eval(), torch.ones(1, 3, 8, 8), file))


def loaded(folder, text, lines=None):
    """A file from ONNX text; ``lines`` gives nodes a stack trace, as the exporter writes it."""
    model = parser.parse_model(text)
    for ref in proto.node_refs(model):
        if ref.name in (lines or {}):
            number = lines[ref.name]
            trace = f'File "/home/ada/net.py", line {number}, in forward'
            ref.node.metadata_props.add(key=STACK, value=trace)
    file = folder / "loaded.onnx"
    onnx.save(model, file)
    return ow.trace(ow.load(file))


CHAIN = """<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] c)
{ [one] a = Relu(x)  [two] b = Sin(a)  [three] c = Cos(b) }"""

BRANCH = """<ir_version: 10, opset_import: ["": 20]> g (bool p, float[2] x) => (float[2] y)
{ [if] y = If(p) <then_branch = t () => (float[2] u) { [in_then] u = Sin(x) },
                  else_branch = e () => (float[2] v) { [in_else] v = Cos(x) }> }"""

FUNCTION = """<ir_version: 10, opset_import: ["": 20, "mine": 1]> g (float[2] x) => (float[2] y)
{ [call] y = mine.twice(x) }
<domain: "mine", opset_import: ["": 20]> twice (a) => (b) { [once] h = Sin(a)  b = Cos(h) }"""


def lines_of(lineage):
    return {o.node: o.line and o.line.number for o in lineage.origins}


def test_every_node_of_an_exported_model_has_the_users_line(encoder):
    assert encoder.without == ()
    assert {Path(o.line.file).name for o in encoder.origins} == {"transformer.py"}


def test_a_node_is_led_back_to_its_line_module_and_fx_node(encoder):
    origin = encoder.of("node_softmax_1")
    assert origin.line.text == "weights = torch.softmax(scores / self.size**0.5, dim=-1)"
    assert (origin.module, origin.fx, origin.operator) == (
        "blocks.1.attention",
        "softmax_1",
        "Softmax",
    )
    assert (origin.rule, origin.why) == ("metadata", "")


def test_a_line_knows_its_nodes_by_itself_by_number_and_by_place(encoder):
    line = encoder.line_of("node_softmax")
    nodes = encoder.at(line)
    assert Counter(o.operator for o in nodes) == {"Div": 3, "Softmax": 3}
    assert nodes == encoder.at(line.number) == encoder.at(line.place)


def test_a_module_knows_its_nodes_and_not_those_of_one_whose_name_goes_on(encoder):
    inside = encoder.inside("blocks.1")
    assert {o.module.split(".")[1] for o in inside} == {"1"}
    assert encoder.inside("block") == ()
    assert set(encoder.inside("blocks.1.attention")) < set(inside)


def test_what_one_fx_node_was_decomposed_into_is_told(encoder):
    assert encoder.decomposed["linear_1"] == ("MatMul", "Add")
    assert [o.operator for o in encoder.made_from("linear_1")] == ["MatMul", "Add"]
    assert "softmax" not in encoder.decomposed


def test_an_unknown_node_is_told_with_the_nearest_name(encoder):
    with pytest.raises(InputError) as error:
        encoder.of("node_softmax_l")
    assert str(error.value) == (
        "encoder.onnx has no node 'node_softmax_l'. Did you mean 'node_softmax_2'?"
    )


def test_what_is_no_artifact_is_told():
    with pytest.raises(InputError) as error:
        ow.trace("model.onnx")
    assert str(error.value) == (
        "trace() was given a str, and it takes an Artifact. "
        "Make one with export(model, x, path), or load(path)."
    )


def test_lines_of_helper_functions_are_told_from_the_line_that_calls_them(tmp_path):
    lineage = ow.trace(ow.export(Helpers().eval(), torch.ones(4), tmp_path / "h.onnx"))
    assert [(o.operator, o.line.text) for o in lineage.origins] == [
        ("Clip", "return x.clamp(0, 1)"),
        ("Mul", "return x * 2"),
    ]


def test_torch_still_filters_frames_where_they_are_kept():
    """Else lines of helper functions are lost: traces.py then needs the new place."""
    assert callable(getattr(TracerBase, traces._METHOD, None))


def test_a_torch_that_filters_in_another_way_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(traces, "_METHOD", "_moved")
    with traces.through_helpers():
        assert not hasattr(TracerBase, "_moved")


def test_torchs_own_filter_of_frames_is_back_after_a_capture_that_failed():
    before = TracerBase._filter_traceback_frames

    class Broken(torch.nn.Module):
        def forward(self, x):
            return x @ x

    with pytest.raises(ow.errors.CaptureError):
        ow.capture(Broken().eval(), torch.ones(2, 3))
    assert TracerBase._filter_traceback_frames is before


def test_each_line_without_a_node_has_its_reason(folds):
    assert {line.text: why for line, why in folds.silent.items()} == {
        "x = self.conv(x)": f"merged into what uses it: {folds.origins[0].node}",
        "x = self.drop(x)": "it gives back its input",
        "scale = torch.arange(4).float() * 2": "computed at export: it depends on no input",
        "right = self.head(x)": (
            "computed once for this and for an equal operation on the same input: node_linear"
        ),
    }


def test_what_was_merged_into_a_node_stands_beside_its_own_line(folds):
    conv = folds.origins[0]
    assert conv.operator == "Conv"
    assert conv.line.text == "x = self.norm(x)"
    assert [line.text for line in conv.also] == ["x = self.conv(x)"]


def test_a_result_that_nobody_uses_is_told():
    class Idle(torch.nn.Module):
        def forward(self, x):
            torch.sin(x)
            return torch.cos(x)

    graph = ow.capture(Idle().eval(), torch.ones(2)).program.graph
    gone = folding.folded(graph, {call_site(n) for n in graph.nodes if "cos" in n.name})
    assert [(g.fx, g.why) for g in gone] == [("sin", "nothing uses its result")]


def test_nodes_in_the_branches_of_cond_have_lines_and_the_module_of_their_owner(tmp_path):
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Cond()

        def forward(self, x):
            return self.inner(x)

    lineage = ow.trace(ow.export(Outer().eval(), torch.ones(3), tmp_path / "c.onnx"))
    branch = [o for o in lineage.origins if o.inside]
    assert {o.operator for o in branch} == {"Add", "Sub"}
    assert {o.line.text.startswith("return torch.cond(") for o in branch} == {True}
    assert {(o.module, o.why) for o in branch} == {
        ("inner", f"module of its enclosing node {branch[0].inside}")
    }


def test_a_node_without_metadata_takes_its_consumers_line_and_says_so(tmp_path):
    lineage = loaded(tmp_path, CHAIN, {"one": 5, "three": 7})
    assert lines_of(lineage) == {"one": 5, "two": 7, "three": 7}
    assert (lineage.of("two").rule, lineage.of("two").why) == (
        "neighbor",
        "line of its consumer three",
    )


def test_a_node_without_consumers_takes_its_producers_line(tmp_path):
    lineage = loaded(tmp_path, CHAIN, {"one": 5})
    assert lines_of(lineage) == {"one": 5, "two": 5, "three": 5}
    assert lineage.of("three").why == "line of its producer two"


def test_a_node_of_a_body_takes_the_line_of_its_owner(tmp_path):
    lineage = loaded(tmp_path, BRANCH, {"if": 4})
    assert lines_of(lineage) == {"if": 4, "in_then": 4, "in_else": 4}
    assert lineage.of("in_else").why == "line of its enclosing node if"


def test_the_nodes_of_a_function_take_the_line_of_its_call(tmp_path):
    lineage = loaded(tmp_path, FUNCTION, {"call": 9})
    assert lines_of(lineage) == {"call": 9, "twice/once": 9, "twice/b": 9}


def test_a_value_of_a_function_is_not_the_value_of_that_name_outside(tmp_path):
    text = FUNCTION.replace("[call] y", "[before] h = Relu(x) [call] y").replace(
        "twice(x)", "twice(h)"
    )
    lineage = loaded(tmp_path, text, {"call": 9, "twice/once": 2})
    assert lines_of(lineage) == {"before": 9, "call": 9, "twice/once": 2, "twice/b": 2}
    assert lineage.of("before").why == "line of its consumer call"


def test_a_file_without_torch_metadata_says_why_it_has_no_lines(tmp_path):
    lineage = loaded(tmp_path, CHAIN)
    assert repr(lineage) == (
        "loaded.onnx: 3 nodes from 0 lines (3 without a line)\n"
        "3 nodes  no line: the file has no torch metadata: made by another tool, or with "
        "dynamo=False"
    )


def test_nodes_without_a_name_or_with_that_of_another_are_told_apart(tmp_path):
    bare = loaded(tmp_path, CHAIN.replace("[two]", ""))
    assert [o.node for o in bare.origins] == ["one", "b", "three"]
    twice = BRANCH.replace("[in_then]", "[in]").replace("[in_else]", "[in]")
    assert [o.node for o in loaded(tmp_path, twice).origins] == ["if", "in", "in_2"]


def test_torchs_own_machinery_is_no_line():
    trace = f'File "{torch.__file__}", line 3, in insert_checks'
    assert exporter_metadata.line_of(trace) is None
    inner = f'File "{torch.__file__}", line 3, in forward'
    assert exporter_metadata.line_of(inner).number == 3
    library = '  File "/usr/lib/python3/site-packages/net.py", line 8, in blur\n' + inner
    assert exporter_metadata.line_of(library).number == 8


def test_the_report_is_the_source_with_counts_in_the_margin(folds):
    first = min(o.line.number for o in folds.origins) - 2
    conv = folds.origins[0].node
    assert repr(folds) == "\n".join(
        [
            "folds.onnx: 5 nodes from 4 lines (5 by their metadata)",
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
            f"models.py:{first + 1}  no node: merged into what uses it: {conv}",
            f"models.py:{first + 3}  no node: it gives back its input",
            f"models.py:{first + 5}  no node: computed at export: it depends on no input",
            f"models.py:{first + 7}  no node: computed once for this and for an equal operation on "
            "the same input: node_linear",
        ]
    )


def test_a_report_that_becomes_html_is_escaped(tmp_path):
    file = tmp_path / "<b>.onnx"
    onnx.save(parser.parse_model(CHAIN), file)
    html = ow.trace(ow.load(file))._repr_html_()
    assert html.startswith("<pre>&lt;b&gt;.onnx: 3 nodes")


def test_source_that_changed_since_is_not_shown_around_a_line(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("def forward(x):\n    y = 1\n    return x\n")

    def shown(text):
        cells = {Line(str(file), 3, "forward", text): ("7",)}
        return annotated_source.annotated(cells, ("nodes",), sources=Sources(near=(tmp_path,)))

    assert [row.strip() for row in shown("return x").splitlines()[3:]] == [
        "1  def forward(x):",
        "2      y = 1",
        "7     3      return x",
    ]
    assert [row.strip() for row in shown("return y").splitlines()[3:]] == ["7     3  return y"]


def test_lines_far_apart_are_cut(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("def forward(x):\n" + "    x = x + 1\n" * 30)
    cells = {Line(str(file), n, "forward", "x = x + 1"): ("7",) for n in (2, 30)}
    rows = annotated_source.annotated(
        cells, ("nodes",), sources=Sources(near=(tmp_path,))
    ).splitlines()
    assert [row.strip() for row in rows[3:]] == [
        "1  def forward(x):",
        "7     2      x = x + 1",
        "...",
        "7    30      x = x + 1",
    ]


class HandsOn(torch.nn.Module):
    def forward(self, x, length):
        y = x + 1
        return y, length


def test_an_input_that_is_returned_as_it_is_has_the_line_of_the_return(tmp_path):
    artifact = ow.export(HandsOn().eval(), (torch.ones(2), torch.ones(3)), tmp_path / "a.onnx")
    (origin,) = (o for o in ow.trace(artifact).origins if o.operator == "Identity")
    assert (origin.line.text, origin.rule) == ("return y, length", "neighbor")
    assert origin.why == "an input that is returned as it is"


# Regions, branches and loops


class Regions(torch.nn.Module):
    @torch.no_grad()
    def still(self, x):
        return x.sinh()  # Sinh

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.set_grad_enabled(False):
                y = self.still(x).cosh()  # Cosh
            y = y.asin()  # Asin
        with torch.autocast("cpu", enabled=False), torch.enable_grad():
            z = x.float().atan()  # Atan
        return y.float() + z


class Branches(torch.nn.Module):
    def forward(self, x):
        def deeper(x):
            return x.sinh()  # Sinh

        def low(x):
            return deeper(x).cosh()  # Cosh

        def high(x):
            with torch.no_grad():
                return x.atan()  # Atan

        return torch.cond(x.sum() > 0, low, high, (x,))  # If


class Loops(torch.nn.Module):
    def forward(self, x):
        def going(i, x):
            return i < 3  # Less

        def turn(i, x):
            return i + 1, x.sinh()  # Sinh

        return while_loop(going, turn, (torch.tensor(0), x))[1]  # Loop


class Scans(torch.nn.Module):
    def forward(self, x):
        def step(carry, x):
            y = carry.tanh()  # Tanh
            return y + x, y.cos()  # Cos

        return scan(step, torch.zeros(3), x)[1]  # Scan


def marks(model):
    """Operator -> the number of the line that ends in a comment with its name."""
    texts, first = inspect.getsourcelines(model)
    found = ((text.rpartition("  # ")[2].strip(), n) for n, text in enumerate(texts, first))
    return {operator: number for operator, number in found if operator.isidentifier()}


@pytest.mark.parametrize("model", [Regions, Branches, Loops, Scans])
def test_regions_branches_and_loops_keep_their_lines(model, tmp_path):
    graph = ow.capture(model().eval(), torch.ones(3, 3))
    lineage = ow.trace(ow.export(graph, f=tmp_path / "model.onnx"))
    places = {o.operator: o.line.place for o in lineage.origins if o.rule == "metadata"}
    asked = {operator: f"{Path(__file__).name}:{n}" for operator, n in marks(model).items()}
    assert {operator: places.get(operator) for operator in asked} == asked
    assert "eval_with_key" not in repr(lineage)


def test_a_program_that_torch_exported_alone_keeps_the_lines_of_its_regions(tmp_path):
    program = torch.export.export(Regions().eval(), (torch.ones(3, 3),))
    decomposed = exporter.translate(program).exported_program
    (cosh,) = (n for n in decomposed.graph.nodes if "cosh" in n.name)
    assert user_line(cosh.meta["stack_trace"]).number == marks(Regions)["Cosh"]


def test_generated_code_is_no_line(tmp_path):
    lineage = loaded(tmp_path, CHAIN, {"one": 1, "three": 3})
    trace = 'File "<eval_with_key>.7", line 5, in forward\n    sin = torch.ops.aten.sin.default(a)'
    model = onnx.load(lineage.artifact.path)
    model.graph.node[1].metadata_props.add(key=STACK, value=trace)
    onnx.save(model, lineage.artifact.path)
    found = ow.trace(ow.load(lineage.artifact.path)).of("two")
    assert (found.line.number, found.rule) == (3, "neighbor")


# A file of anyone's


def test_no_file_is_read_but_what_lies_beside_a_loaded_model(tmp_path, monkeypatch):
    """What the trace names is shown as the trace has it."""
    monkeypatch.chdir("/")
    key = tmp_path / "key.txt"
    key.write_text("secret = 3\n")
    (tmp_path / "net.py").write_text("def forward(x):\n    # three rows\n    return x.sin()\n")
    lineage = loaded(tmp_path, CHAIN, {})
    model = onnx.load(lineage.artifact.path)
    for node, trace in zip(
        model.graph.node,
        (
            f'File "{key}", line 1, in forward',
            f'File "{tmp_path}/net.py", line 3, in forward\n    return x.sin()',
            f'File "{tmp_path}/net.py", line 2, in forward',
        ),
        strict=True,
    ):
        node.metadata_props.add(key=STACK, value=trace)
    onnx.save(model, lineage.artifact.path)
    lineage = ow.trace(ow.load(lineage.artifact.path))
    assert [line.text for line in lineage.lines] == ["", "return x.sin()", ""]
    assert "secret" not in repr(lineage)
    model.graph.node[2].ClearField("metadata_props")
    onnx.save(model, lineage.artifact.path)
    assert "three rows" in repr(ow.trace(ow.load(lineage.artifact.path)))


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


def wrapped(library):
    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = library.Net()

        def forward(self, x):
            y = self.backbone(x)  # backbone
            return y * 2  # own

    return Wrapper().eval()


def place_of(mark):
    number = next(n for n, text in enumerate(LIBRARY.split("\n"), 1) if text.endswith(mark))
    return f"netlib/net.py:{number}"


@pytest.fixture(scope="module")
def wrapper(library, tmp_path_factory):
    file = tmp_path_factory.mktemp("wrapper") / "wrapper.onnx"
    return ow.export(wrapped(library), torch.ones(1, 4), file)


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
    assert {o.operator for o in lineage.at(place_of("# Sinh"))} == {"Sinh"}
    assert len(lineage.at(call)) == 7
    row = next(row for row in repr(lineage).splitlines() if place_of("# Sinh") in row)
    assert row.split()[:2] == ["3", "3"]
    assert "return torch.sinh(x)" in row


def test_view_shows_the_librarys_line_below_the_users_and_selects_by_it(wrapper):
    netron = ow.view(wrapper)
    sinh = [name for name, origin in netron.origins.items() if origin.op == "Sinh"]
    assert [*netron.select(place_of("# Sinh"))] == sinh
    assert len(netron.select(ow.trace(wrapper).lines[0])) == 7, "the user's line has all of them"
    told = sheet(netron.origins, netron._model.sources)
    *_, module, below, own = told["nodes"][sinh[1]]
    assert (module, told["lines"][own]["text"]) == (
        "backbone.layers.1",
        "y = self.backbone(x)  # backbone",
    )
    assert (told["lines"][below]["place"], told["lines"][below]["text"]) == (
        place_of("# Sinh"),
        "return torch.sinh(x)  # Sinh",
    )


@pytest.mark.parametrize(
    ("depth", "marks"),
    [(0, set()), (1, {"# Layer", "# Cosh"}), (2, {"# Gemm", "# Cosh"}), (9, None)],
)
def test_depth_chooses_how_far_below_the_users_line(wrapper, depth, marks):
    lineage = ow.trace(wrapper, depth=depth)
    places = {group.line.place for group in lineage.below(lineage.lines[0])}
    assert places == {
        place_of(mark) for mark in marks or {"# Gemm", "# Sinh", "# Cosh"} if marks != set()
    }


@pytest.mark.parametrize("depth", [-1, 1.0, "2", True])
def test_a_depth_that_is_no_number_is_refused(wrapper, depth):
    with pytest.raises(InputError, match="depth"):
        ow.trace(wrapper, depth=depth)


def test_an_error_names_the_users_line_first_and_the_librarys_second(library):
    with pytest.raises(ow.errors.CaptureError) as caught:
        ow.capture(wrapped(library), torch.ones(1, 5))
    line = caught.value.line
    assert line.text == "y = self.backbone(x)  # backbone"
    assert line.library.place == place_of("# Gemm")
    said = str(caught.value)
    assert 0 < said.index(line.place) < said.index(place_of("# Gemm"))


@pytest.mark.parametrize(
    ("layer", "modules"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)), {"net.0", "net.2"}),
        (
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2),
            {"net.layers.*.linear1", "net.layers.*.linear2"},
        ),
    ],
    ids=["container", "layers of layers"],
)
def test_a_line_that_calls_a_container_of_torch_is_taken_apart_by_its_layers(
    layer, modules, tmp_path
):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = layer()

        def forward(self, x):
            return self.net(x)

    lineage = ow.trace(ow.export(Wrapper().eval(), torch.ones(3, 1, 4), tmp_path / "m.onnx"))
    found = {g.module for g in lineage.below(lineage.lines[0]) if "linear.py" in g.line.place}
    assert found == modules


def test_a_line_that_calls_single_layers_stays_whole(folds):
    assert [folds.below(line) for line in folds.lines] == [[]] * len(folds.lines)


def test_profile_shares_the_time_of_a_librarys_model_out_to_its_lines(wrapper):
    spots = ow.profile(wrapper, torch.ones(1, 4), seconds=0.1)
    call = next(spot for spot in spots.spots if spot.line == spots.lineage.lines[0])
    assert {(s.name, s.module) for s in call.below if s.runs} == {
        (place_of("# Gemm"), "backbone.layers.*.dense"),
        (place_of("# Sinh"), "backbone.layers.*"),
        (place_of("# Cosh"), "backbone"),
    }
    assert sum(s.seconds for s in call.below) == pytest.approx(call.seconds)
    assert sum(s.torch for s in call.below) == pytest.approx(call.torch)
    assert spots.unattributed == 0
    flat = ow.profile(wrapper, torch.ones(1, 4), seconds=0.1, depth=0)
    assert not any(spot.below for spot in flat.spots)
    said = repr(spots)
    assert said.index("self.backbone(x)") < said.index(place_of("# Sinh"))


def test_a_guard_names_the_users_line_first_and_the_librarys_second(library, tmp_path):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = library.Fixed()

        def forward(self, x):
            return self.net(x) * 2

    with pytest.raises(ow.errors.CaptureError) as caught:
        ow.capture(Wrapper().eval(), torch.ones(2, 4), dynamic_shapes={"x": {0: "n"}})
    line = caught.value.line
    assert line.text == "return self.net(x) * 2"
    assert line.library.place == place_of("# fixed")
    assert line.where == f"{line.place}, in {line.library.place}"
    assert str(Guard("Eq(s1, 2)", {}, line, {})).endswith(repr(line.library))
