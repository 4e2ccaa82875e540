"""What was noted of files tells whether they are what was written."""

from pathlib import Path

import pytest

from data import checksums
from errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"content of {name}")
    checksums.write(tmp_path)
    return tmp_path


def test_any_flipped_bit_is_noticed(folder: Path) -> None:
    for name in ("a", "b", "files.json"):
        content = (folder / name).read_bytes()
        checksums.check(folder, checksums.read(folder))
        for place in range(len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 1
            (folder / name).write_bytes(damaged)
            if name == "files.json" and chr(content[place]).isspace():
                continue  # it means the same, or is no JSON any more
            with pytest.raises(UserError, match=rf"^{folder}/.* is .*: build it again by .*\Z"):
                checksums.check(folder, checksums.read(folder))
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("content", ["", "[]", "3", '{"a": 1}', '{"a": {"size": "x"}}', "{}}"])
def test_a_list_that_is_none_is_one_line(folder: Path, content: str) -> None:
    (folder / "files.json").write_text(content)
    with pytest.raises(UserError, match=rf"^{folder}/files.json is missing or damaged: "):
        checksums.read(folder)


def test_the_content_of_large_files_is_checked_on_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "_AT_ONCE", 3)
    (folder / "b").write_text("content of c")
    noted = checksums.read(folder)
    checksums.check(folder, noted)
    told: list[tuple[int, int]] = []
    with pytest.raises(UserError, match=rf"^{folder}/b is not what was written: "):
        checksums.check_all(folder, noted, lambda *call: told.append(call))
    assert told == [(0, 2), (1, 2)]
    (folder / "a").unlink()
    with pytest.raises(UserError, match=rf"^{folder}/a is not readable "):
        checksums.check_all(folder, noted)
