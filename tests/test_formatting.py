import pytest

from onnx_workbench import formatting


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1, "1.00 s"),
        (75.04, "75.0 s"),
        (0.0042, "4.20 ms"),
        (999.6e-6, "1.00 ms"),
        (5e-9, "5.00 ns"),
    ],
)
def test_a_duration_has_three_digits_and_the_unit_that_fits(value, words):
    assert formatting.seconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (2_147_483_648, "2.15 GB")]
)
def test_a_size_has_three_digits_and_a_decimal_unit(value, words):
    assert formatting.size(value) == words


def test_a_table_without_rows_is_its_header():
    assert formatting.table([], ("op", "count")) == "op  count\n--  -----"


def test_a_row_of_another_length_is_no_table():
    with pytest.raises(ValueError, match="shorter"):
        formatting.table([("a", "b"), ("a",)])


def test_markup_in_a_cell_or_header_stays_text():
    html = formatting.html_table([("<script>", "&")], ("<b>", ""))
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
