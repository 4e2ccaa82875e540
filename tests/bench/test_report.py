"""The documents of results say what the files of results say."""

import re

from bench import report


def test_tables_are_those_of_the_files():
    texts = [document.read_text() for document in report.DOCUMENTS]
    for text in texts:
        assert report.rendered(text) == text, "run `python -m bench report`"
    named = [name for text in texts for name in re.findall(r"<!-- table: (\w+) -->", text)]
    assert sorted(named) == sorted(report.TABLES)


def test_a_table_without_a_file_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    text = "a\n<!-- table: step_gpu -->\nold\n<!-- end -->\nb\n"
    assert report.rendered(text) == (
        "a\n<!-- table: step_gpu -->\nNot measured.\n<!-- end -->\nb\n"
    )
