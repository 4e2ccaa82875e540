"""What is learned of packed rows is what is learned of each example alone."""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import building, cache, packers, plan, store
from data.config import DataConfig
from data.examples.rendering import Making
from data.rows import Batch
from data.stages import stages_of
from data.store import TokenStore
from data.stream import Corpus, Stream
from data.tokenizer import ByteTokenizer
from data.windows import Windows
from tests.data.shards import Records, Texts
from tests.data.tokenizing.kinds import KINDS, of_kind

BOS, EOS = ByteTokenizer.bos_id, ByteTokenizer.eos_id
L = 96
SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORDS = st.text("abcdé ", min_size=0, max_size=20)
ANSWERS = st.text("uvwxyz", min_size=1, max_size=12)
QUESTIONS = st.lists(st.tuples(WORDS, ANSWERS), min_size=1, max_size=30)
CHOICES = st.lists(st.tuples(WORDS, ANSWERS, ANSWERS), min_size=1, max_size=20)

Learned = Counter[tuple[tuple[int, ...], tuple[int, ...]]]
"""Sequences with their targets, 0 where these have no weight; and how often they are there."""


def built(
    folder: Path, records: Sequence[dict[str, Any]], task: str, length: int = L
) -> TokenStore:
    name = cache.key(records=json.dumps(records), task=task, length=length)
    path = folder / "examples" / name
    if path.is_dir():
        return TokenStore(path)
    return building.build(
        path, [Records(records)], ByteTokenizer(), {}, making=Making(task, length)
    )


def question(text: str, answer: str) -> dict[str, str]:
    return {"question": text, "answer": answer}


