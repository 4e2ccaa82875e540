"""A store is the same to the byte, however many processes build it and whatever kills them."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import building, cache, chunks
from data.filters import overlap
from data.filters.config import FilterConfig
from data.tokenizer import ByteTokenizer, load, train_bpe
from errors import UserError
from tests.data.shards import Texts, cut
from tests.running import ROOT

TEXTS = [f"doc {i} " + "some téxt\n" * (i % 90) for i in range(4000)]


def content(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and batches of a few documents."""
    monkeypatch.setattr(chunks, "CHUNK", 20_000)
    monkeypatch.setattr(chunks, "_BATCH", 3_000)


def test_the_chunks_do_not_show_in_the_store(tmp_path: Path, small: None) -> None:
    some = TEXTS[:500]
    whole = building.build(tmp_path / "whole", [Texts(some)], ByteTokenizer(), {})
    for shards in (2, 7):
        parts = building.build(tmp_path / f"{shards}", cut(some, shards), ByteTokenizer(), {})
        assert content(parts.path) == content(whole.path)
    assert list(tmp_path.glob(".*")) == []  # nothing is left of the building


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_build_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    bpe = train_bpe(TEXTS[:50], 400)
    monkeypatch.setattr(building, "_WORTH", 1)
    one = building.build(tmp_path / "one", cut(TEXTS, 5), bpe, {}, processes=1)
    told: list[tuple[str, int, int]] = []
    many = building.build(
        tmp_path / "many", cut(TEXTS, 5), bpe, {}, lambda *a: told.append(a), processes
    )
    assert content(many.path) == content(one.path)
    done = [now for what, now, _ in told if what.startswith("tokenizing")]
    assert done == sorted(done)


def test_a_worker_that_dies_is_told_and_the_rest_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_WORTH", 1)
    kill = tmp_path / "kill"
    kill.touch()
    # Its first batches are of 1024 documents: so it dies within a chunk.
    shards = [Texts(TEXTS[:3000], "first", 0, 2500, kill), Texts(TEXTS[3000:], "second", 3000)]
    path = tmp_path / "store"
    with pytest.raises(UserError, match=r"ended \(signal 9, out of memory\?\) at first: the same"):
        building.build(path, shards, ByteTokenizer(), {}, processes=2)
    assert not path.exists() and not kill.exists()
    left = {p.name: p.stat().st_mtime_ns for p in cache.building_folder(path).glob("*.npz")}
    built = building.build(path, shards, ByteTokenizer(), {}, processes=2)
    again = building.build(tmp_path / "again", [Texts(TEXTS)], ByteTokenizer(), {})
    assert content(built.path) == content(again.path)
    assert len(left) <= 1  # "second" may have been ready


