"""Tables in Markdown."""

from pocketvit.tables import markdown_table


def test_a_markdown_table_aligns_numbers_and_keeps_its_bars():
    rows = [{"name": "a|b", "n": "12"}, {"name": "c\nd", "n": "—"}]
    assert markdown_table(rows, ["name", "n"]) == "| name | n |\n| --- | ---: |\n| a\\|b | 12 |\n| c d | — |"
    assert markdown_table([], ["name"]) == "| name |\n| --- |"
