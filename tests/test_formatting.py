import re

import pytest

from onnx_workbench import formatting


def test_a_table_without_rows_is_its_header():
    assert formatting.table([], ("op", "count")) == "op  count\n--  -----"


def test_markup_in_a_cell_or_header_stays_text():
    html = formatting.html_table([("<script>", "&")], ("<b>", ""))
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html


SENTENCE = "A reason that goes on and on. " * 9
ROW = (formatting.Code("x = self.attention(x)" * 8), SENTENCE, "4.20 ms", formatting.Percent(0.25))


class Found(formatting.Report):
    def _parts(self):
        yield SENTENCE
        yield formatting.Table([ROW], ("line", "why", "time", "share"), right=[2])
        yield formatting.Fold("More", [formatting.Code("pip install " + "x" * 200), "a note"])
        yield formatting.Fold("Even more", ["unseen"], text=False)


def test_text_stays_narrow_but_a_command_is_whole():
    *lines, command, note = repr(Found()).splitlines()
    assert max(map(len, lines)) <= formatting.WIDTH
    assert (command, note) == ("pip install " + "x" * 200, "a note")
    assert " ".join("".join(lines).split()).count("on and on") == 18
    assert "..." in "".join(lines), "code is cut, not wrapped"


def test_html_scrolls_wraps_prose_keeps_code_aligns_numbers_and_has_bars():
    html = Found()._repr_html_()
    cells = re.findall(r"<td style=\"([^\"]*)\">(.*?)</td>", html)
    (code, why, time, share) = cells
    assert '<div style="overflow-x:auto' in html.partition("<table")[0]
    assert "white-space:nowrap" in code[0]
    assert "white-space:pre;" in code[1]
    assert "nowrap" not in why[0]
    assert "text-align:right" in time[0]
    assert "text-align:right" in share[0]
    assert "width:25.0%" in share[1]
    assert html.count("<details>") == 2
    assert not re.search("<script|<style|class=", html), "a page may take them out"


def test_column_may_be_empty():
    assert formatting.table([("", "a")], ("", "b")) == "  b\n  -\n  a"


@pytest.mark.parametrize(("share", "width"), [(1.2, "100.0%"), (-0.1, "0.0%")])
def test_bar_is_never_wider_than_its_cell(share, width):
    assert f"width:{width}" in formatting.html_table([(formatting.Percent(share),)])
