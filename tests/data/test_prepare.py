import dataclasses
import gzip
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from data import building, cache, fingerprint, waiting
from data import tokenizer as T
from data.config import CorpusConfig, DataConfig
from data.filters import FilterConfig
from data.preparation import Prepared, prepare, prepare_split
from data.sources import python_stdlib
from data.stream import stream_of
from data.tokenizing import byte_level, training
from errors import UserError

ROOT = Path(cache.__file__).parent.parent
CONFIG = DataConfig(source="python_stdlib", sequence_length=256)


def test_the_description_says_what_was_prepared(stdlib: tuple[Path, Prepared]) -> None:
    prepared = stdlib[1]
    (corpus,) = prepared.corpora
    assert corpus.eval is not None and corpus.gzip is not None
    description = json.loads(json.dumps(prepared.description(CONFIG)))
    python = ".".join(map(str, sys.version_info[:3]))
    assert description["dataset"] == f"python_stdlib (Python {python})"
    assert description["tokenizer"] == "bpe" and description["vocab_size"] == 4096
    assert 1 < prepared.gzip_bits_per_byte == corpus.gzip.bits_per_byte < 4
    told = description["corpora"]["text"]
    assert told["train"]["tokens"] == corpus.train.n_tokens
    assert told["eval"]["text_bytes"] == corpus.eval.n_bytes
    assert told["train"]["fingerprint"] != told["eval"]["fingerprint"]
    assert told["train"]["counts"] == {"documents read": corpus.train.n_documents}
    assert told["padding_percent"] < 0.01


def test_the_tokenizer_fits_the_text(stdlib: tuple[Path, Prepared]) -> None:
    evaluated = stdlib[1].corpora[0].eval
    assert evaluated is not None and evaluated.n_bytes / evaluated.n_tokens > 3.4


def test_a_warm_start_is_quick_and_imports_nothing_slow(stdlib: tuple[Path, Prepared]) -> None:
    program = """
import sys, time
from data.config import DataConfig
from data.preparation import prepare
start = time.perf_counter()
prepared = prepare(DataConfig(source="python_stdlib", sequence_length=256))
print(time.perf_counter() - start)
print(prepared.corpora[0].train.fingerprint, prepared.corpora[0].eval.fingerprint)
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
    (corpus,) = stdlib[1].corpora
    assert corpus.eval is not None
    assert [train, evaluated] == [corpus.train.fingerprint, corpus.eval.fingerprint]
    assert float(seconds) < 3  # about 0.1 on an idle machine
    assert before == {p: p.stat().st_mtime_ns for p in stdlib[0].rglob("*")}


def test_builders_at_the_same_time_both_end_well(poems: Path, own_cache: Path) -> None:
    program = f"""
import sys
from data.config import DataConfig
from data.preparation import prepare
from data.sources import python_stdlib
from data.stream import stream_of
config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir={str(poems)!r})
print("ready", flush=True)
sys.stdin.readline()
prepared = prepare(config)
print(stream_of(config, 4, prepared).fingerprint(9), prepared.tokenizer.fingerprint)
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
        stream_of(config, 4, here).fingerprint(9),
        here.tokenizer.fingerprint,
    ]
    assert not [p for p in own_cache.rglob(".*") if p.is_dir()]  # no leftovers


def test_bytes_and_a_tokenizer_file(poems: Path, tmp_path: Path) -> None:
    config = DataConfig("tfds:poems/short", 32, tokenizer="byte", data_dir=str(poems))
    in_bytes = prepare(config).corpora[0].train
    assert in_bytes.n_tokens == in_bytes.n_bytes + 2 * in_bytes.n_documents
    T.train_bpe(["40 roses, né 1\n"], 280).save(tmp_path / "mine.json")
    prepared = prepare(dataclasses.replace(config, tokenizer=str(tmp_path / "mine.json")))
    assert prepared.tokenizer.fingerprint == T.load(tmp_path / "mine.json").fingerprint
    mine = prepared.corpora[0].train
    assert mine.n_bytes == in_bytes.n_bytes
    assert mine.n_tokens < in_bytes.n_tokens


