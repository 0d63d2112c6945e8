"""The saved page of an audit: no kernel, every request refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import onnx_workbench as ow

from .conftest import at_rest, expect, findings

pytestmark = pytest.mark.browser


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(50, 8), nn.Parameter(torch.randn(6, 8))

    def forward(self, tokens):
        tokens += 0
        x = torch.tanh(self.words(tokens) + self.places)
        for _ in range(20):
            x = x.sin()
        return x.mean(1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    shapes = {"tokens": {0: "batch", 1: "words"}}
    tokens, skip = torch.arange(12).reshape(2, 6), {"opsets", "portability", "latency"}
    report = ow.audit(Words().eval(), tokens, dynamic_shapes=shapes, skip=skip)
    assert [fault.code for fault in report.faults] == ["OW102", "OW301", "OW110"]
    return report.save(tmp_path_factory.mktemp("audit") / "report.html")


def test_the_page_links_findings_floors_and_graph(open_file, path):
    page = open_file(path)
    card = page.locator("#finding-1")
    expect(page.locator("h1")).to_have_text("Words: 3 findings")
    expect(page.locator(".chips a")).to_have_text(["✗ capture: 2 found", "✗ contract: 1 found"])
    expect(card.locator("mark")).to_contain_text("torch.tanh(self.words(tokens) + self.places)")

    assert at_rest(page.locator(".ow-floors .body"))["height"] < 500, "the lists scroll"
    lit = page.locator(".ow-floors section").nth(4).locator(".row.marked")
    card.get_by_role("link", name="Follow this line").click()
    for title in ("Add", "Tanh"):
        expect(page.locator(".graph a.lit text[text-anchor]", has_text=title).first).to_be_visible()
    box = page.locator(".graph a[data-rows]", has_text="ReduceMean")
    box.click()
    expect(lit).to_have_count(1)
    expect(lit).to_contain_text("mean")
    expect(box).to_have_attribute("aria-current", "true")
    source = page.locator(".ow-floors section").first.locator(".row.marked")
    expect(source).to_contain_text("return x.mean(1)")

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    card.get_by_role("button", name="Copy").click()
    expect(card.get_by_role("button")).to_have_text("Copied")
    assert (
        page.evaluate("navigator.clipboard.readText()") == card.locator(".repair span").inner_text()
    )

    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator(".chain .still img")).to_be_visible()
    expect(page.locator(".ow-floors")).to_be_hidden()
    expect(card.locator("details p")).to_be_visible()


def test_axe_finds_nothing_serious_on_the_page(open_file, path):
    page = open_file(path)
    page.locator(".ow-floors .row").first.wait_for()
    for details in page.locator("details summary").all():
        details.click()
    for scheme, width in (("light", 1280), ("dark", 500)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        assert findings(page) == []


def test_without_a_script_the_page_has_all_but_the_floors(open_file, path):
    page = open_file(path, java_script_enabled=False)
    expect(page.locator(".chain .still img")).to_be_visible()
    expect(page.locator(".graph svg")).to_be_visible()
    expect(page.get_by_role("button").first).to_be_hidden()
