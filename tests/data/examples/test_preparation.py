"""Tasks in a config: what is left open is the task's own, and what cannot be is one line."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import tasks
from data.config import CorpusConfig, DataConfig, StageConfig
from data.examples.rates import RatesConfig
from data.filters.config import FilterConfig
from data.preparation import Prepared, prepare, prepare_split
from data.stream import stream_of
from errors import UserError

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """folder(name, train, val) -> a folder with those records as JSON lines."""

    def write(name: str, train: list[Any], val: list[Any]) -> Path:
        made = tmp_path / name
        made.mkdir()
        for split, records in (("train", train), ("val", val)):
            (made / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        return made

    return write


@pytest.fixture
def task_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """task_file(answer) -> the name of a task, whose file has that expression for targets."""
    home = tmp_path / "tasks"
    home.mkdir()
    monkeypatch.setattr(tasks, "__file__", str(home / "__init__.py"))
    monkeypatch.setattr(tasks, "__path__", [str(home)])

    def write(answer: str) -> str:
        (home / "own.py").write_text(
            "from data.tasks.task import Example, Task\n"
            "def task(argument):\n"
            f"    fields = lambda record: Example(record['question'], {answer})\n"
            "    return Task(source='files:x', fields=fields)\n"
        )
        monkeypatch.delitem(sys.modules, "data.tasks.own", raising=False)
        importlib.invalidate_caches()
        return "own"

    return write


def made_of(**values: Any) -> DataConfig:
    usual = {"sequence_length": 128, "packing": "best_fit", "tokenizer": "byte"}
    return DataConfig(**{"source": "python_stdlib", **usual, **values})


def questions(n: int, length: int = 3) -> list[dict[str, str]]:
    return [{"question": f"{i}" * length, "answer": "so"} for i in range(n)]


def test_source_and_splits_are_the_tasks_where_they_are_open() -> None:
    (one,) = made_of(task="gsm8k").corpora()
    assert (one.source, one.text_key) == ("files:gsm8k/*.jsonl.gz", "")
    assert (one.train_split, one.eval_split) == ("train.jsonl.gz", "test.jsonl.gz")
    (one,) = made_of(task="gsm8k", source="files:/a/*.gz", eval_split="x.gz").corpora()
    assert (one.source, one.train_split, one.eval_split) == (
        "files:/a/*.gz",
        "train.jsonl.gz",
        "x.gz",
    )
    (one,) = made_of(task="gsm8k", source="hf:/data/gsm8k").corpora()
    assert (one.train_split, one.eval_split) == ("train", "validation")
    paws, text = made_of(
        source="files:/a/*.gz",
        mixture={
            "paws": CorpusConfig(task="multitask:paws"),
            "text": CorpusConfig(source="python_stdlib"),
        },
    ).corpora()
    assert (paws.source, paws.train_split, paws.task) == (
        "files:/a/*.gz",
        "train.jsonl.gz",
        "multitask:paws",
    )
    assert (text.train_split, text.text_key, text.task) == ("train", "text", "")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"task": "gsm8"}, "task='gsm8': no such task; there is gsm8k"),
        ({"task": "multi30k:en-en"}, "task='multi30k:en-en': give two of en, de, fr"),
        ({"task": "multitask:pows"}, "task='multitask:pows': give one of"),
        ({"mixture": {"a": CorpusConfig(task="chat:x")}}, r"mixture\.a\.task='chat:x': it takes"),
        ({"task": "gsm8k", "packing": "concatenate"}, "packing='concatenate': an example is not"),
        ({"task": "gsm8k", "filters": FilterConfig(c4=True)}, "filters are of plain text"),
        ({"task": "gsm8k", "limit": -1}, "limit=-1: must not be negative"),
        ({"limit": 3}, "limit=3: it is of examples, and there is no task"),
        (
            {"task": "gsm8k", "stages": {"s": StageConfig(after_step=3, sequence_length=64)}},
            r"stages\.s\.sequence_length=64: rows of examples keep their length",
        ),
        (
            {
                "mixture": {"a": CorpusConfig(weight=2.0), "b": CorpusConfig()},
                "rates": RatesConfig(1),
            },
            r"rates\.temperature=1: weights follow from counts then",
        ),
    ],
)
def test_what_cannot_be(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        made_of(**values)


def test_too_long_and_limit_name_other_stores(folder: Folder) -> None:
    where = folder("gsm8k", [*questions(20), *questions(2, 300)], questions(4))
    values: dict[str, Any] = {
        "task": "gsm8k",
        "source": f"files:{where}/*.jsonl",
        "train_split": "train.jsonl",
        "eval_split": "val.jsonl",
    }

    def train(**more: Any) -> Prepared:
        return prepare(made_of(**values, **more))

    usual, cut, few = train(), train(too_long="cut"), train(limit=5)
    stores = [one.corpora[0].train for one in (usual, cut, few)]
    assert [store.n_documents for store in stores] == [20, 22, 5]
    assert len({store.path for store in stores}) == 3
    assert stores[0].manifest["counts"]["dropped: too long"] == 2
    assert stores[1].manifest["counts"]["cut: too long"] == 2
    evals = [one.corpora[0].eval for one in (usual, few)]
    assert [store.n_documents for store in evals if store] == [4, 4]  # a limit is of training
    assert prepare_split(made_of(**values, limit=5), None, usual.tokenizer)[0]["text"].n_documents
    assert usual.gzip_bits_per_byte == 0
    json.dumps(usual.description(made_of(**values)))


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_an_edited_task_names_other_products(
    folder: Folder, task_file: Callable[[str], str], kind: str
) -> None:
    """The store, and what the tokenizer is trained on; the task as it was finds its own again."""
    where = folder("own", questions(40), questions(4))

    def train() -> Prepared:
        values = {"source": f"files:{where}/*.jsonl", "tokenizer_vocab_size": 300}
        splits = {"train_split": "train.jsonl", "eval_split": "val.jsonl"}
        return prepare(made_of(task="own", tokenizer=kind, **values, **splits))

    found = []
    for answer in ("' so'", "' quite quite other'", "' so'"):
        task_file(answer)
        found.append(train())
    first, other, again = (one.corpora[0].train for one in found)
    assert first.path == again.path != other.path
    assert first.n_bytes < other.n_bytes
    known = [one.tokenizer.fingerprint for one in found]
    assert known[0] == known[2] and (known[0] == known[1]) == (kind == "byte")


def test_decontamination_is_by_the_task_that_is_evaluated(folder: Folder) -> None:
    """Two tasks of one file have other texts of it, one after the other."""
    captions = [{"en": f"one {i}", "de": f"ein {i} haus am see", "fr": f"un {i}"} for i in range(9)]
    where = folder("captions", captions, captions[:3])
    texts = folder("texts", [{"text": "who knows: ein 2 haus am see"}, {"text": "x"}], [])
    splits: dict[str, Any] = {"train_split": "train.jsonl", "eval_split": "val.jsonl"}

    def kept(task: str) -> int:
        config = made_of(
            mixture={
                "task": CorpusConfig(task=task, source=f"files:{where}/*.jsonl", **splits),
                "text": CorpusConfig(
                    source=f"files:{texts}/*.jsonl", train_split="train.jsonl", eval_split="none"
                ),
            },
            filters=FilterConfig(decontaminate=4),
        )
        return prepare(config).corpora[1].train.n_documents

    assert [kept(f"multi30k:{pair}") for pair in ("en-fr", "en-de", "en-fr")] == [2, 1, 2]


def test_rates_mix_examples(folder: Folder) -> None:
    """Long examples take more rows: those rows have as many examples as the rates say."""
    few = folder("few", [{"question": "x" * 90, "answer": "y"}] * 50, questions(3))
    many = folder("many", questions(450), questions(3))
    corpora = {
        name: CorpusConfig(
            task="gsm8k",
            source=f"files:{where}/*.jsonl",
            train_split="train.jsonl",
            eval_split="val.jsonl",
        )
        for name, where in (("few", few), ("many", many))
    }
    config = made_of(mixture=corpora, rates=RatesConfig(temperature=2))
    data = prepare(config)
    stream = stream_of(config, 8, data)
    assert sum(one.weight for one in data.corpora) == 10_000
    seen = np.zeros(2)
    for step in range(400):
        batch = stream.batch(step)
        seen += batch["segments"].max(axis=1) @ batch["source"]
    assert seen[1] / seen[0] == pytest.approx(3, rel=0.02)  # sqrt(450 / 50)
    shares = stream.stages[0].mixture.shares
    assert shares[0] / sum(shares) == data.corpora[0].weight / 10_000
    assert config.corpora()[0].weight == 1  # what a config says is not what follows from counts


def test_tasks_and_text_in_one_mixture(folder: Folder) -> None:
    where = folder("gsm8k", questions(40), questions(4))
    leak = {"text": "who knows: question 222 answer so"}
    texts = folder("texts", [{"text": "plain text " * 9}] * 30 + [leak], [{"text": "other text"}])
    splits: dict[str, Any] = {"train_split": "train.jsonl", "eval_split": "val.jsonl"}
    config = made_of(
        mixture={
            "task": CorpusConfig(task="gsm8k", source=f"files:{where}/*.jsonl", **splits),
            "text": CorpusConfig(source=f"files:{texts}/*.jsonl", **splits),
        },
        filters=FilterConfig(exact_duplicates=True, decontaminate=4),
    )
    data = prepare(config)
    task, text = data.corpora
    assert (task.train.n_documents, text.train.n_documents) == (40, 1)  # filters are of the text
    assert text.train.manifest["counts"]["dropped: overlap with what is evaluated on"] == 1
    batch = stream_of(config, 4, data).batch(0)
    learned = batch["weights"].sum(axis=1)
    padded = (batch["segments"] > 0).sum(axis=1)
    assert (learned[batch["source"][:, 1] == 1] == padded[batch["source"][:, 1] == 1]).all()
    assert (learned[batch["source"][:, 0] == 1] < padded[batch["source"][:, 0] == 1]).all()


def test_a_bad_record_is_named_by_its_line(folder: Folder) -> None:
    where = folder("gsm8k", [*questions(3), {"question": "?"}], questions(2))
    config = made_of(
        task="gsm8k",
        source=f"files:{where}/*.jsonl",
        train_split="train.jsonl",
        eval_split="val.jsonl",
    )
    with pytest.raises(UserError, match=r"^'train.jsonl:4' is no example of task 'gsm8k' \(it ha"):
        prepare(config)
