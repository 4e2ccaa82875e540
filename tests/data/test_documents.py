import pickle

import pytest

from data.documents import NO_METADATA, Document, line_of


def test_a_document_has_no_metadata_unless_it_is_given() -> None:
    document = Document("a", "text")
    assert (document.metadata, document.invalid) == ({}, 0)
    assert not document.metadata and dict(document.metadata) == {}
    assert pickle.loads(pickle.dumps(document)) == document


def test_no_metadata_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        NO_METADATA["a"] = 1  # type: ignore[index]
    with pytest.raises(KeyError):
        NO_METADATA["a"]


def test_the_line_of_an_error_is_short() -> None:
    assert line_of(ValueError("\n first\nsecond")) == "first"
    assert line_of(ValueError()) == "ValueError"
    assert len(line_of(ValueError("x" * 1000))) == 120
