"""The room `viewer`, without a browser: what it reads, draws, refuses and would send to a page."""

from __future__ import annotations

import base64
import ctypes
import gzip
import io
import json
import os
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from graphs import model_of, note
from ipywidgets.embed import dependency_state
from matplotlib.colors import to_rgb
from onnx import TensorProto, helper, numpy_helper, parser
from PIL import Image

from onnx_workbench import exporter_metadata, protobuf_reader
from onnx_workbench.errors import InputError, LoadError
from onnx_workbench.proto import nested, node_refs
from onnx_workbench.source import Line, without_folders
from onnx_workbench.viewer import frontend, raster, view
from onnx_workbench.viewer.diagram import abridged, diagram, layers
from onnx_workbench.viewer.drawing import COLORS, OTHER, layout
from onnx_workbench.viewer.fold import drawable
from onnx_workbench.viewer.heat import COLD, ink, palette, scale
from onnx_workbench.viewer.model import LARGEST_TENSOR, Model, read
from onnx_workbench.viewer.netron import LEFT, RIGHT, Comparison, Netron
from onnx_workbench.viewer.raster import png
from onnx_workbench.viewer.still import outputs

SHAPE = "batch\u00d72"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"


def graph(body: str, name: str = "net", **sources: str) -> onnx.ModelProto:
    """From ONNX text; ``sources`` give nodes an FX node, or a line of the module "block"."""
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> {name} (float[2] x) => (float[2] y) {{{body}}}'
    )
    for node in (node for node in model.graph.node if node.name in sources):
        source = sources[node.name]
        trace = f'File "/home/ada/net.py", line {len(source)}, in forward\n    {source}'
        if source.startswith("%"):
            note(node, fx_node=source)
        else:
            note(node, name_scopes="['', 'block', 'f']", stack_trace=trace)
    return model


def tiny(*traces: str) -> onnx.ModelProto:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> tiny (float[batch, 2] x) => (float[batch, 2] y)'
        " <float[2] w = {1, 2}> { h = Mul(x, w) y = Relu(h) }"
    )
    for trace in traces:
        note(model.graph.node[0], stack_trace=trace)
    return model


def chain(nodes: int) -> onnx.ModelProto:
    names = [f"v{index}" for index in range(nodes + 1)]
    made = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    return model_of(made, names[:1], names[-1])


def layered(blocks: int) -> onnx.ModelProto:
    """A chain of modules of four nodes each; one mask feeds them all."""
    nodes, last = [], "x"
    for block in range(blocks):
        for step in range(4):
            made = f"b{block}.{step}"
            nodes.append(helper.make_node("Add", [last, "mask"], [made], name=f"add_{made}"))
            scopes, classes = str(["", f"blocks.{block}", "add"]), "['a.M', 'a.B', 'add']"
            note(nodes[-1], name_scopes=scopes, class_hierarchy=classes)
            last = made
    return model_of(nodes, ["x", "mask"], last)


def with_weights(values: np.ndarray) -> onnx.ModelProto:
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], ["x"], "y")
    model.graph.initializer.append(numpy_helper.from_array(values, "w"))
    return model


