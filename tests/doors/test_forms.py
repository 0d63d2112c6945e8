"""Every result has two forms: HTML with tables in boxes that scroll, and text of few columns."""

import re
from functools import cache

import pytest

import onnx_workbench as ow
from onnx_workbench.formatting import WIDTH


def observed(model, images):
    with ow.observe(model) as seen:
        for call in (images, images[:1]):
            model(call)
    return seen


@cache
def watched(model, images):
    return ow.watch(model, images)


@cache
def profiled(onnx, images):
    return ow.profile(onnx, images, seconds=0.1)


RESULTS = {
    "artifact": lambda m, o, x, t: o,
    "graph": lambda m, o, x, t: ow.capture(m, x).polish(),
    "watch": lambda m, o, x, t: watched(m, x),
    "frame": lambda m, o, x, t: watched(m, x).frames[0],
    "bytecode": lambda m, o, x, t: watched(m, x).frames[0].bytecode,
    "agreement": lambda m, o, x, t: ow.verify(m, o, x),
    "divergence": lambda m, o, x, t: ow.verify(m, o, x, values=True),
    "contract": lambda m, o, x, t: ow.probe(m, x, dynamic_shapes={"images": {0: "n"}}),
    "opsets": lambda m, o, x, t: ow.opsets(m, x, asked=(18, 99)),
    "profile": lambda m, o, x, t: profiled(o, x),
    "memory": lambda m, o, x, t: profiled(o, x).memory,
    "race": lambda m, o, x, t: ow.race({"a": m, "b": o}, x, quick=True, seconds=0.2),
    "sweep": lambda m, o, x, t: ow.sweep(
        {"a": m}, lambda n: x[:n], n=(1, 2), quick=True, seconds=0.2
    ),
    "observed": lambda m, o, x, t: observed(m, x),
    "audit": lambda m, o, x, t: ow.audit(t, x[0, 0], skip={"latency", "hot lines", "opsets"}),
}


@pytest.mark.parametrize("name", RESULTS)
def test_result_has_html_in_boxes_and_narrow_text(name, model, onnx, images, table):
    made = RESULTS[name](model, onnx, images, table)
    html = made._repr_html_()
    tables, boxed = (re.findall(box + "<table", html) for box in ("", r"overflow-x:auto[^>]*>"))
    assert len(tables) == len(boxed) > 0
    assert max(map(len, repr(made).splitlines())) <= WIDTH
