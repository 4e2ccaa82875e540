"""The document of results says what the files of results say."""

import re

from bench import report


def test_tables_are_those_of_the_files():
    text = report.DOCUMENT.read_text()
    assert report.rendered(text) == text, "run `python -m bench report`"
    assert set(re.findall(r"<!-- table: (\w+) -->", text)) == set(report.TABLES)


def test_a_table_without_a_file_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    text = "a\n<!-- table: step_gpu -->\nold\n<!-- end -->\nb\n"
    assert report.rendered(text) == (
        "a\n<!-- table: step_gpu -->\nNot measured.\n<!-- end -->\nb\n"
    )
