"""profile(...).flame, .records and .save: shares by construction, and the rules of both formats."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
import torch
from models import Folds

import onnx_workbench as ow
from onnx_workbench.hotspots import formats
from onnx_workbench.hotspots.flame import NO_LINE, Flame, FlameFrame, grown, modules_of, stack_of
from onnx_workbench.lineage.attribution import Share
from onnx_workbench.source import Line

SCHEMA = Path(__file__).parent / "speedscope.schema.json"  # of speedscope 1.25.0, MIT

CALLER = Line("/home/ada/net.py", 20, "forward", "x = self.block(x)")
USER = Line("/home/ada/net.py", 8, "forward", "return self.body(x)")
LIBRARY = Line("/x/site-packages/timm/net.py", 5, "forward", "x = self.conv(x)")
DEEPER = Line("/x/site-packages/timm/net.py", 9, "forward", "return conv(x)")


def row(line, stack, seconds, operator):
    record = {"operator": operator, "onnx": "n", "kernel": "k", "seconds": seconds, "line": None}
    return Share("k", "n", line, 1.0, stack), record


ROWS = [
    row(USER, (CALLER, USER, LIBRARY), 2e-6, "Conv"),
    row(USER, (CALLER, USER, LIBRARY, DEEPER), 1e-6, "Relu"),
    row(None, (), 0.5e-6, "Reorder"),
    row(CALLER, (CALLER,), 1e-6, "Add"),
    row(USER, (CALLER, USER), 0.0, "Neg"),
]


# Flames


def test_a_share_is_below_the_lines_that_call_it_and_in_its_modules():
    share = Share("k", "n", USER, 1.0, (CALLER, USER, LIBRARY), "net.block.0")
    assert [frame.line for frame in stack_of(share)] == [CALLER, USER, LIBRARY]
    assert [frame.name for frame in modules_of(share)] == ["net", "net.block", "net.block.0"]
    lost = Share("k", "", None, 1.0)
    assert (stack_of(lost), modules_of(lost)) == ((NO_LINE,), ())
    neighbors = Share("k", "n", USER, 1.0)  # a line, and no stack
    assert [frame.line for frame in stack_of(neighbors)] == [USER]


def flame():
    return grown("m.onnx", [(stack_of(share), record["seconds"]) for share, record in ROWS])


def test_a_box_has_the_seconds_of_what_is_below_it_and_its_own():
    whole = flame()
    outer, lost = whole.children
    assert whole.seconds == pytest.approx(4.5e-6)
    assert (outer.line, outer.seconds) == (CALLER, pytest.approx(4e-6))
    assert (lost.name, lost.seconds) == ("no line", 0.5e-6)
    assert outer.children[0].seconds == pytest.approx(3e-6)
    tree = whole.tree()["children"]
    assert [(box["line"], len(box["children"])) for box in tree] == [("net.py:20", 1), (None, 0)]
    assert json.dumps(whole.tree())


def test_the_text_is_indented_and_leaves_out_what_is_short():
    rows = repr(flame()).splitlines()
    assert rows[2].split() == ["4.50", "us", "100.0", "%", "m.onnx"]
    assert rows[3].endswith("88.9 %    net.py:20  x = self.block(x)")
    assert rows[4].endswith("66.7 %      net.py:8  return self.body(x)")
    short = grown("m", [((FlameFrame("a"),), 1.0), ((FlameFrame("b"),), 1e-4)])
    assert repr(short).splitlines()[-1] == "and 1 more: see .tree()"


def test_the_picture_nests_and_escapes():
    paths = [((FlameFrame("<script>"), FlameFrame("b & c")), 3.0), ((FlameFrame("d" * 90),), 1.0)]
    whole = grown('"m"', paths)
    root = ElementTree.fromstring(whole.svg())
    boxes = []
    for group in root:
        title, rect, text = group
        x, y, width = (float(rect.get(key)) for key in ("x", "y", "width"))
        assert 0 <= x <= x + width <= 960
        assert len(text.text or "") * 6.5 <= width
        boxes.append((title.text, x, y, width))
    assert [box[0] for box in boxes[:3]] == [
        '"m"  4.00 s, 100.0 %',
        "<script>  3.00 s, 75.0 %",
        "b & c  3.00 s, 75.0 %",
    ]
    assert [box[1:] for box in boxes] == [
        (0, 0, 960),
        (0, 22, 720),
        (0, 44, 720),
        (720, 22, 240),
    ]
    bundle = whole._repr_mimebundle_()
    assert bundle["image/svg+xml"] == bundle["text/html"] == whole.svg()
    assert ElementTree.fromstring(Flame("nothing ran", 0.0).svg()) is not None


# Files


def check_trace(trace):
    """The rules of Chrome's trace event format for the phases used here, as Perfetto reads them:
    ``M`` names a process or thread, ``X`` is complete with ``ts`` and ``dur`` in microseconds, and
    the events of one thread lie beside or inside each other, the outer one first in the file."""
    assert trace["displayTimeUnit"] in ("ms", "ns")
    named, threads = set(), {}
    for event in trace["traceEvents"]:
        assert event["ph"] in ("M", "X")
        assert isinstance(event["name"], str)
        assert all(type(event[key]) is int for key in ("pid", "tid"))
        if event["ph"] == "M":
            known = {
                "process_name": "name",
                "thread_name": "name",
                "thread_sort_index": "sort_index",
            }
            assert [*event["args"]] == [known[event["name"]]]
            named.add((event["name"], event["pid"], event["tid"]))
            continue
        begin, lasts = (round(event[key] * 1000) for key in ("ts", "dur"))
        assert begin >= 0 <= lasts
        assert isinstance(event["cat"], str)
        around = threads.setdefault((event["pid"], event["tid"]), [])
        while around and around[-1] <= begin and not (lasts == 0 and around[-1] == begin):
            around.pop()
        assert not around or begin + lasts <= around[-1]
        around.append(begin + lasts)
    for pid, tid in threads:
        assert {("process_name", pid, 0), ("thread_name", pid, tid)} <= named
        assert ("thread_sort_index", pid, tid) in named


def check_speedscope(file):
    """The schema, and what it cannot say: each sample has a weight, and names frames that exist."""
    jsonschema.validate(file, json.loads(SCHEMA.read_text()))
    [profile] = file["profiles"]
    assert len(profile["samples"]) == len(profile["weights"])
    assert sum(profile["weights"]) == profile["endValue"]
    used = {number for sample in profile["samples"] for number in sample}
    assert used == set(range(len(file["shared"]["frames"])))


def kernels(trace):
    return [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]


def test_a_trace_has_a_track_for_each_line_and_the_librarys_lines_around_its_kernels():
    trace = formats.trace(ROWS, "m.onnx")
    check_trace(trace)
    named = {
        e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"
    }
    assert [*named.values()] == [
        "net.py:8  return self.body(x)",
        "no line",
        "net.py:20  x = self.block(x)",
    ]
    rows = [(e["tid"], e["name"], e["ts"], e["dur"]) for e in trace["traceEvents"] if "ts" in e]
    assert rows == [
        (1, "timm/net.py:5  x = self.conv(x)", 0.0, 3.0),
        (1, "Conv  n", 0.0, 2.0),
        (1, "timm/net.py:9  return conv(x)", 2.0, 1.0),
        (1, "Relu  n", 2.0, 1.0),
        (2, "Reorder  n", 3.0, 0.5),
        (3, "Add  n", 3.5, 1.0),
        (1, "Neg  n", 4.5, 0.0),
    ]
    assert kernels(trace)[0]["args"] == ROWS[0][1]


def test_a_speedscope_file_has_a_sample_for_each_kernel_below_its_lines():
    file = formats.speedscope(ROWS, "m.onnx")
    check_speedscope(file)
    [profile] = file["profiles"]
    assert (profile["type"], profile["unit"]) == ("sampled", "nanoseconds")
    assert profile["weights"] == [2000, 1000, 500, 1000, 0]
    frames = [frame["name"].split("  ")[0] for frame in file["shared"]["frames"]]
    assert [frames[number] for number in profile["samples"][1]] == [
        *("net.py:20", "net.py:8", "timm/net.py:5", "timm/net.py:9", "Relu")
    ]
    assert file["shared"]["frames"][0] == {
        "name": "net.py:20  x = self.block(x)",
        "file": "net.py",
        "line": 20,
    }
    assert "/home/ada" not in json.dumps(file)


# A real profile


@pytest.fixture(scope="module")
def spots():
    return ow.profile(
        ow.export(Folds().eval(), torch.ones(1, 3, 8, 8)), torch.ones(1, 3, 8, 8), seconds=0.02
    )


KEYS = ["line", "stack", "module", "onnx", "kernel", "operator", "rule", "seconds", "bytes"]


def spent(spots):
    return sum(spots.recording.typical(kernel.seconds) for kernel in spots.recording.kernels)


def test_the_records_add_up_to_the_profile(spots):
    records = spots.records()
    assert all([*record] == [*KEYS, "provider", "fraction"] for record in records)
    assert sum(record["seconds"] for record in records) == pytest.approx(spent(spots))
    assert {record["provider"] for record in records} == {"CPUExecutionProvider"}
    made = sum(kernel.size for kernel in spots.recording.kernels)
    assert sum(record["bytes"] for record in records) == made > 0
    fractions = {}
    for record in records:
        fractions[record["kernel"]] = fractions.get(record["kernel"], 0) + record["fraction"]
    assert all(fraction == pytest.approx(1) for fraction in fractions.values())
    assert json.dumps(records)
    assert len(spots.to_frame()) == len(records)
    records[0].clear()
    assert spots.records()[0], "callers may change what they get"


@pytest.mark.parametrize("by", ["stack", "module"])
def test_a_flame_has_the_time_of_the_profile(by, spots):
    flame = spots.flame(by=by)
    assert flame.seconds == pytest.approx(spent(spots))
    names = [child.name for child in flame.children]
    assert any(
        word in " ".join(names) for word in (("conv",) if by == "module" else ("self.conv",))
    )


def test_files_follow_the_suffix_and_keep_to_the_rules(spots, tmp_path):
    trace = json.loads(spots.save(tmp_path / "trace.json").read_text())
    check_trace(trace)
    lasts = sum(event["dur"] for event in kernels(trace)) / 1e6
    assert lasts == pytest.approx(spent(spots), abs=1e-8)
    file = json.loads(spots.save(str(tmp_path / "profile.speedscope.json")).read_text())
    check_speedscope(file)
    assert file["profiles"][0]["endValue"] == pytest.approx(spent(spots) * 1e9, abs=2)


@pytest.mark.parametrize(
    ("call", "noun"),
    [
        (lambda spots, folder: spots.save(folder / "trace.html"), "trace.json"),
        (lambda spots, folder: spots.save(folder / "trace"), "profile.speedscope.json"),
        (lambda spots, folder: spots.save(folder / "trace.csv"), ".records()"),
        (lambda spots, folder: spots.save(folder / "no" / "trace.json"), "folder"),
        (lambda spots, _: spots.save(3), "path"),
        (lambda spots, _: spots.flame(by="line"), "'module'"),
    ],
)
def test_wrong_calls_say_what_is_taken(call, noun, spots, tmp_path):
    with pytest.raises(ow.errors.InputError, match=noun.replace("(", r"\(").replace(")", r"\)")):
        call(spots, tmp_path)
    assert list(tmp_path.iterdir()) == []
