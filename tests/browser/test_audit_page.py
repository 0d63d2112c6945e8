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
    assert page.locator("h1").inner_text() == "Words: 3 findings"
    assert page.locator(".chips a").all_inner_texts() == [
        "✗ capture: 2 found",
        "✗ contract: 1 found",
    ]
    assert (
        card.locator("mark").inner_text().endswith("torch.tanh(self.words(tokens) + self.places)")
    )

    assert at_rest(page.locator(".ow-floors .body"))["height"] < 500, "the lists scroll"
    lit = page.locator(".ow-floors section").nth(4).locator(".row.marked")
    card.get_by_role("link", name="Follow this line").click()
    titles = page.locator(".graph a.lit text[text-anchor]").all_text_contents()
    assert {"Add", "Tanh"} <= set(titles)
    box = page.locator(".graph a[data-rows]", has_text="ReduceMean")
    box.click()
    expect(lit).to_have_count(1)
    expect(lit).to_contain_text("mean")
    expect(box).to_have_attribute("aria-current", "true")
    source = page.locator(".ow-floors section").first.locator(".row.marked")
    assert "return x.mean(1)" in source.inner_text()

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    card.get_by_role("button", name="Copy").click()
    expect(card.get_by_role("button")).to_have_text("Copied")
    assert (
        page.evaluate("navigator.clipboard.readText()") == card.locator(".repair span").inner_text()
    )

    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".chain .still img").is_visible()
    assert not page.locator(".ow-floors").is_visible()
    assert card.locator("details p").is_visible()


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
    assert page.locator(".chain .still img").is_visible()
    assert page.locator(".graph svg").is_visible()
    assert not page.get_by_role("button").first.is_visible()
