"""One table of opsets: what was asked, what was written, and what became of it."""

import onnx
import torch
from torch import nn

from onnx_workbench import capture, export, opsets

X = torch.ones(2)


def test_the_table_says_what_was_reached_and_why_it_ended():
    gelu = opsets(nn.GELU().eval(), X, asked=(9, 18, 20, 99))
    assert [result.refused for result in gelu.results] == ["opset", "", "", "opset"]
    assert repr(gelu).splitlines()[3:] == [
        "    9   18  -        -      -            -",
        "   18   18  ok       ok     same         5",
        "   20   20  ok       ok     same         1  -1 Add -1 Div -1 Erf +1 Gelu -2 Mul",
        "   99   18  -        -      -            -",
        "9: You asked for opset 9 and the exporter wrote opset 18 without raising an error: it "
        "could not",
        "convert the graph down.",
        "99: You asked for opset 99 and the exporter wrote opset 18 without raising an error: it "
        "could not",
        "convert the graph up. It is labeled opset 18 and holds Gelu, which came with opset 20.",
    ]


def test_opsets_that_fail_for_one_reason_share_a_note():
    notes = repr(opsets(nn.GELU().eval(), X, asked=(9, 10, 18))).splitlines()[6:]
    assert notes[0].startswith("9, 10: You asked for opset 10 and the exporter wrote opset 18 ")


def test_a_graph_is_captured_once_and_a_file_is_gone_before_the_next_is_written(monkeypatch):
    graph = capture(nn.ReLU().eval(), torch.ones(2, 3), dynamic_shapes={"input": {0: "n"}})
    written, standing = [], []

    def watched(*args, **options):
        standing.extend(path for path in written if path.exists())
        artifact = export(*args, **options)
        written.append(artifact.path)
        return artifact

    monkeypatch.setattr("onnx_workbench.opset_table.export", watched)
    assert opsets(graph, asked=[18, 20]).good == (18, 20)
    assert (len(written), standing) == (2, [])
    assert not any(path.parent.exists() for path in written)


def test_other_numbers_than_the_models_are_told(monkeypatch):
    graph = capture(nn.ReLU().eval(), X)
    monkeypatch.setattr(graph.model, "forward", lambda x: x + 1)
    (result,) = opsets(graph, asked=[18]).results
    assert (bool(result), result.differs) == (False, True)
    assert result.reason.startswith("2 of 2 differ, by up to ")
    assert result.steps() == ("ok", "ok", "differ")


def test_a_file_that_onnx_runtime_rejects_passed_the_checker():
    (result,) = opsets(nn.Linear(2, 2).eval(), X.double(), asked=[18]).results
    assert (result.refused, result.got, result.steps()) == ("load", 18, ("ok", "no", "-"))


def test_the_range_by_default_ends_with_what_onnx_knows(monkeypatch):
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 14)
    assert [r.asked for r in opsets(nn.ReLU().eval(), X).results] == [13, 14]