def test_one_split_alone_with_a_tokenizer_at_hand(poems: Path, own_cache: Path) -> None:
    config = DataConfig("tfds:poems/short", 32, tokenizer="byte", data_dir=str(poems))
    alone, fingerprint = prepare_split(config, None, T.ByteTokenizer())
    assert len(list((own_cache / "stores").iterdir())) == 1  # the train split was left alone
    whole = prepare(config)
    assert whole.corpora[0].eval is not None
    assert alone["text"].fingerprint == whole.corpora[0].eval.fingerprint
    assert fingerprint == whole.fingerprint
    train, _ = prepare_split(config, "train", T.ByteTokenizer())
    assert train["text"].fingerprint == whole.corpora[0].train.fingerprint


def test_a_mixture_has_one_tokenizer_and_stores_of_its_own(poems: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"notes {name}\n")
    mixture = {
        "poems": CorpusConfig("tfds:poems/short", 3.0, data_dir=str(poems)),
        "notes": CorpusConfig(f"files:{tmp_path}/*.txt", 1.0, "a.txt", "none"),
    }
    config = DataConfig("python_stdlib", 32, tokenizer_vocab_size=300, mixture=mixture)
    prepared = prepare(config)
    poem, notes = prepared.corpora
    assert [(c.name, c.weight) for c in prepared.corpora] == [("poems", 3.0), ("notes", 1.0)]
    assert notes.eval is None and notes.gzip is None and poem.eval is not None
    assert notes.train.n_documents == 1 and notes.train.document_id(0) == "a.txt"
    assert prepared.eval_fingerprint == poem.eval.fingerprint
    assert prepared.gzip_bits_per_byte == poem.gzip.bits_per_byte  # type: ignore[union-attr]
    alone = dataclasses.replace(config, mixture={}, source="tfds:poems/short", data_dir=str(poems))
    assert prepare(alone).tokenizer.fingerprint != prepared.tokenizer.fingerprint


def test_a_damaged_store_is_built_again_on_request(poems: Path, own_cache: Path) -> None:
    config = DataConfig("tfds:poems/short", 32, tokenizer="byte", data_dir=str(poems))
    before = prepare(config).corpora[0].train
    damaged = before.path / "tokens-00000.bin"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{damaged} is not what was written: .* --rebuild"):
        prepare(config)
    assert prepare(config, rebuild=True).corpora[0].train.fingerprint == before.fingerprint
    prepare(config)


def flip(path: Path) -> bytes:
    """Flips a bit of a file's last entry; returns what it held."""
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    return content


def test_every_damaged_product_is_told_and_built_again_on_request(
    poems: Path, own_cache: Path
) -> None:
    config = DataConfig(
        "tfds:poems/short",
        32,
        tokenizer="byte",
        data_dir=str(poems),
        filters=FilterConfig(decontaminate=13),
    )
    prepare(config)
    for name in ("start.npy", "plan.json", "gzip.json", "ngrams.npy"):
        (damaged,) = own_cache.rglob(name)
        content = flip(damaged)
        if name == "ngrams.npy":  # is read where a store is built, and there alone
            prepare(config)
            for store in (own_cache / "stores").iterdir():
                cache.remove(store)
        line = rf"^{damaged} is not what was written: build it again by .* --rebuild"
        with pytest.raises(UserError, match=line):
            prepare(config)
        prepare(config, rebuild=True)
        assert damaged.read_bytes() == content
        prepare(config)


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/nope"])
def test_an_impossible_cache_is_one_line(
    poems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / where))
    config = DataConfig("tfds:poems/short", 32, tokenizer="byte", data_dir=str(poems))
    with pytest.raises(UserError, match=rf"^cannot write the cache at {tmp_path / where}/.*\Z"):
        prepare(config)


def test_progress_names_each_stage(poems: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir=str(poems))
    prepare(config, lambda *call: calls.append(call))
    assert list(dict.fromkeys(what for what, _, _ in calls)) == [
        "training the tokenizer: MB of text read",
        "tokenizing train: MB",
        "writing the store: million tokens",
        "tokenizing validation: MB",
        "measuring gzip: kB",
        "packing: million tokens",
    ]
    assert all(0 <= done <= total for _, done, total in calls)
    calls.clear()
    prepare(config, lambda *call: calls.append(call))
    assert calls == []


