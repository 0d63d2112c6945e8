"""The room `viewer`, without a browser: what it reads, draws, refuses and would send to a page."""

from __future__ import annotations

import base64
import ctypes
import gzip
import io
import os
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from ipywidgets.embed import dependency_state
from onnx import TensorProto, helper, numpy_helper, parser
from PIL import Image

from onnx_workbench import exporter_metadata, wire
from onnx_workbench.errors import InputError, LoadError
from onnx_workbench.proto import node_refs
from onnx_workbench.source import Line
from onnx_workbench.viewer import Netron, frontend, view
from onnx_workbench.viewer.comparison import LEFT, RIGHT
from onnx_workbench.viewer.diagram import cut, diagram
from onnx_workbench.viewer.fold import fold
from onnx_workbench.viewer.frontend_widget import shared
from onnx_workbench.viewer.heat import COLD, Heat, ink, palette
from onnx_workbench.viewer.layout import layers, layout
from onnx_workbench.viewer.model import LARGEST_TENSOR, Model, read
from onnx_workbench.viewer.origin import sheet, without_folders

TIMES = "\u00d7"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"

AGAIN = "What helps: copy the file again, or export the model again."


def tiny() -> onnx.ModelProto:
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> tiny (float[batch, 2] x) => (float[batch, 2] y)'
        " <float[2] w = {1, 2}> { h = Mul(x, w) y = Relu(h) }"
    )


def chain(nodes: int) -> onnx.ModelProto:
    names = [f"v{index}" for index in range(nodes + 1)]
    made = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in names]
    return helper.make_model(helper.make_graph(made, "chain", [ends[0]], [ends[-1]]))


def with_weights(values: np.ndarray) -> onnx.ModelProto:
    weights = numpy_helper.from_array(values, "w")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, values.shape) for n in "xy"]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return helper.make_model(helper.make_graph([node], "add", ends[:1], ends[1:], [weights]))


class Lines(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        return torch.tanh(hidden * 2)


@pytest.fixture(scope="module")
def program() -> torch.onnx.ONNXProgram:
    return torch.onnx.export(Lines().eval(), (torch.ones(2, 4),), dynamo=True, verbose=False)


@pytest.fixture(scope="module")
def traced(program) -> onnx.ModelProto:
    """Exported by torch, so that each node knows its line in this very file."""
    return program.model_proto


def number_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(at for at, line in enumerate(lines, 1) if line.strip() == text)


def titles(svg: str) -> list[str]:
    texts = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return [text.text for text in texts if text.get("font-weight") == "600"]


def sent(netron: Netron) -> list[bytes]:
    """What a page gets with the widget: the model, the operators' manual and the source."""
    return [gzip.decompress(part) for part in netron._sent["parts"]]


# What it takes


def test_every_holder_of_a_model_gives_the_same_view(tmp_path):
    path = tmp_path / "tiny.onnx"
    onnx.save(tiny(), path)
    program = SimpleNamespace(model=onnx_ir.from_proto(tiny()))
    artifact = SimpleNamespace(path=path)
    holders = [tiny(), onnx_ir.from_proto(tiny()), program, path, str(path), artifact]
    for holder in [*holders, path.read_bytes()]:
        assert titles(view(holder).svg()) == ["x", "Mul", "Relu", "y"]


def test_a_file_goes_by_its_own_name_and_a_model_by_its_graphs(tmp_path):
    onnx.save(tiny(), tmp_path / "digits.onnx")
    named = [read(source).name for source in (tmp_path / "digits.onnx", tiny())]
    assert named == ["digits.onnx", "tiny"]


def test_a_torch_program_is_shown(program):
    assert {"Gemm", "Relu"} <= set(titles(view(program).svg()))


def test_the_model_is_left_as_it_was():
    model = with_weights(np.ones(LARGEST_TENSOR, np.float32))
    before = model.SerializeToString()
    view(model)
    assert model.SerializeToString() == before


def test_something_else_is_refused_with_what_would_fit():
    with pytest.raises(InputError) as caught:
        view([1, 2])
    assert str(caught.value) == (
        "view was passed an object of class list. It expected an Artifact, the path of an .onnx "
        "file, its bytes, an onnx.ModelProto, an onnx_ir.Model or a torch.onnx.ONNXProgram. "
        "Export a model first: view(export(model, 'model.onnx', x))."
    )


def test_a_missing_file_is_named_without_its_folder(tmp_path):
    with pytest.raises(LoadError) as caught:
        view(tmp_path / "digits.onnx")
    assert str(caught.value) == (
        "view was passed 'digits.onnx', which cannot be read: No such file or directory. It "
        "expected the path of an .onnx file. Write one first: export(model, 'digits.onnx', x)."
    )
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_truncated_file_names_the_byte_it_stopped_at(tmp_path):
    path = tmp_path / "tiny.onnx"
    whole = tiny().SerializeToString()
    path.write_bytes(whole[:100])
    with pytest.raises(LoadError) as caught:
        view(path)
    graph_ends = len(whole) - len(
        onnx.ModelProto(opset_import=tiny().opset_import).SerializeToString()
    )
    assert str(caught.value) == (
        f"view was passed 'tiny.onnx' (100 bytes), which is truncated: it promises {graph_ends} "
        f"bytes and ends at byte 100. It expected a whole .onnx file.\n{AGAIN}"
    )
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"PK\x03\x04 an archive", "which is no ONNX model"),
        (b"<!doctype html>", "which is no ONNX model"),
        (b"", "which is no ONNX model: it holds no graph"),
        (b"\x08\x0a", "which is no ONNX model: it holds no graph"),
    ],
)
def test_bytes_that_are_no_model_are_refused(data, wrong):
    with pytest.raises(LoadError) as caught:
        view(data)
    assert str(caught.value) == (
        f"view was passed {len(data)} bytes, {wrong}. It expected a whole .onnx file.\n{AGAIN}"
    )