def test_a_build_goes_on_after_its_last_chunk(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(Texts):
        def documents(self, start: int = 0):
            started.append(start)
            for document, read in super().documents(start):
                if document.id == stop:
                    raise UserError("stopped")
                yield document, read

    started: list[int] = []
    stop = "d300"
    with pytest.raises(UserError, match="stopped"):
        building.build(tmp_path / "store", [Stopping(TEXTS[:500])], ByteTokenizer(), {})
    there = sorted(cache.building_folder(tmp_path / "store").glob("*.npz"))
    assert len(there) > 3
    there[-1].write_bytes(there[-1].read_bytes()[:100])  # the machine went down: not flushed
    stop = ""
    built = building.build(tmp_path / "store", [Stopping(TEXTS[:500])], ByteTokenizer(), {})
    assert started[0] == 0 and 0 < started[1] < 300
    whole = building.build(tmp_path / "whole", [Texts(TEXTS[:500])], ByteTokenizer(), {})
    assert content(built.path) == content(whole.path)


@pytest.mark.parametrize("member", ["tokens", "token", "ids"])
def test_a_damaged_chunk_is_named_and_made_again(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    def damage(*args: Any) -> None:
        """Before the chunks are joined: a byte of what one of them holds is flipped."""
        path = chunks.path_of(cache.building_folder(tmp_path / "store"), 0, 1)
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{member}.npy")
        content[info.header_offset + 200] ^= 1  # behind the headers of the member and the array
        path.write_bytes(content)
        join(*args)

    join = building._join
    monkeypatch.setattr(building, "_join", damage)
    with pytest.raises(UserError, match=r"000000-000001\.npz was damaged and is deleted: the same"):
        building.build(tmp_path / "store", [Texts(TEXTS[:500])], ByteTokenizer(), {})
    assert not (tmp_path / "store").exists()
    monkeypatch.setattr(building, "_join", join)
    built = building.build(tmp_path / "store", [Texts(TEXTS[:500])], ByteTokenizer(), {})
    whole = building.build(tmp_path / "whole", [Texts(TEXTS[:500])], ByteTokenizer(), {})
    assert content(built.path) == content(whole.path)


def test_a_build_that_another_one_overtakes_ends_well(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overtaken(Texts):
        def documents(self, start: int = 0):
            for document, read in super().documents(start):
                if document.id == "d300" and not (tmp_path / "store").exists():
                    building.build(tmp_path / "store", [Texts(self.texts)], ByteTokenizer(), {})
                yield document, read

    built = building.build(tmp_path / "store", [Overtaken(TEXTS[:500])], ByteTokenizer(), {})
    whole = building.build(tmp_path / "whole", [Texts(TEXTS[:500])], ByteTokenizer(), {})
    assert content(built.path) == content(whole.path)


BUILD = """
import sys
from pathlib import Path
from data import building, chunks
from data.tokenizer import ByteTokenizer
from tests.data.shards import cut
from tests.data.test_building import TEXTS
building._WORTH = 1
building.build(Path(sys.argv[1]), cut(TEXTS * 20, 4), ByteTokenizer(), {}, processes=2)
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    draw = random.Random(5)

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", BUILD, str(tmp_path / name)]
        return subprocess.Popen(command, cwd=ROOT, start_new_session=True)

    began = time.monotonic()
    assert start("whole").wait(120) == 0
    whole = time.monotonic() - began
    kills = 0
    for _ in range(4):
        process = start("killed")
        try:
            process.wait(draw.uniform(0.1, 0.9) * whole)
        except subprocess.TimeoutExpired:
            process.kill()  # alone: its workers are to notice
            process.wait()
            kills += 1
    assert kills > 0
    assert start("killed").wait(120) == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_workers_end_when_who_started_them_is_gone(tmp_path: Path) -> None:
    program = BUILD.replace("TEXTS * 20", "TEXTS * 400")
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)

    def workers() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
                command = (path.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if int(fields[3]) == process.pid and b"data.worker" in command:  # of its session
                found.append(int(path.parent.name))
        return found

    deadline = time.monotonic() + 60
    while not (started := workers()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(started) >= 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers() == []


def test_a_full_disk_is_one_line_and_nothing_is_half_written(tmp_path: Path) -> None:
    program = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n" + BUILD
    )
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert f"no space left at {tmp_path}" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "store").exists()
    assert list(cache.building_folder(tmp_path / "store").glob("*.npz")) == []


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    class Wide(ByteTokenizer):
        vocab_size = 70_000
        bos_id = 69_998
        eos_id = 69_999

        def __init__(self) -> None:
            self.token_bytes = np.array([1] * 256 + [0] * (70_000 - 256), np.int32)

    opened = building.build(tmp_path / "s", [Texts(["abc"])], Wide(), {})
    assert opened.read(0, 5).dtype == np.uint32
    assert opened.read(0, 5).tolist() == [69_998, 97, 98, 99, 69_999]


def test_no_documents_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no documents .*'train'.*: there are none; .*\Z"):
        building.build(tmp_path / "s", [Texts([])], ByteTokenizer(), {"split": "train"})
    with pytest.raises(UserError, match=r"^no documents "):
        building.build(tmp_path / "s", [], ByteTokenizer(), {"split": "train"})


def test_what_a_tokenizer_may_not_do(tmp_path: Path) -> None:
    class Lossy(ByteTokenizer):
        def encode_batch(self, texts):
            return [np.array([65], np.uint32) for _ in texts]

    class Outside(ByteTokenizer):
        def encode_batch(self, texts):
            return [np.array([258], np.uint32) for _ in texts]

    with pytest.raises(UserError, match=r"^the tokenizer loses text of document 'd0'"):
        building.build(tmp_path / "s", [Texts(["ab"])], Lossy(), {})
    with pytest.raises(UserError, match=r"gives id 258 in document 'd0', outside its vocabulary"):
        building.build(tmp_path / "s", [Texts(["ab"])], Outside(), {})
    assert not (tmp_path / "s").exists()


def test_an_empty_document_is_bos_and_eos(tmp_path: Path) -> None:
    built = building.build(tmp_path / "s", [Texts([""])], ByteTokenizer(), {})
    assert built.read(0, built.n_tokens).tolist() == [256, 257]


FILTERS = FilterConfig(
    gopher=True, mask=("email",), exact_duplicates=True, near_duplicates=0.8, decontaminate=13
)


def filtered_texts() -> list[str]:
    """Of each ten, some are copies, too short, or overlap with what is evaluated on."""
    texts: list[str] = []
    for i in range(300):
        own = "the words of " + " ".join(f"word{i}q{j}" for j in range(60))
        first = texts[i - i % 10] if i % 10 else own
        texts.append(
            {
                1: f"short {i}",
                2: first,
                3: f"{first} and one more",
                4: f"{own} {EVALUATED}",
                5: f"{own} write to jane{i}@example.com",
            }.get(i % 10, own)
        )
    return texts


EVALUATED = " ".join(f"held{i}" for i in range(20))


@pytest.mark.parametrize("processes", [1, 2])
def test_filters_leave_out_and_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(building, "_WORTH", 1)
    overlap.save([EVALUATED], 13, tmp_path / "ngrams.npy")
    texts = filtered_texts()
    built = building.build(
        tmp_path / "store",
        cut(texts, 4),
        ByteTokenizer(),
        {},
        processes=processes,
        filters=FILTERS,
        overlaps=tmp_path / "ngrams.npy",
    )
    assert built.manifest["counts"] == {
        "documents read": 300,
        "dropped: exact duplicate": 30,
        "dropped: gopher, words outside 50 to 100,000": 30,
        "dropped: near duplicate": 30,
        "dropped: overlap with what is evaluated on": 30,
        "masked: email": 30,
    }
    expected = {
        f"d{i}": text.replace(f"jane{i}@example.com", "<EMAIL>")
        for i, text in enumerate(texts)
        if i % 10 not in (1, 2, 3, 4)
    }
    seen = {}
    for i in range(built.n_documents):
        ids = built.read(*built.token_offsets[i : i + 2].tolist())[1:-1]
        seen[built.document_id(i)] = bytes(ids.tolist()).decode()
        assert built.byte_offsets[i + 1] - built.byte_offsets[i] == ids.size
    assert seen == expected and list(seen) == list(expected)


def test_a_long_document_and_a_long_join_are_told(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for a build has to hear that it goes on."""
    long = Texts(["a word and another " * 60_000])
    recipe = chunks.Recipe(tmp_path, tmp_path / "none")
    spoken = list(chunks.write(recipe, chunks.Tools(recipe, ByteTokenizer()), 0, long))
    assert len(spoken) > 4  # parts of a quarter of a million characters, the batch, the end
    told: list[tuple[str, int, int]] = []
    once = FilterConfig(exact_duplicates=True)
    shard, say = Texts(TEXTS[:500]), lambda *call: told.append(call)
    building.build(tmp_path / "s", [shard], ByteTokenizer(), {}, say, filters=once)
    done = [now for said, now, _ in told if said == "looking for exact duplicates: chunk"]
    assert len(done) > 5 and done == sorted(done)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", None])
def test_damaged_ngrams_are_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ngrams.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path} is missing or damaged: .*\Z"):
        building.build(
            tmp_path / "store", cut(TEXTS, 1), ByteTokenizer(), {}, filters=FILTERS, overlaps=path
        )


@pytest.mark.parametrize("fails", [False, True])
def test_builders_of_one_pid_save_their_tokenizers_in_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Containers of several hosts often have pid 1 each."""

    class Slow(ByteTokenizer):
        def save(self, path: Path) -> None:
            path.write_text("half")
            building._save_tokenizer(ByteTokenizer(), tmp_path / "tokenizer.json")
            assert path.read_text() == "half"
            if fails:
                raise KeyError
            super().save(path)

    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(KeyError) if fails else contextlib.nullcontext():
        building._save_tokenizer(Slow(), tmp_path / "tokenizer.json")
    assert load(tmp_path / "tokenizer.json").fingerprint == ByteTokenizer().fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


JOIN = """
from data import fingerprint
def hang(path):
    print("joining", flush=True)
    time.sleep(60)
fingerprint.sha256 = hang
"""


def test_builds_killed_as_they_join_leave_one_copy_at_most(tmp_path: Path) -> None:
    stores = tmp_path / "stores"
    program = BUILD.replace("import sys\n", "import sys, time\n" + JOIN)
    for _ in range(2):
        command = [sys.executable, "-c", program, str(stores / "store")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout and process.stdout.readline() == b"joining\n"
            process.kill()
        assert len(list(stores.glob(".store.*.partial"))) == 1
    command = [sys.executable, "-c", BUILD, str(stores / "store")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    assert [path.name for path in stores.iterdir()] == ["store"]


def test_all_left_out_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all 5 are left out by filters"):
        building.build(
            tmp_path / "s", [Texts(TEXTS[:5])], ByteTokenizer(), {}, filters=FilterConfig(c4=True)
        )
