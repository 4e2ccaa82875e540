"""How every shipped run is split, against the files that somebody has looked at."""

import pytest

from tests import goldens


def test_every_place_has_its_file_and_no_other():
    files = {goldens.file(*place) for place in goldens.places()}
    assert files == set(goldens.FOLDER.glob("*.txt"))


@pytest.mark.parametrize("place", goldens.places(), ids=".".join)
def test_it_is_split_as_the_file_says(place):
    assert goldens.text(*place) == goldens.file(*place).read_text(), (
        "if that is meant: `python -m tests.goldens` writes the files and shows what changed"
    )
