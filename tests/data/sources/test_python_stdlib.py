import re
import zipfile
from pathlib import Path

import pytest

from data.documents import Source
from data.sources import python_stdlib
from errors import UserError
from tests.data.sources.reading import checked, find, refused


@pytest.fixture(scope="module")
def source() -> Source:
    return find("python_stdlib")


@pytest.fixture(scope="module")
def splits(source: Source) -> dict[str, dict[str, str]]:
    """split -> id -> text."""
    return {
        split: {d.id: d.text for shard in source.shards(split) for d in checked(shard)}
        for split in ("train", "validation")
    }


def test_the_splits_are_the_library(splits: dict[str, dict[str, str]]) -> None:
    train, validation = splits["train"], splits["validation"]
    assert not set(train) & set(validation)
    assert dict(sorted((train | validation).items())) == python_stdlib.read().texts
    assert {"os.py", "json/decoder.py", "encodings/cp1252.py"} <= set(train | validation)
    assert not [i for i in train | validation if {"test", "tests"} & set(i.split("/")[:-1])]


def test_at_least_five_percent_is_held_out(splits: dict[str, dict[str, str]]) -> None:
    def size(texts: dict[str, str]) -> int:
        return sum(len(text.encode()) for text in texts.values())

    validation, whole = splits["validation"], splits["train"] | splits["validation"]
    assert 0.05 <= len(validation) / len(whole) < 0.12
    assert 0.05 <= size(validation) / size(whole) < 0.08


def test_no_near_duplicates_across_the_splits(splits: dict[str, dict[str, str]]) -> None:
    """Counted by the definition, not by the code that made the splits."""

    def shingles(text: str) -> set[int]:
        words = re.findall(r"\w+|[^\w\s]", text)
        return {hash(tuple(words[i : i + 5])) for i in range(max(1, len(words) - 4))}

    train = {name: shingles(text) for name, text in splits["train"].items()}
    nearest = 0.0
    for text in splits["validation"].values():
        a = shingles(text)
        for b in train.values():
            if min(len(a), len(b)) >= 0.3 * max(len(a), len(b)):
                shared = len(a & b)
                nearest = max(nearest, shared / (len(a) + len(b) - shared))
    assert 0.05 < nearest < 0.3  # not 0: the comparison does see what is alike


def test_families_stay_whole_and_large_ones_are_trained_on() -> None:
    family = {f"a/{i}.py": "x = 1\n" * 50 + f"y = {i}\n" for i in range(30)}
    texts = family | {f"b/{i}.py": " ".join(f"{i}_{j}" for j in range(40)) for i in range(100)}
    chosen = python_stdlib.choose_validation(texts)
    assert not chosen & set(family)
    assert len(chosen) >= 0.05 * len(texts)
    smaller = {i: t for i, t in texts.items() if i not in list(family)[2:]}
    assert python_stdlib.choose_validation(smaller, share=0.999) == set(smaller)


def make_library(root: Path) -> Path:
    for name, content in {
        "a.py": b"import b\n",
        "b.py": "# né\n".encode(),
        "package/__init__.py": b"\n \n",
        "package/c.py": b"x = 1\r\n",
        "package/tests/d.py": b"test\n",
        "site-packages/e.py": b"installed\n",
        "config-3.11-x86_64/f.py": b"machine\n",
        "_sysconfigdata__linux.py": b"machine\n",
        "latin.py": b"# caf\xe9\n",
        "data.txt": b"text\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_read_takes_source_alone_and_counts_what_it_cannot_decode(tmp_path: Path) -> None:
    files = python_stdlib.read(make_library(tmp_path))
    assert files.texts == {"a.py": "import b\n", "b.py": "# né\n", "package/c.py": "x = 1\r\n"}
    assert files.undecodable == 1


def test_the_fingerprint_follows_names_texts_and_version(tmp_path: Path) -> None:
    files = python_stdlib.read(make_library(tmp_path))
    other = [
        python_stdlib.Files(tmp_path, files.texts | {"a.py": "import c\n"}, files.python, 1),
        python_stdlib.Files(tmp_path, files.texts | {"z.py": "import b\n"}, files.python, 1),
        python_stdlib.Files(tmp_path, files.texts, "2.7.18", 1),
    ]
    assert len({f.fingerprint() for f in [files, *other]}) == 4
    again = python_stdlib.read(tmp_path)
    assert again.fingerprint() == files.fingerprint()


def test_a_library_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    library = tmp_path / "python311.zip"
    with zipfile.ZipFile(library, "w") as file:
        file.writestr("os.py", "x = 1\n")
    for root in (library, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"^the Python standard .*{root.name}.*\Z"):
            python_stdlib.read(root)
    with pytest.raises(UserError, match=r"^no Python source files under .*\Z"):
        python_stdlib.read(tmp_path)


def test_a_part_of_a_split_is_by_count(source: Source, splits: dict[str, dict[str, str]]) -> None:
    ids = [d.id for shard in source.shards("train[:10]+validation[-5:]") for d in checked(shard)]
    assert ids == [*list(splits["train"])[:10], *list(splits["validation"])[-5:]]
    refused(r"no documents for split 'test' .*train \([\d,]+ documents\)", source.shards, "test")


def test_splits_that_overlap_are_refused() -> None:
    match = r"of data\.source 'python_stdlib' share documents: make them apart"
    refused(match, find, "python_stdlib", train_split="all")