def alone(prompt: str, answer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """One example as the definition says it, without anything of ours."""
    inputs, targets = prompt.encode(), answer.encode()
    ids = [BOS, *inputs, *targets, EOS]
    learned = [0] * len(inputs) + [*targets, EOS]
    return tuple(ids), tuple(learned)


def in_rows(rows: Batch) -> list[list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """The segments of each row in their order: their tokens, and the targets with weight."""
    found: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = []
    for row in range(len(rows["tokens"])):
        segments = rows["segments"][row]
        found.append([])
        for segment in range(1, segments.max() + 1):
            here = np.flatnonzero(segments == segment)
            assert here.tolist() == list(range(here[0], here[-1] + 1))
            assert rows["positions"][row, here].tolist() == list(range(here.size))
            tokens, targets = (rows[name][row, here] for name in ("tokens", "targets"))
            assert tokens[1:].tolist() == targets[:-1].tolist()
            weights = rows["weights"][row, here]
            assert set(weights.tolist()) <= {0, 1}
            learned = np.where(weights > 0, targets, 0)
            found[-1].append(((*tokens.tolist(), int(targets[-1])), tuple(learned.tolist())))
    return found


def epoch(made: TokenStore, rows: int = 4, length: int = L) -> tuple[Stream, list[Batch]]:
    """A stream of a store, and the batches of its first epoch and a bit."""
    planned = plan.make(made, length, "best_fit")
    config = DataConfig(source="python_stdlib", sequence_length=length)
    stream = Stream([Corpus("text", made, planned)], stages_of(config, rows), 7, {})
    return stream, [stream.batch(step) for step in range(-(-planned.n_bins // rows))]


def one_epoch(made: TokenStore, length: int = L) -> Batch:
    planned = plan.make(made, length, "best_fit")
    _, batches = epoch(made, planned.n_bins, length)
    return batches[0]


@given(QUESTIONS)
@SETTINGS
def test_packed_is_one_by_one(tmp_path: Path, some: list[tuple[str, str]]) -> None:
    made = built(tmp_path, [question(*one) for one in some], "gsm8k")
    expected = Counter(alone(f"Question: {q}\nAnswer:", f" {a}") for q, a in some)
    rows = one_epoch(made)
    assert Counter(itertools.chain(*in_rows(rows))) == expected
    assert not rows["weights"][rows["segments"] == 0].any()
    assert not rows["bytes"][rows["weights"] == 0].any()
    learned = sum(len(a.encode()) + 2 for _, a in some)  # a space before it, EOS after it
    assert rows["weights"].sum() == made.n_learned == learned
    assert rows["bytes"].sum() == learned - len(some)
    assert made.n_bytes == sum(len(f"Question: {q}\nAnswer: {a}".encode()) for q, a in some)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_exact_with_every_tokenizer(tmp_path: Path, kind: str) -> None:
    """Also with one that puts a space before a text, which stands before no answer."""
    tokenizer = of_kind(kind)
    some = [("What is né?", "漢字 one"), ("", "x"), ("  a\n", "\u2581 b  c")]
    records = [question(*one) for one in some]
    path = tmp_path / "store"
    making = Making("gsm8k", 400)
    made = building.build(path, [Records(records)], tokenizer, {}, making=making)
    rows = one_epoch(made, 400)
    assert rows["bytes"].sum() == sum(len(f" {a}".encode()) for _, a in some)
    for document, (q, a) in enumerate(some):
        first, end = made.token_offsets[document : document + 2].tolist()
        prompt = [tokenizer.bos_id, *tokenizer.encode_batch([f"Question: {q}\nAnswer:"])[0]]
        answer = [*tokenizer.encode_inner([f" {a}"])[0], tokenizer.eos_id]
        assert made.read(first, end).tolist() == [*prompt, *answer]
        assert made.learned(first, end).tolist() == [False] * len(prompt) + [True] * len(answer)
        text = f"Question: {q}\nAnswer: {a}"
        assert made.byte_offsets[document + 1] - made.byte_offsets[document] == len(text.encode())


@given(CHOICES)
@SETTINGS
def test_pairs_are_never_cut_nor_parted(tmp_path: Path, some: list[tuple[str, str, str]]) -> None:
    records = [dict(zip(("prompt", "chosen", "rejected"), one, strict=True)) for one in some]
    made = built(tmp_path, records, "gsm8k_preferences", 2 * L)
    assert made.unit == 2 and made.n_documents == 2 * len(some)
    expected = Counter(
        tuple(alone(f"Question: {q}\nAnswer:", f" {a}") for a in answers) for q, *answers in some
    )
    windows = Windows(made, 2 * L, 3)
    scored = [windows.batch(i) for i in range(windows.n_batches)]
    for rows in (
        one_epoch(made, 2 * L),
        {k: np.concatenate([b[k] for b in scored]) for k in scored[0]},
    ):
        found: Counter[Any] = Counter()
        for segments in in_rows(rows):
            assert len(segments) % 2 == 0
            found.update(zip(segments[::2], segments[1::2], strict=True))
        assert found == expected
        assert rows["weights"].sum() == made.n_learned == windows.n_tokens
    # The rows of a budget are the first of the whole: what was said of these is said of them.
    few = Windows(made, 2 * L, 3, max_tokens=150)
    for index in range(few.n_batches):
        batch, whole = few.batch(index), windows.batch(index)
        there = batch["segments"] > 0
        for name in ("tokens", "targets", "positions", "segments", "weights"):
            assert np.array_equal(batch[name][there], whole[name][there])


@given(QUESTIONS, st.integers(1, 4), st.sampled_from([None, 60, 300]))
@SETTINGS
def test_windows_score_what_is_learned(
    tmp_path: Path, some: list[tuple[str, str]], batch_size: int, most: int | None
) -> None:
    made = built(tmp_path, [question(*one) for one in some], "gsm8k")
    expected = Counter(alone(f"Question: {q}\nAnswer:", f" {a}") for q, a in some)
    windows = Windows(made, L, batch_size, max_tokens=most)
    batches = [windows.batch(i) for i in range(windows.n_batches)]
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    found = Counter(itertools.chain(*in_rows(rows)))
    assert found <= expected and (found == expected or most is not None)
    assert rows["weights"].sum() == windows.n_tokens and rows["bytes"].sum() == windows.n_bytes
    assert windows.n_tokens > 0


@given(QUESTIONS, st.sampled_from([1, 2, 4]), st.integers(0, 9))
@SETTINGS
def test_the_stream_knows_no_processes_and_no_restarts(
    tmp_path: Path, some: list[tuple[str, str]], processes: int, step: int
) -> None:
    made = built(tmp_path, [question(*one) for one in some], "gsm8k")
    stream, _ = epoch(made)
    whole = stream.batch(step)
    part = 4 // processes
    fresh = epoch(TokenStore(made.path))[0]  # as of a process that starts here
    parts = [fresh.batch(step, slice(i * part, (i + 1) * part)) for i in range(processes)]
    for name, array in whole.items():
        assert np.array_equal(array, np.concatenate([one[name] for one in parts]))
    assert fresh.fingerprint(step) == stream.fingerprint(step)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8)), min_size=1, max_size=40))
def test_units_are_packed_whole_and_as_tightly_as_their_sums(sizes: list[tuple[int, int]]) -> None:
    lengths = np.array(sizes, np.int64)
    packed = packers.in_units(lengths.reshape(-1), 17, 2)
    sums = packers.best_fit(lengths.sum(axis=1), 17)
    assert packed.n_bins == sums.n_bins
    assert (packed.at[::2] + packed.length[::2] == packed.at[1::2]).all()
    assert (packed.at[::2] // 17 == (packed.at[1::2] + packed.length[1::2] - 1) // 17).all()
    assert (packed.document[::2] + 1 == packed.document[1::2]).all()
    assert sorted(packed.document.tolist()) == list(range(2 * len(sizes)))
    assert (packed.length == lengths.reshape(-1)[packed.document]).all()
    ends = packed.at + packed.length
    assert (ends[:-1] <= packed.at[1:]).all() and not packed.skipped.any()


def test_bits_do_not_see_where_a_file_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (store, building):
        monkeypatch.setattr(module, "FILE_TOKENS", 1000)
    records = [question("ab" * (i % 9), "xyz"[: 1 + i % 3]) for i in range(200)]
    made = built(tmp_path, records, "gsm8k")
    expected: list[bool] = []
    for one in records:
        _, learned = alone(f"Question: {one['question']}\nAnswer:", f" {one['answer']}")
        expected += [False, *(token > 0 for token in learned)]
    files = sorted(path.name for path in made.path.glob("learned-*.bin"))
    assert files == [f"learned-{i:05d}.bin" for i in range(-(-made.n_tokens // 1000))]
    assert len(files) > 3
    ends = (0, 1, 7, 8, 9, 998, 1000, 1001, 2999, made.n_tokens)
    for start, stop in itertools.combinations(ends, 2):
        assert made.learned(start, stop).tolist() == expected[start:stop]
    assert made.learned(5, 5).size == 0 == made.learned(1000, 1000).size


def test_plain_stores_are_what_they_were(tmp_path: Path, own_cache: Path) -> None:
    texts = [f"x = {i} é\n" * (i % 7) for i in range(200)]
    made = building.build(tmp_path / "store", [Texts(texts)], ByteTokenizer(), {"split": "train"})
    assert made.fingerprint == "e050e55049d4214e246ae973363ad56d"
    manifest = hashlib.sha256((made.path / "manifest.json").read_bytes()).hexdigest()
    assert manifest == "f2af9f0aa29375dfa92ef75411f5a85fdaaed58632efb9a90af941862d10c69a"
    assert made.unit == 1 and not made.is_examples
    assert made.n_learned == made.n_tokens - made.n_documents
    planned = plan.make(made, 64, "best_fit")
    assert planned.identity == "3d306558f6c2b4c8049b20f3b463e9c6"
    assert planned.path.name == "d9887dffaa929d381ac29dde1d0f2ea7"