class Lines(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        return torch.tanh(hidden * 2)


LINE = "hidden = torch.relu(self.first(x))"
NUMBER = [line.strip() for line in Path(__file__).read_text().splitlines()].index(LINE) + 1


@pytest.fixture(scope="module")
def program() -> torch.onnx.ONNXProgram:
    """Exported by torch, so that each node knows its line in this very file."""
    return torch.onnx.export(Lines().eval(), (torch.ones(2, 4),), dynamo=True, verbose=False)


def words(svg: str, weight: str | None = None) -> list[str]:
    texts = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return [text.text for text in texts if weight in (None, text.get("font-weight"))]


def titles(svg: str) -> list[str]:
    return words(svg, "600")


def state(netron: Netron) -> dict:
    """What a page gets with the widget."""
    return netron.get_state()


def sent(netron: Netron) -> list[bytes]:
    """The model, the operators' manual and the source."""
    return [gzip.decompress(part) for part in state(netron)["_sent"]["parts"]]


def panel(netron: Netron) -> dict:
    return json.loads(sent(netron)[2])


def hear(netron: Netron, message: dict, *buffers: bytes) -> None:
    """As if a page had sent this."""
    netron._handle_custom_msg(message, buffers)


# What it takes


def test_every_holder_of_a_model_gives_the_same_view(tmp_path, program):
    path = tmp_path / "digits.onnx"
    onnx.save(tiny(), path)
    held = SimpleNamespace(model=onnx_ir.from_proto(tiny()))
    files = [path, str(path), SimpleNamespace(path=path)]
    for holder in [tiny(), onnx_ir.from_proto(tiny()), held, path.read_bytes(), *files]:
        svg = view(holder).svg()
        assert titles(svg) == ["x", "Mul", "Relu", "y"]
        assert words(svg).count(SHAPE) == 2  # on the arrows
    assert (view(tiny()).name, view(path).name) == ("tiny", "digits.onnx")
    assert {"Gemm", "Relu"} <= set(titles(view(program).svg()))


def closed() -> Netron:
    netron = view(tiny())
    netron.close()
    return netron


@pytest.mark.parametrize(
    ("call", "error", "noun"),
    [
        (lambda: view([1, 2]), InputError, "view was passed an object of class list"),
        (lambda: view("no.onnx"), LoadError, "'no.onnx', which cannot be read"),
        (lambda: view(b"PK\x03\x04"), LoadError, "4 bytes, which is no ONNX model"),
        (lambda: view(b""), LoadError, "holds no graph"),
        (lambda: view(tiny().SerializeToString()[:100]), LoadError, "truncated: it declares"),
        (lambda: view(tiny()).png(), InputError, "no page has drawn this view yet"),
        (lambda: view(tiny()).select("elsewhere.py:3"), InputError, "matches no node of tiny"),
        (lambda: view(tiny()).select(Line("a.py", 1, "f", "")), InputError, "a.py:1"),
        (lambda: view(tiny()).heat({"nobody": 1.0}), InputError, "'nobody', but tiny has nodes"),
        (lambda: view(tiny()).heat({}), InputError, "no values, but tiny has nodes such as 'h'"),
        (lambda: view(tiny()).heat({"h": float("nan")}), InputError, "nan for 'h'"),
        (lambda: view(tiny()).heat({"h": None}), InputError, "None for 'h'"),
        (lambda: view(tiny()).heat({"h": 10**400}), InputError, "for 'h', but it takes finite"),
        (lambda: view(tiny()).heat([1.0]), InputError, "heat() was given a list"),
        (lambda: view(tiny()).select(3), InputError, "3, which matches no node of tiny"),
        (lambda: view(tiny()).compare(3), InputError, "compare was passed an object of class int"),
        (lambda: view(tiny()).compare(b"PK"), LoadError, "compare was passed 2 bytes"),
        (lambda: view(tiny()).compare(closed()), InputError, "view of tiny was closed"),
        (lambda: view(tiny()).compare(tiny()).png(), InputError, "no page has drawn"),
        (lambda: closed().select("h"), InputError, "view of tiny was closed"),
        (lambda: closed().heat({"h": 1}), InputError, "view of tiny was closed"),
        (lambda: closed().save("a"), InputError, "view of tiny was closed"),
    ],
)
def test_a_wrong_call_says_what_was_passed(call, error, noun):
    with pytest.raises(error) as caught:
        call()
    assert noun in str(caught.value)


def test_a_missing_data_file_stops_only_who_asks_for_its_weights(tmp_path):
    path = tmp_path / "add.onnx"
    model = with_weights(np.ones((64, 64), np.float32))
    onnx.save(model, path, save_as_external_data=True, location="add.data", size_threshold=0)
    (tmp_path / "add.data").unlink()
    assert "external data  add.data" in repr(view(path))
    with pytest.raises(LoadError, match=r"cannot read 'add\.data' beside the model") as caught:
        view(path, weights=True)
    assert caught.value.hint == "Put the file there, or view the graph without weights."


# What it sends


def test_small_weights_travel_and_large_ones_where_they_are_asked_for(tmp_path, monkeypatch):
    (small,) = read(with_weights(np.ones(LARGEST_TENSOR // 8, np.float32))).proto.graph.initializer
    assert len(small.raw_data) == LARGEST_TENSOR // 2
    model, apart = with_weights(np.arange(LARGEST_TENSOR, dtype=np.float32)), tmp_path / "a.onnx"
    before, raw = model.SerializeToString(), model.graph.initializer[0].raw_data
    whole = tmp_path / "whole.onnx"
    onnx.save(model, whole)
    onnx.save(onnx.load(whole), apart, save_as_external_data=True, location="a.data")
    for source in (model, whole, apart):
        for weights in (False, True):
            proto = onnx.load_from_string(sent(view(source, weights=weights))[0])
            (tensor,) = proto.graph.initializer
            assert (tensor.name, list(tensor.dims)) == ("w", [LARGEST_TENSOR])
            assert tensor.raw_data == raw * weights
            assert (tensor.data_location == TensorProto.EXTERNAL) is not weights
    assert model.SerializeToString() == before
    monkeypatch.setattr("onnx_workbench.viewer.model.WITH_WEIGHTS", len(raw) - 1)
    for source in (whole, apart):
        assert not read(source, weights=True).proto.graph.initializer[0].raw_data


def test_weights_of_constants_and_many_small_ones_stay_too():
    model = tiny()
    big = numpy_helper.from_array(np.ones(LARGEST_TENSOR, np.float32))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=big))
    assert read(model).proto.ByteSize() < 1000
    for index in range(100):
        part = numpy_helper.from_array(np.ones(LARGEST_TENSOR // 8, np.float32), f"w{index}")
        model.graph.initializer.append(part)
    proto = read(model).proto
    assert proto.ByteSize() < 1.1 * 1024 * 1024
    assert len(proto.graph.initializer) == 101
    assert proto.graph.initializer[0].raw_data or proto.graph.initializer[0].float_data


@pytest.mark.parametrize("make", [lambda: with_weights(np.ones((256, 256), np.float32)), tiny])
def test_weights_of_a_large_file_are_stepped_over(make, tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_workbench.reader.STEP_OVER_ABOVE", 0)
    path = tmp_path / "model.onnx"
    onnx.save(make(), path)
    whole = path.read_bytes()
    for source in (path, whole):
        assert read(source).proto == read(make()).proto
    assert len(protobuf_reader.without_values(whole, LARGEST_TENSOR)) < 500


def test_the_front_end_is_one_widget_that_no_view_closes():
    one, other = view(tiny()), view(chain(3))
    page = frontend.shared()
    named = f"IPY_MODEL_{page.model_id}"
    assert state(one)["_page"] == state(other)["_page"] == named
    html = frontend.assemble(frontend.installed())
    assert gzip.decompress(page.get_state()["packed"]).decode() == html
    assert page.model_id in dependency_state([one])  # what an HTML page of widgets holds
    one.close()
    assert page.comm is not None
    page.close()  # as Widget.close_all() does
    assert state(view(tiny()))["_page"] != named


# The front-end


def test_the_page_asks_nobody_and_runs_one_script():
    html = frontend.assemble(frontend.installed())
    assert html.count("<script>") == 1
    assert "<link" not in html.split("<script>")[0]
    assert "default-src 'none'; script-src 'sha256-" in html
    assert "'unsafe-inline'; img-src" in html  # styles only: no inline handler may run


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


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("view.js", "export default class {}", "view.js has an unexpected line: export"),
        ("base.js", None, "base.js cannot be read"),
        ("index.html", "<html></html>", "index.html does not match <meta http-equiv="),
        ("onnx-metadata.json", "{}{", "onnx-metadata.json is no list of operators"),
    ],
)
def test_a_netron_of_another_shape_gives_one_sentence_and_the_picture(wheel, name, content, why):
    (wheel / name).unlink()
    if content is not None:
        (wheel / name).write_text(content)
    netron = view(tiny())
    (told,) = state(netron)["_sent"].values()
    assert told.startswith(f"The installed netron cannot be shown in a cell ({why}")
    assert told.endswith("static picture; pip install 'netron>=9,<10' fixes it.")
    assert titles(netron.svg()) == ["x", "Mul", "Relu", "y"]
    for shown in (netron, netron.compare(tiny())):
        with pytest.raises(InputError, match=r"^save\(\) needs Netron's front-end for the file"):
            shown.save(wheel / "graph.html")


def test_private_names_of_netron_stand_in_one_file_and_are_still_there(wheel):
    folder = Path(frontend.__file__).parent
    used = {
        path.name: set(re.findall(r"(?:\.|\")(_[a-z]\w+)", path.read_text("utf-8")))
        for path in (folder / name for name in ("netron.js", "frame.js", "modules.js"))
    }
    assert used == {"netron.js": set(frontend.PRIVATE), "frame.js": set(), "modules.js": set()}
    whole = {file: file.read_text("utf-8") for file in wheel.glob("*.js")}
    for name in (frontend.PRIVATE[0], frontend.PRIVATE[-1]):
        for file, text in whole.items():
            file.write_text(re.sub(rf"\.{name}\b", ".moved", text), "utf-8")
        with pytest.raises(frontend.UnfitError, match=f"no {name}$"):
            frontend.assemble(wheel)


def test_no_netron_at_all_gives_the_command(monkeypatch):
    monkeypatch.setattr(frontend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(frontend.UnfitError, match="pip install netron"):
        frontend.installed()


# What it shows where no page lives


def test_the_bundle_holds_a_text_and_a_picture_that_never_change(tmp_path):
    model = tiny()
    model.opset_import.add(domain="my.ops", version=1)
    model.graph.node.add(op_type="Mine", domain="my.ops", input=["h"], output=["z"])
    onnx.save(model, tmp_path / "tiny.onnx")
    first, second = (displayed(view(tmp_path / "tiny.onnx"))[0] for _ in range(2))
    assert first["image/svg+xml"] == second["image/svg+xml"]
    assert str(tmp_path) not in first["image/svg+xml"]
    assert first["text/plain"].splitlines() == [
        "tiny.onnx     opset 20, opset 1 of my.ops, IR 10",
        "input         x  float32[batch, 2]",
        "output        y  float32[batch, 2]",
        "nodes         3: Mine, Mul, Relu",
        "initializers  1, together 2 numbers, 8 B",
    ]


def displayed(shown: Netron | Comparison) -> list[dict]:
    """The data of each output of a cell that ends in it."""
    widget = shown._box if isinstance(shown, Comparison) else shown
    return [data for data, _ in outputs(widget, repr(shown), shown._still())]


def test_the_png_shows_the_colors_and_the_words_of_the_picture():
    """Of an untrusted notebook, JupyterLab shows the PNG alone."""
    netron = view(tiny())
    netron.heat({"h": 1e-3, "y": 3e-3}, unit="s")
    data, _ = displayed(netron)
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.mode == "P"
    assert len(image.getcolors()) <= 64, "few colors, so a big picture stays below 60 kB"
    colors = {color for _, color in image.convert("RGB").getcolors(image.width * image.height)}
    for color in ("#ffffff", palette()[0], palette()[-1]):
        assert tuple(bytes.fromhex(color[1:])) in colors
    bare = re.sub(r"<text.*?</text>", "", data["image/svg+xml"])
    assert len(png(bare)) < len(png(data["image/svg+xml"])) / 2  # most of it is words
    assert png(data["image/svg+xml"]) == base64.b64decode(data["image/png"])


def test_without_matplotlib_there_is_no_png(monkeypatch):
    monkeypatch.setattr(raster, "find_spec", lambda name: None)
    assert set(displayed(view(tiny()))[0]) == {"text/plain", "image/svg+xml"}


def everywhere(model: onnx.ModelProto, text: str) -> onnx.ModelProto:
    """The model with a text in every place that describes it."""
    nodes = [ref.node for ref in node_refs(model)]
    values = (*model.graph.input, *model.graph.output, *model.graph.initializer)
    for described in (model, model.graph, *nodes, *values):
        described.doc_string = text
        keys = ("fx_node", "name_scopes", "class_hierarchy", "stack_trace", "namespace")
        note(described, **dict.fromkeys(keys, text))
    for node in nodes:
        node.attribute.add(name="path", type=onnx.AttributeProto.STRING, s=text.encode())
        node.attribute[-1].doc_string = text
    return model


def hostile() -> onnx.ModelProto:
    """Markup in every name and every text that a file can hold."""
    model = everywhere(tiny(), f'File "{HOSTILE[3:]}.py", line 1, in {HOSTILE[3:]}\n    {HOSTILE}')
    model.graph.name = model.graph.input[0].name = model.graph.node[0].input[0] = HOSTILE
    for number, node in enumerate(model.graph.node):
        node.name, node.op_type = f"{HOSTILE}{number}", f"a\x00\x1b[31m\uffff\n{HOSTILE}"
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = f"{HOSTILE}h"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = HOSTILE[3:22]
    return model


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_markup_stays_text_in_what_is_saved_and_in_what_is_shown_without_a_page(tmp_path):
    path = tmp_path / "<img src=x onerror=alert(3)>\x1b[31m.onnx"
    onnx.save(hostile(), path)
    netron, pair = view(path), view(path).compare(hostile())
    netron.heat({f"{HOSTILE}1": 1.0}, unit=HOSTILE)
    assert len(repr(netron).splitlines()) == 6, "one line each, and one that goes on"
    for shown, bundle in (
        (netron, displayed(netron)[0]),
        (pair, displayed(pair)[0]),
    ):
        text = shown.save(tmp_path / "graph.html").read_text()
        assert text.count("<script") == text.count("</script") == 1
        assert "default-src 'none'" in text
        assert "<img" not in text.split("<script")[0]
        assert {kind for kind in bundle if "html" in kind or "javascript" in kind} == set()
        assert "\x1b" not in bundle["text/plain"]
        svg = bundle["image/svg+xml"]
        tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}
        assert tags <= {"svg", "title", "rect", "g", "path", "text", "tspan"}
        assert "&lt;img src=x onerror=alert(3)&gt;" in svg
    for legend in (state(netron)["_heat"]["legend"], state(pair.left)["_heat"]["legend"]):
        ElementTree.fromstring(f"<svg>{legend[0]}</svg>")
        assert "<img" not in legend[0]


def test_what_a_branch_reads_from_outside_is_an_arrow():
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> choose (bool c, float[2] x) => (float[2] y) {'
        " y = If(c) <then_branch = t () => (float[2] a) { a = Relu(x) },"
        " else_branch = e () => (float[2] b) { b = Neg(x) }> }"
    )
    drawn = diagram(model)
    assert set(drawn.arrows) == {(0, 2), (1, 2), (2, 3)}
    assert ("then_branch", "1 node") in drawn.boxes[2].lines
    assert drawn.boxes[2].nodes == ("y", "a", "b")
    netron = view(model)
    netron.heat({"b": 1.0}, "s")
    assert words(netron.svg()).count("up to 1.00 s") == 1


def test_a_big_graph_is_cut_and_says_by_how_much():
    short = abridged(diagram(chain(2000)))
    (gap,) = (box for box in short.boxes if box.kind == "gap")
    drawn = sum(box.kind == "op" for box in short.boxes)
    assert gap.title == f"{2000 - drawn:,} nodes not drawn"
    assert short.arrows == [*pairwise(range(len(short.boxes)))]
    assert len(view(chain(2000)).svg()) < 40_000


def test_a_big_graph_is_drawn_by_its_modules_each_as_hot_as_its_hottest_node():
    netron = view(layered(3), folded=True)
    assert titles(netron.svg()) == ["x", "mask", "B", "B", "B", "b2.3"]
    assert {"blocks.0", "blocks.1", "blocks.2", "4 nodes"} <= set(words(netron.svg()))
    netron.heat({"add_b0.1": 1e-3, "add_b1.2": 2e-3, "add_b1.3": 3e-3}, "s")
    assert [word for word in words(netron.svg()) if "ms" in word] == [
        *("up to 1.00 ms", "up to 3.00 ms"),
        *("1.00 ms", "3.00 ms"),
    ]
    for color, times in ((palette()[0], 3), (palette()[-1], 3), (COLD, 2)):  # legend, frame, title
        assert netron.svg().count(f'"{color}"') == times


@pytest.mark.parametrize("unit", ["s", "items moved on this machine", "\u00d7" * 99])
def test_the_legend_fits_into_the_picture_of_a_narrow_graph(unit):
    netron = view(chain(1))
    netron.heat({"v1": 1.0}, unit)
    picture = ElementTree.fromstring(netron.svg())
    group = picture.findall(f"{SVG}g")[-1]
    shift = float(re.search(r"translate\((\S+)", group.get("transform"))[1])
    for text in group.iter(f"{SVG}text"):
        reach = 6.5 * len(text.text) * (-1 if text.get("text-anchor") == "end" else 1)
        assert abs(shift + float(text.get("x")) + reach) <= float(picture.get("width")) / 2


def test_boxes_of_a_layer_do_not_overlap_and_arrows_point_down():
    edges = [(0, child) for child in range(1, 9)] + [(child, 9) for child in range(1, 9)] + [(0, 9)]
    wide = [60 + 10 * (i % 3) for i in range(10)]
    spots = layout([(width, 20) for width in wide], edges)
    for first, second in combinations(range(10), 2):
        (x, y), (other_x, other_y) = spots.centers[first], spots.centers[second]
        assert y != other_y or abs(x - other_x) >= (wide[first] + wide[second]) / 2
    for (tail, head), bends in zip(edges, spots.bends, strict=True):
        heights = [y for _, y in (spots.centers[tail], *bends, spots.centers[head])]
        assert heights == sorted(set(heights))
    (across, _), *_ = spots.bends[-1]
    outer = max(abs(x) + wide[i] / 2 for i, (x, _) in enumerate(spots.centers))
    assert outer < across <= spots.reach, "a long edge passes beside the boxes"
    crossed = layout([(10, 10)] * 4, [(0, 3), (1, 2)]).centers
    assert [x for x, _ in crossed] == [-19, 19, 19, -19], "two chains do not cross"


def test_a_graph_with_a_cycle_or_without_nodes_is_drawn_all_the_same():
    assert layers(3, [(0, 1), (1, 2), (2, 1)]) == [0, 1, 0]
    layout([(10, 10)] * 3, [(0, 1), (1, 2), (2, 1)])
    empty = helper.make_model(helper.make_graph([], "empty", [], []))
    assert "nodes         none" in repr(view(empty))
    ElementTree.fromstring(view(empty).svg())


# From a node to its line and back


def test_the_panel_gets_the_fx_node_the_module_and_the_line(program):
    netron = view(program)
    told, manual = panel(netron), json.loads(sent(netron)[1])
    assert (
        {"Gemm", "Relu"}
        <= {entry["name"] for entry in manual}
        == {node.op_type for node in program.model_proto.graph.node}
    )
    by_op = {op: rest for op, *rest in told["nodes"].values()}
    assert by_op["Relu"][:3] == ["relu", "aten.relu.default", ""]
    assert by_op["Gemm"][2] == "first"
    relu, gemm = (told["lines"][by_op[op][-1]] for op in ("Relu", "Gemm"))
    assert relu["place"] == gemm["place"] == f"test_viewer.py:{NUMBER}"
    (function,) = told["functions"]
    assert (function["file"], function["name"]) == ("test_viewer.py", "Lines.forward")
    assert function["lines"][NUMBER - function["first"]].strip() == relu["text"] == LINE


def test_a_long_function_is_cut_around_its_line(tmp_path):
    path = tmp_path / "model.py"
    path.write_text("\n".join(["def forward(x):", *(f"    x = x + {n}" for n in range(2, 1001))]))
    trace = f'File "{path}", line 700, in forward\n    x = x + 700'
    (function,) = panel(view(tiny(trace), source=tmp_path))["functions"]
    assert len(function["lines"]) == 400
    assert function["lines"][700 - function["first"]] == "x = x + 700"


def all_that_is_in(html: Path) -> str:
    """The text of a saved view and of what is packed in it."""
    text = html.read_text(encoding="utf-8")
    packed = re.findall(r'"(H4sI[^"]+)"', text)
    assert len(packed) >= 4
    return text + "".join(
        gzip.decompress(base64.b64decode(part)).decode("utf-8", "replace") for part in packed
    )


@pytest.mark.parametrize("folder", ["/home/ada", "C:\\Users\\ada", "/Volumes/a/b", "/opt/ada-1.2"])
def test_no_folder_is_in_what_is_saved_or_committed(folder, tmp_path):
    shapes = (
        'File "{}/net.py", line 3, in forward\n    x.relu()\n'
        "written to {}/my net.onnx\n'{}/my weights.bin'\n"
        "{}/net.py(12): forward\n{}/torch/nn.py(4): call\n({}/a.txt,{}/b.txt)"
    )
    text = shapes.replace("{}", folder).replace("/", "\\" if "\\" in folder else "/")
    model = everywhere(tiny(), text)
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="w.data")
    netron = view(model)
    netron.heat({"h": 1.0})
    pair = netron.compare(tiny())
    seen = [all_that_is_in(each.save(tmp_path / "graph.html")) for each in (netron, pair)]
    for shown in (*seen, *displayed(netron)[0].values(), repr(pair), pair.svg()):
        assert folder not in str(shown)
    for name in ("net.py", "weights.bin", "net.onnx", "a.txt"):
        assert name in seen[0]


def test_a_folder_in_the_source_itself_is_cut_and_what_is_no_path_stays(tmp_path):
    path, call = tmp_path / "model.py", "return x + load('/home/ada/bias.pt')"
    path.write_text(f"def forward(x):\n    {call}\n")
    trace = f'File "{path}", line 2, in forward\n    {call}'
    seen = all_that_is_in(view(tiny(trace), source=tmp_path).save(tmp_path / "graph.html"))
    assert "/home/ada" not in seen
    assert seen.count("return x + load('bias.pt')") == 3  # in the node, the panel, the function
    web = ("https://host.org/a/b", "and/or", "a </b> c", "1/2", "torch.ops/aten/relu")
    for text in (*web, "4 / 2", "{a}/b/c"):
        assert without_folders(text) == text


def test_select_takes_a_node_a_module_a_place_a_line_and_its_text(program):
    netron = view(program)
    names = {node.op_type: node.name for node in program.model_proto.graph.node}
    both = (names["Gemm"], names["Relu"])
    assert netron.select(names["Tanh"]) == (names["Tanh"],)
    assert netron.select("first") == (names["Gemm"],)
    assert netron.select(f"test_viewer.py:{NUMBER}") == both
    assert netron.select(Line(__file__, NUMBER, "forward", "")) == both
    assert netron.select(f"    {LINE}  ") == both
    for nothing in ("fir", "  "):  # no module, only the beginning of one; no text
        with pytest.raises(InputError):
            netron.select(nothing)
    assert netron.marked == list(both)


@pytest.mark.parametrize(
    ("written", "modules"),
    [
        *((text, ()) for text in ("[", "3", "['', 1]", "[" * 9999, HOSTILE)),
        ("['', '_guards_fn', '_body', 'relu']", ("_body",)),
    ],
)
def test_scopes_that_are_none_are_no_module(written, modules):
    node = helper.make_node("Relu", ["x"], ["y"])
    note(node, name_scopes=written)
    assert exporter_metadata.read(node).modules == modules


def test_two_nodes_of_one_name_are_told_apart_as_trace_does():
    model = graph("[a] h = Relu(x) [a] y = Neg(h)")
    netron = view(model)
    assert [origin.op for origin in netron.origins.values()] == ["Relu", "Neg"]
    assert list(netron.origins) == [ref.name for ref in node_refs(model)] == ["a", "a_2"]
    drawn = onnx.load_from_string(sent(netron)[0]).graph.node
    assert [node.name for node in drawn] == ["a", "a_2"]


# Heat


def test_heat_colors_the_boxes_and_shows_the_values(monkeypatch):
    netron = view(tiny())
    cold = netron.svg()
    monkeypatch.setattr(Model, "proto", property(lambda self: pytest.fail("unpacked")))
    netron.heat({"h": 1e-3, "y": 3e-3}, unit="s")
    assert palette()[0] in netron.svg()
    assert palette()[-1] in netron.svg()
    assert netron.svg().count("3.00 ms") == 2  # in its box and in the legend
    assert state(netron)["_heat"]["levels"] == {"h": 0, "y": 31}
    netron.heat(None)
    assert (netron.svg(), state(netron)["_heat"]) == (cold, {})


def contrast(*colors: str) -> float:
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    dark, bright = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (bright + 0.05) / (dark + 0.05)


def test_every_label_can_be_read_on_its_color():
    for color in (*palette(), COLD, LEFT, RIGHT):
        assert contrast(color, ink(color)) >= 4.5
    assert min(contrast(color, COLD) for color in (LEFT, RIGHT)) >= 3


def test_the_static_picture_has_the_colors_of_the_live_one():
    folder = frontend.installed()
    light = (folder / "grapher.css").read_text().partition("@media")[0]
    fills = dict(re.findall(r"\.node-item-type(?:-(\w+))? path \{ fill: (.*?); \}", light))
    rgb = {
        name: to_rgb(fill) if fill[0] == "#" else tuple(int(n) / 255 for n in fill[4:-1].split(","))
        for name, fill in fills.items()
    }
    manual = json.loads((folder / "onnx-metadata.json").read_text())
    wrong = [
        entry["name"]
        for entry in manual
        if to_rgb(COLORS.get(entry["name"], OTHER)) != rgb[entry.get("category", "").lower()]
    ]
    assert wrong == []


def test_equal_values_and_negative_ones_have_a_color():
    assert scale({"a": 2.0, "b": 2.0}).color("a") == palette()[-1]
    heat = scale({"a": -1.0, "b": 0.0, "c": 1.0}, "bits")
    assert (heat.ends, heat.levels["b"], heat.color("d")) == (("-1 bits", "1 bits"), 16, COLD)
    assert scale({"a": -1e308, "b": 0.0, "c": 1e308}).levels == heat.levels
    assert scale({"a": 2_500_000}, "B").words["a"] == "2.50 MB"


# Two graphs side by side

OLD = graph("[a] h = Relu(x) [b] g = Neg(h) [c] y = Neg(g)", "old", b="%gelu", c="%gelu")
NEW = graph("[a] h = Relu(x) [c] y = Abs(h)", "new", c="%gelu")


def test_the_report_says_what_only_one_graph_has():
    pair = view(OLD).compare(NEW)
    assert (pair.both, pair.here, pair.there) == ((("a", "a"),), ("b", "c"), ("c",))
    assert displayed(pair)[0]["text/plain"] == repr(pair)
    same = repr(view(OLD).compare(OLD)).split("\n")[0]
    assert same.split() == ["old", "(left)", "old", "(right)"]


TWICE = graph("[a] h = Relu(x) [b] y = Relu(h)", a="r(x)", b="r(x)")


@pytest.mark.parametrize(
    ("left", "right", "both"),
    [
        (graph("[a] h = Relu(x) [b] y = Relu(h)"), graph("[b] h = Relu(x) y = Relu(h)"), "bb"),
        (graph("[a] y = Relu(x)"), graph("[b] y = Relu(x)"), "ab"),
        (graph("[a] y = Relu(x)", a="%r"), graph("[b] g = Relu(x) y = Neg(g)", b="%r"), "ab"),
        (graph("[a] y = Relu(x)", a="r(x)"), graph("[b] g = Relu(x) y = Neg(g)", b="r(x)"), "ab"),
        (graph("[a] y = Relu(x)", a="r(x)"), graph("[b] g = Relu(x) y = Neg(g)", b="s(x)"), ""),
        (graph("[a] y = Relu(x)", a="%r"), graph("[a] y = Relu(x)", a="%other"), ""),
        (graph("[a] y = Relu(x)"), graph("[a] y = Neg(x)"), ""),
        (TWICE, graph("[c] z = Relu(x) [d] y = Neg(z)", c="r(x)"), "ac"),
    ],
    ids=["name", "value", "fx", "line", "other line", "other fx", "other operator", "once"],
)
def test_a_node_is_matched_once_by_the_first_sign_that_both_have(left, right, both):
    assert ["".join(pair) for pair in view(left).compare(right).both] == [both] * bool(both)


def test_a_comparison_links_two_views_of_its_own():
    """tests/browser/test_linked.py clicks in them."""
    old, new = view(OLD, height=300), view(NEW)
    pair = old.compare(new)
    assert (pair.left.height, pair.right.height) == (300, 300)
    pair.left.select("b")
    assert (pair.left.marked, pair.right.marked) == (["b"], ["c"])
    assert state(old)["_heat"] == state(new)["_heat"] == {}
    assert old.marked == new.marked == []


def test_a_panel_that_closes_marks_no_older_choice_in_the_other_view():
    pair = view(OLD).compare(NEW)
    for side, name in ((pair.right, "a"), (pair.left, "b")):  # two clicks, as a page tells them
        side.set_state({"marked": [], "_open": name, "selected": name})
    assert (pair.left.marked, pair.right.marked) == ([], ["c"])
    pair.right.set_state({"marked": [], "_open": ""})
    assert (pair.left.marked, pair.right.marked) == ([], [])
    assert (pair.left.selected, pair.right.selected) == ("b", "a")


def test_what_only_one_graph_has_is_seen_without_color_vision_and_explained():
    svg = view(OLD).compare(NEW).svg()
    assert titles(svg) == ["x", "Relu", "Neg", "Neg", "y", "x", "Relu", "Abs", "y"]
    assert svg.count("only here") == 3  # the word stands in the box, too
    for said in ("2 nodes only in old", "1 node only in new", "1 node in both"):
        assert f">{said}<" in svg
    assert [svg.count(f'stroke="{color}"') for color in (LEFT, RIGHT)] == [2, 1]


def test_what_the_two_pages_drew_is_what_svg_and_png_give():
    pair = view(OLD).compare(NEW)
    still = pair.svg()
    for side, size, color in ((pair.left, (4, 2), "red"), (pair.right, (3, 5), "blue")):
        image = io.BytesIO()
        Image.new("RGBA", size, color).save(image, "PNG")
        drawn = f'<svg xmlns="{SVG[1:-1]}" width="{size[0]}" height="{size[1]}"><a id="n"/></svg>'
        hear(side, {"picture": drawn}, image.getvalue())
    picture = Image.open(io.BytesIO(pair.png())).convert("RGB")
    corners = [picture.getpixel(at) for at in ((0, 1), (0, 4), (4, 4))]
    assert (picture.size, corners) == ((7, 5), [(255, 0, 0), (255, 255, 255), (0, 0, 255)])
    places = [each.get("x") for each in ElementTree.fromstring(pair.svg()) if each.get("x")]
    assert places == ["0", "4"]
    assert pair._still() == still  # committed outputs never change
    pair.left.heat({"a": 1.0})
    assert titles(pair.left.svg()) == ["x", "Relu", "Neg", "Neg", "y"], "the old one has no heat"


# Big graphs


def boxes_of(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.attribute]


def test_a_fold_has_a_box_for_each_module_and_loses_no_node():
    model = layered(300)
    folded = drawable(model, always=True)
    boxes = boxes_of(folded.proto.graph)
    assert [box.name for box in boxes] == [f"blocks.{block}" for block in range(300)]
    assert {box.op_type for box in boxes} == {"B"}
    assert all("." not in box.attribute[0].g.name for box in boxes)
    kept = [node.name for node in nested(folded.proto.graph.node) if node.op_type == "Add"]
    assert kept == [node.name for node in model.graph.node]
    # an edge over many layers becomes a stub with its name
    assert list(boxes[0].input) == ["x", "mask"]
    assert boxes[-1].input[1] == f"{chr(0x2191)} mask {len(folded.stubs)}"
    assert set(folded.stubs.values()) == {"mask"}
    assert 270 < len(folded.stubs) < 300


def test_neighbors_of_no_module_are_folded_by_number_and_none_is_lost():
    model = chain(1500)
    folded = drawable(model, always=True).proto.graph
    boxes = boxes_of(folded)
    assert (len(boxes), len(folded.node)) == (40, 40)
    assert [(box.name, box.op_type) for box in (boxes[0], boxes[-1])] == [
        ("nodes 1 to 38", "38 nodes"),
        ("nodes 1,483 to 1,500", "18 nodes"),
    ]
    assert [n for n in nested(folded.node) if n.op_type == "Relu"] == list(model.graph.node)
    outer = boxes_of(drawable(layered(1100)).proto.graph)  # more modules than can be seen
    assert {box.op_type for box in outer[:-1]} == {"132 nodes"}  # 33 modules of four
    inner = boxes_of(outer[0].attribute[0].g)
    assert [box.name for box in inner] == [f"blocks.{block}" for block in range(33)]


def test_a_path_in_a_name_is_a_module_where_the_file_tells_of_none():
    model = chain(8)
    for at, node in enumerate(model.graph.node):
        node.name = f"/encoder/{at // 4}/Relu_{at}"
    boxes = boxes_of(drawable(model, always=True).proto.graph)
    assert [(box.name, box.op_type) for box in boxes] == [("encoder/0", "0"), ("encoder/1", "1")]


def test_only_a_big_graph_is_folded_and_all_of_it_can_be_had(monkeypatch):
    for blocks, big in ((3, False), (300, True)):
        netron, heard = view(layered(blocks)), []
        monkeypatch.setattr(netron, "send", lambda *message, heard=heard: heard.append(message))
        shown = state(netron)["_sent"]
        assert (shown["folded"], shown["nodes"]) == (big, 4 * blocks)
        hear(netron, {"ask": "everything"})
        hear(netron, {"ask": "whole", "id": "7"})
        ((content, parts),) = heard
        assert content == {"id": "7"}
        assert len(onnx.load_from_string(gzip.decompress(parts[0])).graph.node) == 4 * blocks


def test_a_small_graph_is_folded_where_this_is_asked_for():
    for folded in (True, False):
        one, another = (view(layered(3), folded=each) for each in (folded, not folded))
        for other, like in ((layered(3), folded), (another, not folded)):
            pair = one.compare(other)
            sides = [state(side)["_sent"]["folded"] for side in (pair.left, pair.right)]
            assert sides == [folded, like]


# Memory


def test_freed_memory_goes_back_only_where_the_system_takes_it(monkeypatch):
    asked = []
    glibc = SimpleNamespace(malloc_trim=asked.append)
    for platform, library in (("linux", glibc), ("linux", object()), ("darwin", glibc)):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(ctypes, "CDLL", lambda _, library=library: library)
        view(tiny())
    assert asked == [0]


def test_a_second_run_of_a_cell_closes_what_the_first_has_shown_and_nothing_else(monkeypatch):
    shell = SimpleNamespace()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)

    def run(cell: str, run: str) -> Netron:
        shell.get_parent = lambda: {"metadata": {"cellId": cell}, "header": {"msg_id": run}}
        return view(tiny())

    first, beside, other, unnamed = run("a", "1"), run("a", "1"), run("b", "2"), run("", "3")
    again, unnamed_again = run("a", "4"), run("", "5")
    views = [first, beside, other, unnamed, again, unnamed_again]
    assert [one.comm is None for one in views] == [True, True, False, False, False, False]


def test_a_pair_closes_with_one_of_its_views():
    pair = view(tiny()).compare(tiny())
    displayed(pair)
    pair.left.close()
    assert pair._box.comm is None, "a page cannot load it without both views"


def test_a_closed_view_holds_no_model():
    netron = view(tiny())
    text, picture = repr(netron), netron.svg()
    shown = displayed(netron)
    netron.close()
    assert (repr(netron), netron.svg()) == (text, picture)
    assert displayed(netron) == shown[:1]  # the picture alone
    assert (netron.origins, state(netron)["_sent"]) == ({}, {})
