import dataclasses
import gzip
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from data import cache, store, waiting
from data import tokenizer as T
from data.config import DataConfig
from data.prepare import Prepared, prepare, prepare_split
from data.sources import python_stdlib
from data.stream import Stream
from errors import UserError

ROOT = Path(cache.__file__).parent.parent
CONFIG = DataConfig(source="python_stdlib", sequence_length=256)


def test_the_description_says_what_was_prepared(stdlib: tuple[Path, Prepared]) -> None:
    description = json.loads(json.dumps(stdlib[1].description))
    python = ".".join(map(str, sys.version_info[:3]))
    assert description["dataset"] == f"python_stdlib (Python {python})"
    assert description["tokenizer"] == "bpe" and description["vocab_size"] == 4096
    assert 1 < description["gzip_bits_per_byte"] < 4 < description["uniform_bits_per_byte"] == 8
    assert description["train"]["tokens"] == stdlib[1].train.n_tokens
    assert description["eval"]["text_bytes"] == stdlib[1].eval.n_bytes
    assert description["train"]["fingerprint"] != description["eval"]["fingerprint"]


def test_the_tokenizer_fits_the_text(stdlib: tuple[Path, Prepared]) -> None:
    evaluated = stdlib[1].eval
    assert evaluated.n_bytes / evaluated.n_tokens > 3.4


