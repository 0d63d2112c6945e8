"""What axe-core finds in a page; https://dequeuniversity.com/rules/axe lists its rules."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe

SERIOUS = ("serious", "critical")
OPTIONS = {"resultTypes": ["violations"], "iframes": False}


def findings(place: Any, within: str | None = None) -> list[str]:
    """The serious findings in a page or a frame, or in what a selector finds there: their rules and
    elements. A page does not answer for its frames: ask each of them."""
    found = Axe().run(place, context=within, options=OPTIONS).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in found
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]