def test_damage_in_the_cache_is_one_line(poems: Path, own_cache: Path) -> None:
    config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir=str(poems))
    prepare(config)
    for name in ("tokenizer.json", "tokens-00000.bin", "gzip.json", "plan.json"):
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


def test_a_split_that_is_not_there_is_named_before_anything_is_tokenized(
    tmp_path: Path, own_cache: Path
) -> None:
    (tmp_path / "a.txt").write_text("some text")
    corpora = {
        "one": CorpusConfig(source=f"files:{tmp_path}/*.txt", train_split="all", eval_split="none"),
        "two": CorpusConfig(
            source=f"files:{tmp_path}/*.txt", train_split="a.txt", eval_split="b.txt"
        ),
    }
    config = dataclasses.replace(CONFIG, tokenizer="byte", mixture=corpora)
    with pytest.raises(UserError, match=r"split 'b\.txt'"):
        prepare(config)
    assert not (own_cache / "stores").exists()


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram"])
def test_an_empty_source_is_one_line(tmp_path: Path, own_cache: Path, kind: str) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").write_text("held out")
    config = DataConfig(f"files:{tmp_path}/*.txt", 32, "a.txt", "b.txt", tokenizer=kind)
    with pytest.raises(UserError, match=r"(no documents|no text) to train"):
        prepare(config)


def test_a_corpus_without_weight_leaves_the_tokenizer_alone(poems: Path, own_cache: Path) -> None:
    """It is there for a later stage, and may be added to a run under way."""
    source = f"files:{ROOT}/data/*.py"
    one = {"a": CorpusConfig(source=source, train_split="[a-r]*.py", eval_split="s*.py")}
    two = one | {"b": CorpusConfig(source=f"files:{ROOT}/*.md", weight=0.0, eval_split="none")}
    config = dataclasses.replace(CONFIG, tokenizer_vocab_size=300)
    first, second = (prepare(dataclasses.replace(config, mixture=m)) for m in (one, two))
    assert first.tokenizer.fingerprint == second.tokenizer.fingerprint
    assert len(list((own_cache / "tokenizers").iterdir())) == 1


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
    monkeypatch.setattr(building, "_WORTH", 1 << 40)  # no other process
    slow(training, "train_bpe")
    monkeypatch.setitem(training.TRAINERS, "bpe", training.train_bpe)
    slow(byte_level.ByteLevelTokenizer, "encode_batch")
    slow(fingerprint, "sha256")
    slow(gzip, "compress")
    config = DataConfig("tfds:poems/short", 32, tokenizer_vocab_size=300, data_dir=str(poems))
    prepare(config, progress)
    assert set(waited) == {"train_bpe", "encode_batch", "sha256", "compress"}
    assert all(0 <= done <= total for _, done, total in calls)


def test_stores_that_were_built_before_are_found_again(
    poems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of these fingerprints makes every store on every disk stale, and ends every run."""
    for i in range(60):
        path = tmp_path / f"library/m{i % 7}/f{i}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(f"word{i}_{j}" for j in range(i, 40)) + "\n")
    library = dataclasses.replace(python_stdlib.read(tmp_path / "library"), python="3.11.7")
    monkeypatch.setattr(python_stdlib, "read", lambda: library)
    config = DataConfig("python_stdlib", 32, tokenizer="byte", train_split="train[:90%]")
    prepared = prepare(config)
    (made,) = prepared.corpora
    assert made.eval is not None
    assert made.fingerprint == "91d4033c683d4466679f108ffa6c9095"
    assert made.train.fingerprint == "3a4b81ebca7882a6ca51b59f7a07b8c6"
    assert made.eval.fingerprint == "975119273723227c4e91aa3449c859c5"
    assert stream_of(config, 4, prepared).fingerprint(7) == "ddad93ead88c180f3c07cffe9363075d"
    (made,) = prepare(
        DataConfig("tfds:poems/short", 32, tokenizer="byte", data_dir=str(poems))
    ).corpora
    assert made.eval is not None
    assert made.train.fingerprint == "509dbf01afaa92428f388a10a4d819b9"
    assert made.eval.fingerprint == "fdd5e4adc692296019720e1663d2b549"