def test_a_warm_start_is_quick_and_imports_nothing_slow(stdlib: tuple[Path, Prepared]) -> None:
    program = """
import sys, time
from data.config import DataConfig
from data.prepare import prepare
start = time.perf_counter()
prepared = prepare(DataConfig(source="python_stdlib", sequence_length=256))
print(time.perf_counter() - start)
print(prepared.train.fingerprint, prepared.eval.fingerprint)
slow = {"tensorflow_datasets", "tensorflow", "grain", "jax"} & set(sys.modules)
assert not slow, slow
"""
    before = {p: p.stat().st_mtime_ns for p in stdlib[0].rglob("*")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PODIUM_CACHE": str(stdlib[0]), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    seconds, train, evaluated = result.stdout.split()
    assert [train, evaluated] == [stdlib[1].train.fingerprint, stdlib[1].eval.fingerprint]
    assert float(seconds) < 3  # about 0.1 on an idle machine
    assert before == {p: p.stat().st_mtime_ns for p in stdlib[0].rglob("*")}


def test_builders_at_the_same_time_both_end_well(poems: Path, own_cache: Path) -> None:
    program = f"""
import sys
from data.config import DataConfig
from data.prepare import prepare
from data.sources import python_stdlib
from data.stream import Stream
config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir={str(poems)!r})
print("ready", flush=True)
sys.stdin.readline()
prepared = prepare(config)
print(Stream(prepared.train, 32, 4, 0).fingerprint, prepared.tokenizer.fingerprint)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    outputs = []
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        outputs.append(process.communicate(timeout=120)[0])
        assert process.returncode == 0
    assert outputs[0] == outputs[1]
    config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir=str(poems))
    here = prepare(config)
    assert outputs[0].split() == [
        Stream(here.train, 32, 4, 0).fingerprint,
        here.tokenizer.fingerprint,
    ]
    assert not [p for p in own_cache.rglob(".*") if p.is_dir()]  # no leftovers


def test_bytes_and_a_tokenizer_file(poems: Path, tmp_path: Path) -> None:
    in_bytes = prepare(DataConfig("tfds:poems/short", 32, tokenizer="byte", data_dir=str(poems)))
    assert in_bytes.train.n_tokens == in_bytes.train.n_bytes + 2 * in_bytes.train.n_documents
    T.train_bpe(["40 roses, né 1\n"], 280).save(tmp_path / "mine.json")
    mine = prepare(
        DataConfig(
            "tfds:poems/short", 32, tokenizer=str(tmp_path / "mine.json"), data_dir=str(poems)
        )
    )
    assert mine.tokenizer.fingerprint == T.load(tmp_path / "mine.json").fingerprint
    assert mine.train.n_bytes == in_bytes.train.n_bytes
    assert mine.train.n_tokens < in_bytes.train.n_tokens


def test_one_split_alone_with_a_tokenizer_at_hand(poems: Path, own_cache: Path) -> None:
    config = DataConfig("tfds:poems/short", 32, tokenizer="byte", data_dir=str(poems))
    alone, fingerprint = prepare_split(config, "validation", T.ByteTokenizer())
    assert len(list((own_cache / "stores").iterdir())) == 1  # the train split was left alone
    whole = prepare(config)
    assert alone.fingerprint == whole.eval.fingerprint
    assert fingerprint == whole.description["fingerprint"]


def test_progress_names_each_stage(poems: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir=str(poems))
    prepare(config, lambda *call: calls.append(call))
    assert list(dict.fromkeys(what for what, _, _ in calls)) == [
        "training the tokenizer: document",
        "tokenizing train: document",
        "tokenizing validation: document",
        "measuring gzip: kB",
    ]
    assert all(0 <= done <= total for _, done, total in calls)
    calls.clear()
    prepare(config, lambda *call: calls.append(call))
    assert calls == []


def test_damage_in_the_cache_is_one_line(poems: Path, own_cache: Path) -> None:
    config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir=str(poems))
    prepare(config)
    for name in ("tokenizer.json", "tokens.bin", "gzip.json"):
        damaged = next(own_cache.rglob(name))
        content = damaged.read_bytes()
        damaged.write_bytes(content[:-3])
        with pytest.raises(UserError, match=rf"{name}") as error:
            prepare(config)
        assert "\n" not in str(error.value)
        damaged.write_bytes(content)
    prepare(config)


def test_the_tokenizer_is_checked_before_anything_is_tokenized(
    poems: Path, own_cache: Path
) -> None:
    def check(tokenizer: T.Tokenizer) -> None:
        raise UserError(f"{tokenizer.vocab_size} ids do not suit")

    config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir=str(poems))
    with pytest.raises(UserError, match=r"^\d+ ids do not suit$"):
        prepare(config, check=check)
    assert not (own_cache / "stores").exists()
    seen: list[str] = []
    prepared = prepare(config, check=lambda tokenizer: seen.append(tokenizer.fingerprint))
    assert seen == [prepared.tokenizer.fingerprint]


def test_long_work_goes_on_being_told(poems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer, a batch, a hash and a compressor that take long do not keep silent."""
    calls: list[tuple[str, int, int]] = []
    told = threading.Condition()
    waited: list[str] = []

    def progress(*call: Any) -> None:
        with told:
            calls.append(call)
            told.notify_all()

    def slow(module: Any, name: str) -> None:
        plain = getattr(module, name)

        def waits(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                with told:  # until it was told of twice more
                    before = len(calls)
                    assert told.wait_for(lambda: len(calls) >= before + 2, timeout=30), name
                    waited.append(name)
            return plain(*args, **kwargs)

        monkeypatch.setattr(module, name, waits)

    monkeypatch.setattr(waiting, "EVERY_S", 0.001)
    slow(T, "train_bpe")
    slow(T.ByteLevelTokenizer, "encode_batch")
    slow(store, "_sha256")
    slow(gzip, "compress")
    config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir=str(poems))
    prepare(config, progress)
    assert set(waited) == {"train_bpe", "encode_batch", "_sha256", "compress"}
    assert all(0 <= done <= total for _, done, total in calls)


def test_stores_that_were_built_before_are_found_again(
    poems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fingerprints as first released: a change here makes every store on every disk stale."""
    for i in range(60):
        path = tmp_path / f"library/m{i % 7}/f{i}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(f"word{i}_{j}" for j in range(i, 40)) + "\n")
    library = dataclasses.replace(python_stdlib.read(tmp_path / "library"), python="3.11.7")
    monkeypatch.setattr(python_stdlib, "read", lambda: library)
    made = prepare(DataConfig("python_stdlib", 32, tokenizer="byte", train_split="train[:90%]"))
    assert made.description["fingerprint"] == "91d4033c683d4466679f108ffa6c9095"
    assert made.train.fingerprint == "931dcca8098da5acc061b4a50ba95b48"
    assert made.eval.fingerprint == "3dccfbc9a6867760cb52d83baee3e06c"
    made = prepare(DataConfig("tfds:poems/short", 32, tokenizer="byte", data_dir=str(poems)))
    assert made.train.fingerprint == "e4f4205df39f4341e68accba37ed5c8b"
    assert made.eval.fingerprint == "f19609f7462708d9d66bb3e9a3e024af"
