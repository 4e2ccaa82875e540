import os
from pathlib import Path

import pytest

from data import fingerprint
from errors import UserError
from tests.data.sources.reading import silent


def of(path: Path) -> str:
    return fingerprint.of_files({path.name: path}, silent)


def changed(path: Path, at: int) -> str:
    """The hash once a few bytes are others, at the same size."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"another thing.")
    return of(path)


@pytest.mark.parametrize("at", [0, 150_000, 1_048_570, 3_000_000, 5_999_986])
def test_a_change_anywhere_in_what_people_write_is_seen(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(6_000_000))
    before = of(path)
    assert of(path) == before != changed(path, at)


def test_of_a_large_file_parts_are_read(tmp_path: Path) -> None:
    size = 64 << 20
    path = tmp_path / "a.jsonl"
    path.touch()
    os.truncate(path, size)
    places = (0, size // 17, size // 17 * 9, size * 16 // 17, size - 14)
    seen = [of(path), *(changed(path, at) for at in places)]
    assert len(set(seen)) == 6
    assert changed(path, size // 34) == seen[-1]  # which docs/data.md says
    os.truncate(path, size + 1)
    assert of(path) != seen[-1]


def test_a_name_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_text("text")
    with pytest.raises(UserError, match=r"the file .*/caf\\xe9\.txt is not UTF-8: rename it") as e:
        of(path)
    str(e.value).encode()