def test_a_missing_data_file_does_not_stop_the_drawing(tmp_path):
    model = with_weights(np.ones((64, 64), np.float32))
    path = tmp_path / "add.onnx"
    onnx.save(model, path, save_as_external_data=True, location="add.data", size_threshold=0)
    (tmp_path / "add.data").unlink()
    netron = view(path)
    assert "external data  add.data" in repr(netron)
    assert f"64{TIMES}64" in netron.svg()


# What it sends


def test_large_weights_stay_and_small_ones_travel():
    for count, travels in ((LARGEST_TENSOR // 8, True), (LARGEST_TENSOR, False)):
        weights = np.arange(count, dtype=np.float32)
        model = onnx.load_from_string(sent(view(with_weights(weights)))[0])
        (tensor,) = model.graph.initializer
        assert (tensor.name, list(tensor.dims)) == ("w", [count])
        assert (len(tensor.raw_data) == 4 * count) is travels
        assert (tensor.data_location == TensorProto.EXTERNAL) is not travels


def test_large_weights_travel_where_they_are_asked_for(tmp_path, monkeypatch):
    model, apart = with_weights(np.arange(LARGEST_TENSOR, dtype=np.float32)), tmp_path / "a.onnx"
    raw = model.graph.initializer[0].raw_data
    onnx.save(model, tmp_path / "whole.onnx")
    whole = tmp_path / "whole.onnx"
    onnx.save(model, apart, save_as_external_data=True, location="a.data", size_threshold=0)
    for source in (with_weights(np.arange(LARGEST_TENSOR, dtype=np.float32)), whole, apart):
        (tensor,) = onnx.load_from_string(sent(view(source, weights=True))[0]).graph.initializer
        assert tensor.raw_data == raw
    monkeypatch.setattr("onnx_workbench.viewer.model.ASKED_FOR", len(raw) - 1)
    for source in (whole, apart):
        assert not read(source, weights=True).proto.graph.initializer[0].raw_data


def test_weights_that_were_asked_for_and_are_not_there_are_named(tmp_path):
    path = tmp_path / "a.onnx"
    model = with_weights(np.ones(8, np.float32))
    onnx.save(model, path, save_as_external_data=True, location="a.data", size_threshold=0)
    (tmp_path / "a.data").unlink()
    with pytest.raises(LoadError) as caught:
        view(path, weights=True)
    first, last = str(caught.value).split("\n")
    assert first.startswith(
        "view(weights=True) needs 'a.data' beside the model, and it cannot be read: "
    )
    assert last == "What helps: put the file there, or view the graph without weights."
    assert caught.value.__cause__ is not None


def test_weights_inside_a_constant_node_stay_too():
    big = numpy_helper.from_array(np.ones(LARGEST_TENSOR, np.float32))
    model = tiny()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=big))
    assert read(model).proto.ByteSize() < 1000
    assert model.ByteSize() > LARGEST_TENSOR


def test_many_small_weights_stay_when_they_add_up():
    model = tiny()
    for index in range(100):
        part = numpy_helper.from_array(np.ones(LARGEST_TENSOR // 8, np.float32), f"w{index}")
        model.graph.initializer.append(part)
    assert read(model).proto.ByteSize() < 1.1 * 1024 * 1024
    assert len(read(model).proto.graph.initializer) == 101


def test_the_manual_holds_the_operators_in_use_and_no_others():
    manual = frontend.operators(tiny())
    assert '"name": "Relu"' in manual
    assert '"name": "Conv"' not in manual
    assert len(manual) < 50_000


def test_all_that_is_drawn_comes_with_the_widget_so_that_a_busy_kernel_is_not_asked():
    state = view(tiny()).get_state()["_sent"]
    assert (state["name"], state["nodes"], state["folded"]) == ("tiny", 2, False)
    assert len(state["parts"]) == 3


def test_the_front_end_is_one_widget_which_the_views_only_name_and_do_not_close():
    one, other = view(tiny()), view(chain(3))
    page = shared()
    assert one.get_state()["_page"] == other.get_state()["_page"] == f"IPY_MODEL_{page.model_id}"
    html = frontend.assemble(frontend.installed())
    assert gzip.decompress(page.get_state()["packed"]).decode() == html
    assert page.model_id in dependency_state([one])  # what an HTML page of widgets holds
    one.close()
    assert page.comm is not None
    page.close()  # as Widget.close_all() does
    assert view(tiny())._page is shared() is not other._page


def test_a_question_that_is_none_is_not_answered(monkeypatch):
    netron, heard = view(tiny()), []
    monkeypatch.setattr(netron, "send", lambda *message: heard.append(message))
    netron._answer(netron, {"ask": "everything"}, [])
    assert heard == []


# The front-end


def test_the_page_asks_nobody_and_runs_one_script():
    html = frontend.assemble(frontend.installed())
    assert "default-src 'none'" in html
    assert html.count("<script>") == 1
    assert "<link" not in html.split("<script>")[0]
    assert "'unsafe-inline'; img-src" in html  # styles only: no inline handler may run
    assert "script-src 'sha256-" in html


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A copy of the installed netron that a test may change."""
    folder = tmp_path / "netron"
    folder.mkdir()
    others = ("index.html", "grapher.css", "onnx-metadata.json")
    for name in (*(f"{module}.js" for module in frontend.MODULES), *others):
        shutil.copy(frontend.installed() / name, folder)
    monkeypatch.setattr(frontend, "installed", lambda: folder)
    return folder


def test_a_copy_of_the_wheel_is_as_good_as_the_wheel(wheel):
    assert frontend.assemble(wheel).endswith("</html>")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("view.js", "export default class {}", "view.js has a line that was not expected: export"),
        ("base.js", None, "base.js cannot be read"),
        ("index.html", "<html></html>", "index.html holds nothing like <meta http-equiv="),
        ("onnx-metadata.json", "{}{", "onnx-metadata.json is no list of operators"),
    ],
)
def test_a_netron_of_another_shape_gives_one_sentence_and_the_picture(wheel, name, content, why):
    (wheel / name).unlink()
    if content is not None:
        (wheel / name).write_text(content)
    netron = view(tiny())
    assert list(netron._sent) == ["why"]
    told = netron._sent["why"]
    assert told.startswith(f"The installed netron cannot be shown in a cell ({why}")
    assert told.endswith("static picture; pip install 'netron>=9,<10' mends it.")
    assert titles(netron.svg()) == ["x", "Mul", "Relu", "y"]


def test_no_netron_at_all_gives_the_command(monkeypatch):
    monkeypatch.setattr(frontend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(frontend.UnfitError) as caught:
        frontend.installed()
    assert str(caught.value) == "Netron is not installed: pip install netron"


# What it shows where no page lives


def test_the_bundle_holds_a_text_and_a_picture_that_never_change(tmp_path):
    onnx.save(tiny(), tmp_path / "tiny.onnx")
    bundles = [view(tmp_path / "tiny.onnx")._repr_mimebundle_()[0] for _ in range(2)]
    for kind in ("text/plain", "image/svg+xml"):
        first, second = (bundle[kind] for bundle in bundles)
        assert first == second
        assert str(tmp_path) not in first
    assert "application/vnd.jupyter.widget-view+json" in bundles[0]


def test_the_text_tells_what_is_in_the_file():
    model = tiny()
    model.opset_import.add(domain="my.ops", version=1)
    model.graph.node.add(op_type="Mine", domain="my.ops", input=["h"], output=["z"])
    assert repr(view(model)) == "\n".join(
        [
            "tiny          opset 20, opset 1 of my.ops, IR 10",
            "input         x  float32[batch, 2]",
            "output        y  float32[batch, 2]",
            "nodes         3: Mine, Mul, Relu",
            "initializers  1, together 2 numbers, 8 B",
        ]
    )


def test_what_netron_drew_is_what_svg_gives(monkeypatch):
    netron = view(tiny())
    assert titles(netron.svg()) == ["x", "Mul", "Relu", "y"]
    netron._answer(netron, {"picture": "<svg>on the screen</svg>"}, [])
    assert netron.svg() == "<svg>on the screen</svg>"
    assert titles(netron._repr_mimebundle_()[0]["image/svg+xml"]) == ["x", "Mul", "Relu", "y"]


def test_a_hostile_name_stays_text():
    model = tiny()
    model.graph.name = HOSTILE
    model.doc_string = HOSTILE
    model.graph.input[0].name = model.graph.node[0].input[0] = HOSTILE
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = HOSTILE[:20]
    model.graph.node[1].op_type = HOSTILE
    svg = view(model).svg()
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}
    assert tags <= {"svg", "title", "rect", "g", "path", "text", "tspan"}
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg


def test_characters_that_xml_forbids_do_not_break_the_picture():
    model = tiny()
    model.graph.name = model.graph.node[1].op_type = "a\x00b\x1b[31m\uffff\n"
    ElementTree.fromstring(view(model).svg())
    assert len(repr(view(model)).splitlines()) == 5


def test_shapes_stand_on_the_arrows_and_weights_in_the_boxes():
    graph = diagram(tiny())
    assert [(arrow.tail, arrow.head, arrow.label) for arrow in graph.arrows] == [
        (0, 1, f"batch{TIMES}2"),
        (1, 2, None),
        (2, 3, f"batch{TIMES}2"),
    ]
    assert graph.boxes[1].lines == (("B", "2"),)


def test_what_a_branch_reads_from_outside_is_an_arrow():
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> choose (bool c, float[2] x) => (float[2] y) {'
        " y = If(c) <then_branch = t () => (float[2] a) { a = Relu(x) },"
        " else_branch = e () => (float[2] b) { b = Neg(x) }> }"
    )
    graph = diagram(model)
    assert {(arrow.tail, arrow.head) for arrow in graph.arrows} == {(0, 2), (1, 2), (2, 3)}
    assert ("then_branch", "1 node") in graph.boxes[2].lines


def test_a_big_graph_is_cut_and_says_by_how_much():
    whole = diagram(chain(5000))
    short = cut(whole)
    gap = next(box for box in short.boxes if box.kind == "gap")
    drawn = sum(box.kind == "op" for box in short.boxes)
    assert gap.title == f"{5000 - drawn:,} nodes not drawn"
    assert len(short.boxes) < 60
    assert len(view(chain(5000)).svg()) < 40_000


def words(svg: str) -> list[str]:
    return [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_big_graph_is_drawn_by_its_modules_each_as_hot_as_its_hottest_node():
    netron = view(layered(3), folded=True)
    assert titles(netron.svg()) == ["x", "mask", "B", "B", "B", "b2.3"]
    assert {"blocks.0", "blocks.1", "blocks.2", "4 nodes"} <= set(words(netron.svg()))
    netron.heat({"add_b0.1": 1e-3, "add_b1.2": 2e-3, "add_b1.3": 3e-3}, "s")
    assert [word for word in words(netron.svg()) if "ms" in word] == [
        *("up to 1.00 ms", "up to 3.00 ms"),
        *("1.00 ms", "3.00 ms"),
    ]
    for colour, times in ((palette()[0], 3), (palette()[-1], 3), (COLD, 2)):  # legend, frame, title
        assert netron.svg().count(f'"{colour}"') == times
    gap = next(word for word in words(view(layered(300)).svg()) if "not drawn" in word)
    assert gap == f"{4 * (300 - titles(view(layered(300)).svg()).count('B')):,} nodes not drawn"


@pytest.mark.parametrize("unit", ["s", "items moved on this machine", "\u00d7" * 99])
def test_the_legend_fits_into_the_picture_of_a_narrow_graph(unit):
    netron = view(chain(1))
    netron.heat({"v1": 1.0}, unit)
    picture = ElementTree.fromstring(netron.svg())
    ends = [text for text in picture.iter(f"{SVG}text") if text.get("text-anchor") != "middle"]
    for text in ends[-2:]:
        reach = 6.5 * len(text.text) * (-1 if text.get("text-anchor") == "end" else 1)
        assert 0 <= float(text.get("x")) + reach <= float(picture.get("width"))


def test_boxes_of_a_layer_do_not_overlap_and_arrows_point_down():
    edges = [(0, child) for child in range(1, 9)] + [(child, 9) for child in range(1, 9)] + [(0, 9)]
    wide = [60 + 10 * (i % 3) for i in range(10)]
    spots = layout([(width, 20) for width in wide], edges)
    for first in range(10):
        for second in range(first):
            (x, y), (other_x, other_y) = spots.centers[first], spots.centers[second]
            assert y != other_y or abs(x - other_x) >= (wide[first] + wide[second]) / 2
    for (tail, head), bends in zip(edges, spots.bends, strict=True):
        heights = [y for _, y in (spots.centers[tail], *bends, spots.centers[head])]
        assert heights == sorted(set(heights))
    (across, _), *_ = spots.bends[-1]
    outer = [x + sign * wide[i] / 2 for i, (x, _) in enumerate(spots.centers) for sign in (-1, 1)]
    assert min(outer) >= 0
    assert max(outer) < across <= spots.width, "a long edge passes beside the boxes"


def test_two_chains_side_by_side_do_not_cross():
    centers = layout([(10, 10)] * 4, [(0, 3), (1, 2)]).centers
    assert [x for x, _ in centers] == [5, 43, 43, 5]


def test_a_graph_with_a_cycle_is_drawn_all_the_same():
    assert layers(3, [(0, 1), (1, 2), (2, 1)]) == [0, 1, 0]
    layout([(10, 10)] * 3, [(0, 1), (1, 2), (2, 1)])


def test_a_graph_without_nodes_is_drawn():
    empty = helper.make_model(helper.make_graph([], "empty", [], []))
    assert "nodes         none" in repr(view(empty))
    ElementTree.fromstring(view(empty).svg())


# From a node to its line and back


def test_the_panel_gets_the_fx_node_the_module_and_the_line(traced):
    netron = view(traced)
    told = sheet(netron.origins, netron._model.sources)
    by_op = {op: rest for op, *rest in told["nodes"].values()}
    assert by_op["Relu"][:3] == ["relu", "aten.relu.default", ""]
    assert by_op["Gemm"][2] == "first"
    relu, gemm = (told["lines"][by_op[op][-1]] for op in ("Relu", "Gemm"))
    line = number_of("hidden = torch.relu(self.first(x))")
    assert relu["place"] == gemm["place"] == f"test_viewer.py:{line}"
    (function,) = told["functions"]
    assert (function["file"], function["name"]) == ("test_viewer.py", "Lines.forward")
    assert function["lines"][line - function["first"]].strip() == relu["text"]


PATHS = (
    'File "{}/net.py", line 3, in forward\n    x.relu()',
    "written to {}/my net.onnx",
    "'{}/my weights.bin'",
    "{}/net.py(12): forward\n{}/torch/nn.py(4): call",
    "({}/a.txt,{}/b.txt)",
)


def everywhere(model: onnx.ModelProto, text: str) -> onnx.ModelProto:
    """The model with a text in every place that describes it."""
    nodes = [ref.node for ref in node_refs(model)]
    values = (*model.graph.input, *model.graph.output, *model.graph.initializer)
    for described in (model, model.graph, *nodes, *values):
        described.doc_string = text
        for key in ("fx_node", "name_scopes", "class_hierarchy", "stack_trace", "namespace"):
            described.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=text)
    for node in nodes:
        node.attribute.add(name="path", type=onnx.AttributeProto.STRING, s=text.encode())
        node.attribute[-1].doc_string = text
    return model


def all_that_is_in(html: Path) -> str:
    """The text of a saved view and of what is packed in it."""
    text = html.read_text(encoding="utf-8")
    packed = re.findall(r'"(H4sI[^"]+)"', text)
    assert len(packed) >= 4
    return text + "".join(
        gzip.decompress(base64.b64decode(part)).decode("utf-8", "replace") for part in packed
    )


@pytest.mark.parametrize("folder", ["/home/ada", "C:\\Users\\ada", "/Volumes/a/b", "/opt/ada-1.2"])
@pytest.mark.parametrize("shape", PATHS)
def test_no_folder_is_in_what_is_saved_or_committed(folder, shape, tmp_path):
    text = shape.replace("{}", folder).replace("/", "\\" if "\\" in folder else "/")
    model = everywhere(tiny(), text)
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="w.data")
    netron = view(model)
    netron.heat({"h": 1.0})
    seen = all_that_is_in(netron.save(tmp_path / "graph.html"))
    made = netron.compare(tiny())
    seen += all_that_is_in(made.save(tmp_path / "pair.html"))
    for shown in (seen, *netron._repr_mimebundle_()[0].values(), repr(made), made.svg()):
        assert folder not in str(shown)
    assert "net.py" in seen or ".bin" in seen or ".onnx" in seen or "a.txt" in seen


def test_a_folder_in_the_source_itself_is_cut_too(tmp_path):
    path = tmp_path / "model.py"
    path.write_text("def forward(x):\n    return x + load('/home/ada/bias.pt')\n")
    trace = f"File \"{path}\", line 2, in forward\n    return x + load('/home/ada/bias.pt')"
    model = graph("[a] y = Relu(x)")
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value=trace)
    seen = all_that_is_in(view(model, source=tmp_path).save(tmp_path / "graph.html"))
    assert "/home/ada" not in seen
    assert seen.count("return x + load('bias.pt')") == 3  # in the node, the panel, the function


def test_what_is_no_path_of_a_machine_stays():
    for text in (
        "https://host.org/a/b",
        "and/or",
        "a </b> c",
        "1/2",
        "torch.ops/aten/relu",
        "4 / 2",
        "{a}/b/c",
    ):
        assert without_folders(text) == text


def test_no_folder_leaves_the_kernel(traced, tmp_path):
    netron = view(traced)
    folder = str(Path(__file__).parent)
    assert folder in traced.graph.node[0].metadata_props[-1].value
    assert all(folder.encode() not in part for part in sent(netron))
    assert b"test_viewer.py" in sent(netron)[0]
    assert folder not in all_that_is_in(netron.save(tmp_path / "graph.html"))


def test_a_file_that_changed_since_the_export_is_not_shown(tmp_path):
    path = tmp_path / "model.py"
    path.write_text("def forward(x):\n    return x.relu()\n")
    model = tiny()
    trace = f'File "{path}", line 2, in forward\n    return x.{{}}()'
    for written, shown in (("relu", 1), ("tanh", 0)):
        del model.graph.node[0].metadata_props[:]
        model.graph.node[0].metadata_props.add(
            key="pkg.torch.onnx.stack_trace", value=trace.format(written)
        )
        netron = view(model, source=tmp_path)
        told = sheet(netron.origins, netron._model.sources)
        assert len(told["functions"]) == shown
        assert told["lines"][told["nodes"]["h"][-1]]["text"] == f"return x.{written}()"


def test_select_takes_a_node_a_module_a_place_and_a_line(traced):
    netron = view(traced)
    names = {node.op_type: node.name for node in traced.graph.node}
    line = number_of("hidden = torch.relu(self.first(x))")
    both = (names["Gemm"], names["Relu"])
    assert netron.select(names["Tanh"]) == (names["Tanh"],)
    assert netron.select("first") == (names["Gemm"],)
    assert netron.select(f"test_viewer.py:{line}") == both
    assert netron.select(Line(__file__, line, "forward", "")) == both
    assert netron.marked == list(both)


@pytest.mark.parametrize("what", ["", "elsewhere.py:3", "fir", Line("a.py", 1, "f", "")])
def test_select_refuses_what_made_no_node(traced, what):
    netron = view(traced)
    with pytest.raises(InputError) as caught:
        netron.select(what)
    assert str(caught.value) == (
        f"select() was given {what!r}, by which no node of {netron._model.name} goes. It expected "
        "the name of a node, the path of a module, or a line such as 'model.py:12'. Click a node "
        "to see what it goes by."
    )
    assert netron.marked == []


@pytest.mark.parametrize("written", ["[", "3", "['', 1]", "[" * 9999, HOSTILE])
def test_scopes_that_are_none_are_no_module(written):
    node = helper.make_node("Relu", ["x"], ["y"])
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=written)
    assert exporter_metadata.read(node) == exporter_metadata.Metadata()


def test_two_nodes_of_one_name_are_told_apart_as_trace_does(traced):
    model = graph("[a] h = Relu(x) [a] y = Neg(h)")
    netron = view(model)
    assert [origin.op for origin in netron.origins.values()] == ["Relu", "Neg"]
    assert list(netron.origins) == [ref.name for ref in node_refs(model)] == ["a", "a_2"]
    assert [node.name for node in netron._model.proto.graph.node] == ["a", "a_2"]


def test_a_module_whose_name_starts_with_an_underscore_keeps_its_nodes():
    node = helper.make_node("Relu", ["x"], ["y"])
    node.metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value="['', '_guards_fn', '_body', 'relu']"
    )
    assert exporter_metadata.read(node).modules == ("_body",)


# Heat


def test_heat_colours_the_boxes_and_shows_the_values():
    netron = view(tiny())
    cold = netron.svg()
    netron.heat({"h": 1e-3, "y": 3e-3}, unit="s")
    assert palette()[0] in netron.svg()
    assert palette()[-1] in netron.svg()
    assert netron.svg().count("3.00 ms") == 2  # in its box and in the legend
    assert netron._heat["levels"] == {"h": 0, "y": 31}
    netron.heat(None)
    assert (netron.svg(), netron._heat) == (cold, {})


def test_every_label_can_be_read_on_its_color():
    for colour in (*palette(), COLD):
        assert contrast(colour, ink(colour)) >= 4.5


def contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_equal_values_and_negative_ones_have_a_colour():
    assert Heat({"a": 2.0, "b": 2.0}).colour("a") == palette()[-1]
    heat = Heat({"a": -1.0, "b": 0.0, "c": 1.0}, "bits")
    assert (heat.low, heat.level("b"), heat.colour("d")) == ("-1 bits", 16, COLD)
    assert Heat({"a": 2_500_000}, "B").high == "2.50 MB"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"nobody": 1.0},
            "heat() was given the name 'nobody', and tiny has nodes such as 'h'. Pass a number for "
            "each node, by its name.",
        ),
        (
            {},
            "heat() was given no values, and tiny has nodes such as 'h'. Pass a number for each "
            "node, by its name.",
        ),
        (
            {"h": float("nan")},
            "heat() was given nan for 'h', and it takes finite numbers. Leave the node out.",
        ),
    ],
)
def test_heat_refuses_what_has_no_colour(values, message):
    netron = view(tiny())
    with pytest.raises(InputError) as caught:
        netron.heat(values)
    assert str(caught.value) == message
    assert netron._heat == {}


# Two graphs side by side


def graph(body: str, name: str = "net", **sources: str) -> onnx.ModelProto:
    """From ONNX text; ``sources`` give nodes an FX node, or a line of the module "block"."""
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> {name} (float[2] x) => (float[2] y) {{{body}}}'
    )
    for node in (node for node in model.graph.node if node.name in sources):
        source = sources[node.name]
        trace = f'File "/home/ada/net.py", line {len(source)}, in forward\n    {source}'
        notes = {"fx_node": source, "name_scopes": "['', 'block', 'f']", "stack_trace": trace}
        for key, value in notes.items():
            if source.startswith("%") is (key == "fx_node"):
                node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    return model


OLD = graph("[a] h = Relu(x) [b] g = Neg(h) [c] y = Neg(g)", "old", b="%gelu", c="%gelu")
NEW = graph("[a] h = Relu(x) [c] y = Abs(h)", "new", c="%gelu")


def test_the_report_says_what_only_one_graph_has():
    made = view(OLD).compare(NEW)
    assert (made.both, made.here, made.there) == ((("a", "a"),), ("b", "c"), ("c",))
    assert (dict(made.lost), dict(made.gained)) == ({"Neg": 2}, {"Abs": 1})
    assert repr(made).splitlines() == [
        "           old  new",
        "---------  ---  ---",
        "nodes        3    2",
        "in both      1    1",
        "only here    2    1",
        "",
        "lost         2 Neg",
        "gained       Abs",
        "only in old  b, c",
        "only in new  c",
    ]
    assert made._repr_mimebundle_()["text/plain"] == repr(made)


@pytest.mark.parametrize(
    ("left", "right", "twin"),
    [
        (graph("[a] h = Relu(x) [b] y = Relu(h)"), graph("[b] h = Relu(x) y = Relu(h)"), None),
        (graph("[a] y = Relu(x)"), graph("[b] y = Relu(x)"), "b"),
        (graph("[a] y = Relu(x)", a="%r"), graph("[b] g = Relu(x) y = Neg(g)", b="%r"), "b"),
        (graph("[a] y = Relu(x)", a="r(x)"), graph("[b] g = Relu(x) y = Neg(g)", b="r(x)"), "b"),
        (graph("[a] y = Relu(x)", a="r(x)"), graph("[b] g = Relu(x) y = Neg(g)", b="s(x)"), None),
        (graph("[a] y = Relu(x)", a="%r"), graph("[a] y = Relu(x)", a="%other"), None),
        (graph("[a] y = Relu(x)"), graph("[a] y = Neg(x)"), None),
    ],
    ids=["name first", "value", "fx", "line", "other line", "other fx", "other operator"],
)
def test_a_node_is_matched_by_the_first_sign_that_both_have(left, right, twin):
    assert dict(view(left).compare(right).both).get("a") == twin


def test_each_node_is_taken_once():
    twice = graph("[a] h = Relu(x) [b] y = Relu(h)", a="r(x)", b="r(x)")
    once = graph("[c] z = Relu(x) [d] y = Neg(z)", c="r(x)")
    assert view(twice).compare(once).both == (("a", "c"),)


def test_a_choice_in_one_view_marks_its_counterpart_in_the_other():
    made = view(OLD).compare(NEW)
    made.left.selected = "a"
    assert (made.left.marked, made.right.marked) == ([], ["a"])
    made.right.selected = "c"
    assert made.left.marked == ["b", "c"]
    made.left.select("b")
    assert (made.left.marked, made.right.marked) == (["b"], ["c"])
    made.left.marked = []  # as a click does, also on the node that was clicked before
    assert (made.left.selected, made.right.marked) == ("a", ["a"])


def test_the_views_that_are_compared_stay_as_they_were():
    old, new = view(OLD, height=300), view(NEW)
    made = old.compare(new)
    assert old._heat == new._heat == {}
    assert (made.left.height, made.right.height) == (300, 300)
    assert not made.left._sent["folded"]
    made.left.selected = "a"
    assert new.marked == []


def test_what_only_one_graph_has_is_seen_without_colour_vision_and_explained():
    made = view(OLD).compare(NEW)
    svg = made.svg()
    assert titles(svg) == ["x", "Relu", "Neg", "Neg", "y", "x", "Relu", "Abs", "y"]
    assert svg.count("only here") == 3  # the word stands in the box, too
    for words in ("2 nodes only in old", "1 node only in new", "1 node in both"):
        assert f">{words}<" in svg
    for hue in (LEFT, RIGHT):
        assert svg.count(f'stroke="{hue}"') == {LEFT: 2, RIGHT: 1}[hue]
        assert contrast(hue, COLD) >= 3
        assert contrast(hue, ink(hue)) >= 4.5
    assert view(OLD).compare(NEW).svg() == svg


def test_two_files_of_one_name_are_told_apart():
    names = repr(view(OLD).compare(OLD)).split("\n")[0].split()
    assert names == ["old", "(left)", "old", "(right)"]


def test_compare_names_its_own_door_when_it_refuses(tmp_path):
    closed = view(NEW)
    closed.close()
    (tmp_path / "cut.onnx").write_bytes(b"PK")
    for other, message in (
        (
            3,
            "compare was passed an object of class int. It expected an Artifact, the path of an "
            ".onnx file, its bytes, an onnx.ModelProto, an onnx_ir.Model or a "
            "torch.onnx.ONNXProgram. Export a model first: compare(export(model, 'model.onnx', "
            "x)).",
        ),
        (
            tmp_path / "new.onnx",
            "compare was passed 'new.onnx', which cannot be read: No such file or directory. It "
            "expected the path of an .onnx file. Write one first: export(model, 'new.onnx', x).",
        ),
        (
            b"PK",
            "compare was passed 2 bytes, which is no ONNX model. It expected a whole .onnx file."
            f"\n{AGAIN}",
        ),
        (
            tmp_path / "cut.onnx",
            "compare was passed 'cut.onnx' (2 bytes), which is no ONNX model. It expected a whole "
            f".onnx file.\n{AGAIN}",
        ),
        (
            closed,
            "This view of new was closed: the cell that made it has been run again. Use the new "
            "view, or call view() again.",
        ),
    ):
        with pytest.raises((InputError, LoadError)) as caught:
            view(OLD).compare(other)
        assert str(caught.value) == message


def test_what_the_two_pages_drew_is_what_svg_and_png_give():
    made = view(OLD).compare(NEW)
    with pytest.raises(InputError, match="no page has drawn this view yet"):
        made.png()
    still = made.svg()
    for side, size, colour in ((made.left, (4, 2), "red"), (made.right, (3, 5), "blue")):
        image = io.BytesIO()
        Image.new("RGBA", size, colour).save(image, "PNG")
        drawn = f'<svg xmlns="{SVG[1:-1]}" width="{size[0]}" height="{size[1]}"><a id="n"/></svg>'
        side._answer(side, {"picture": drawn}, [image.getvalue()])
    picture = Image.open(io.BytesIO(made.png())).convert("RGB")
    assert picture.size == (7, 5)
    assert [picture.getpixel(at) for at in ((0, 1), (0, 4), (4, 4))] == [
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 255),
    ]
    places = [each.get("x") for each in ElementTree.fromstring(made.svg()) if each.get("x")]
    assert places == ["0", "4"]
    assert made._repr_mimebundle_()["image/svg+xml"] == still  # committed outputs never change


# Files


def hostile() -> onnx.ModelProto:
    """Markup in every name and every text that a file can hold."""
    model = everywhere(tiny(), f'File "{HOSTILE[3:]}.py", line 1, in {HOSTILE[3:]}\n    {HOSTILE}')
    model.graph.name = model.graph.input[0].name = model.graph.node[0].input[0] = HOSTILE
    for number, node in enumerate(model.graph.node):
        node.name, node.op_type = f"{HOSTILE}{number}", HOSTILE
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = f"{HOSTILE}h"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = HOSTILE[3:22]
    return model


def test_a_saved_view_holds_all_it_needs_and_no_markup_of_the_model(tmp_path):
    netron = view(hostile())
    netron.heat({f"{HOSTILE}1": 1.0}, unit=HOSTILE)
    for saved in (netron, netron.compare(hostile())):
        text = saved.save(tmp_path / "graph.html").read_text()
        assert text.count("<script") == text.count("</script") == 1
        assert "default-src 'none'" in text
        assert "<img" not in text.split("<script")[0]
        assert [path.name for path in tmp_path.iterdir()] == ["graph.html"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_markup_stays_text_in_all_that_is_shown_without_a_page(tmp_path):
    path = tmp_path / "<img src=x onerror=alert(3)>\x1b[31m.onnx"
    onnx.save(hostile(), path)
    netron, made = view(path), view(path).compare(OLD)
    netron.heat({f"{HOSTILE}1": 1.0}, unit=HOSTILE)
    for bundle in (netron._repr_mimebundle_()[0], made._repr_mimebundle_()):
        assert {kind for kind in bundle if "html" in kind or "javascript" in kind} == set()
        assert bundle["text/plain"].isprintable() or "\x1b" not in bundle["text/plain"]
        tags = {
            e.tag.removeprefix(SVG) for e in ElementTree.fromstring(bundle["image/svg+xml"]).iter()
        }
        assert tags <= {"svg", "title", "rect", "g", "path", "text", "tspan"}
        assert "&lt;img src=x onerror=alert(3)&gt;" in bundle["image/svg+xml"]
    assert "<img src=x" in repr(made)  # text/plain: every front-end escapes it


def test_a_view_is_not_saved_into_a_folder_that_is_not_there(tmp_path):
    path = str(tmp_path / "nowhere" / "graph.html")
    with pytest.raises(InputError) as caught:
        view(tiny()).save(path)
    assert repr(str(tmp_path / "nowhere")) in caught.value.message


def test_png_needs_a_page():
    netron = view(tiny())
    with pytest.raises(InputError) as caught:
        netron.png()
    assert str(caught.value) == (
        "png() takes the picture from the page, and no page has drawn this view yet. Show the "
        "view, call png() in a later cell; svg() gives a picture anywhere."
    )
    netron._answer(netron, {"picture": "<svg/>"}, [memoryview(b"png")])
    assert netron.png() == b"png"


# Big graphs


def layered(blocks: int) -> onnx.ModelProto:
    """A chain of modules of four nodes each; one mask feeds them all."""
    nodes, last = [], "x"
    for block in range(blocks):
        for step in range(4):
            made = f"b{block}.{step}"
            node = helper.make_node("Add", [last, "mask"], [made], name=f"add_{made}")
            scopes = str(["", f"blocks.{block}", "add"])
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
            node.metadata_props.add(
                key="pkg.torch.onnx.class_hierarchy", value="['a.M', 'a.B', 'add']"
            )
            nodes.append(node)
            last = made
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "mask", last)]
    return helper.make_model(helper.make_graph(nodes, "layered", ends[:2], ends[2:]))


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from all_nodes(attribute.g)


def test_a_fold_has_a_box_for_each_module_and_loses_no_node():
    model = layered(300)
    folded = fold(model)
    boxes = [node for node in folded.proto.graph.node if node.attribute]
    assert [box.name for box in boxes] == [f"blocks.{block}" for block in range(300)]
    assert {box.op_type for box in boxes} == {"B"}
    assert all("." not in box.attribute[0].g.name for box in boxes)
    kept = [node.name for node in all_nodes(folded.proto.graph) if node.op_type == "Add"]
    assert kept == [node.name for node in model.graph.node]


def boxes_of(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.attribute]


def test_neighbours_of_no_module_are_folded_by_number_and_none_is_lost():
    model = chain(1500)
    folded = fold(model)
    boxes = boxes_of(folded.proto.graph)
    assert (len(boxes), len(folded.proto.graph.node)) == (40, 40)
    assert [(box.name, box.op_type) for box in (boxes[0], boxes[-1])] == [
        ("nodes 1 to 38", "38 nodes"),
        ("nodes 1,483 to 1,500", "18 nodes"),
    ]
    kept = [node for node in all_nodes(folded.proto.graph) if node.op_type == "Relu"]
    assert kept == list(model.graph.node)


def test_more_modules_than_can_be_seen_are_folded_once_more():
    folded = fold(layered(1100))
    outer = boxes_of(folded.proto.graph)
    assert {box.op_type for box in outer[:-1]} == {"132 nodes"}  # 33 modules of four
    inner = boxes_of(outer[0].attribute[0].g)
    assert [box.name for box in inner] == [f"blocks.{block}" for block in range(33)]


def test_a_path_in_a_name_is_a_module_where_the_file_tells_of_none():
    model = chain(8)
    for at, node in enumerate(model.graph.node):
        node.name = f"/encoder/{at // 4}/Relu_{at}"
    (outer,) = {box.name.rpartition("/")[0] for box in boxes_of(fold(model).proto.graph)}
    assert outer == "encoder"
    assert [box.op_type for box in boxes_of(fold(model).proto.graph)] == ["0", "1"]


def test_heat_is_drawn_without_the_model(monkeypatch):
    netron = view(chain(1500))
    monkeypatch.setattr(Model, "proto", property(lambda self: pytest.fail("unpacked")))
    netron.heat({"v1": 1.0, "v2": 2.0}, "s")
    assert "2.00 s" in netron.svg()


def test_freed_memory_goes_back_only_where_the_system_takes_it(monkeypatch):
    asked = []
    glibc = SimpleNamespace(malloc_trim=asked.append)
    for platform, library in (("linux", glibc), ("linux", object()), ("darwin", glibc)):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(ctypes, "CDLL", lambda _, library=library: library)
        view(tiny())
    assert asked == [0]


def test_an_edge_over_many_layers_becomes_a_stub_with_its_name():
    folded = fold(layered(300))
    boxes = [node for node in folded.proto.graph.node if node.attribute]
    assert list(boxes[0].input) == ["x", "mask"]
    assert boxes[-1].input[1] == f"{chr(0x2191)} mask {len(folded.stubs)}"
    assert set(folded.stubs.values()) == {"mask"}
    assert 270 < len(folded.stubs) < 300


def test_only_a_big_graph_is_folded_and_all_of_it_can_be_had(monkeypatch):
    for blocks, big in ((3, False), (300, True)):
        netron, heard = view(layered(blocks)), []
        monkeypatch.setattr(netron, "send", lambda *message, heard=heard: heard.append(message))
        assert (netron._sent["folded"], netron._sent["nodes"]) == (big, 4 * blocks)
        netron._answer(netron, {"ask": "whole", "id": "7"}, [])
        ((content, parts),) = heard
        assert (content["folded"], content["id"]) == (False, "7")
        assert len(onnx.load_from_string(gzip.decompress(parts[0])).graph.node) == 4 * blocks


def test_a_small_graph_is_folded_where_this_is_asked_for():
    for folded in (True, False):
        one, another = (view(layered(3), folded=each) for each in (folded, not folded))
        for other, like in ((layered(3), folded), (another, not folded)):
            made = one.compare(other)
            assert [side._sent["folded"] for side in (made.left, made.right)] == [folded, like]


@pytest.mark.parametrize("make", [lambda: with_weights(np.ones((256, 256), np.float32)), tiny])
def test_weights_of_a_large_file_are_stepped_over(make, tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_workbench.reader.STEP_OVER_ABOVE", 0)
    path = tmp_path / "model.onnx"
    onnx.save(make(), path)
    whole = path.read_bytes()
    for source in (path, whole):
        assert read(source).proto == read(make()).proto
    assert len(wire.without_values(whole, LARGEST_TENSOR)) < 500
    path.write_bytes(whole[:-9])
    with pytest.raises(LoadError, match="which is truncated: it promises"):
        read(path)


# A cell that is run again


@pytest.fixture
def run_cell(monkeypatch) -> Callable[[str, str], Netron]:
    """A kernel that runs a cell, as JupyterLab names it, which shows a view."""
    shell = SimpleNamespace()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)

    def run(cell: str, run: str) -> Netron:
        shell.get_parent = lambda: {"metadata": {"cellId": cell}, "header": {"msg_id": run}}
        return view(tiny())

    return run


def test_a_second_run_closes_what_the_first_has_shown_and_nothing_else(run_cell):
    first, beside = run_cell("a", "1"), run_cell("a", "1")
    other, unnamed = run_cell("b", "2"), run_cell("", "3")
    again, unnamed_again = run_cell("a", "4"), run_cell("", "5")
    views = [first, beside, other, unnamed, again, unnamed_again]
    assert [one.comm is None for one in views] == [True, True, False, False, False, False]


def test_a_closed_view_holds_no_model_and_says_so(tmp_path):
    netron = view(tiny())
    text, picture = repr(netron), netron.svg()
    netron.close()
    assert (repr(netron), netron.svg()) == (text, picture)
    assert (netron._model.packed, netron.origins, netron._sent) == (b"", {}, {})
    for use in (
        lambda: netron.select("h"),
        lambda: netron.heat({"h": 1}),
        lambda: netron.save("a"),
    ):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value) == (
            "This view of tiny was closed: the cell that made it has been run again. Use the new "
            "view, or call view() again."
        )


def test_a_netron_that_cannot_be_shown_cannot_be_saved(wheel, tmp_path):
    (wheel / "base.js").unlink()
    for shown in (view(tiny()), view(tiny()).compare(tiny())):
        with pytest.raises(InputError) as caught:
            shown.save(tmp_path / "graph.html")
        assert str(caught.value) == (
            "save() writes Netron's front-end into the file. The installed netron cannot be shown "
            "in a cell (base.js cannot be read), so this is a static picture; pip install "
            "'netron>=9,<10' mends it."
        )
