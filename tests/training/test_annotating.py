"""The pass: what it keeps is what the decoder says of the rows, however often it was killed."""

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from data import annotations, building, plan
from data.annotations import Annotations, Asked, Found, Making
from data.mixture import Mixture
from data.stages import Stage
from data.store import TokenStore
from data.stream import Corpus, Stream
from data.tokenizer import ByteTokenizer
from errors import UserError
from model import parameters
from model.config import ModelConfig
from sharding import means as computing
from tests.data.shards import Texts
from tests.training.sharded import MODEL, begin, host, mesh_of
from training import annotating
from training.annotating import annotate
from training.objectives.config import ObjectiveConfig
from training.objectives.distillation import IDS, LOG_PROBS, REST
from training.objectives.objective import REFERENCE, objective

L, K, ROWS = 16, 6, 4
TEACHER: ModelConfig = dataclasses.replace(MODEL, vocab_size=ByteTokenizer().vocab_size)
DISTILL = ObjectiveConfig("distill", teacher="x", top_k=K, temperature=2.0)
DPO = ObjectiveConfig("dpo", teacher="x")
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    texts = [f"text {i} " + "née " * (i % 7) for i in range(12)]
    store = building.build(tmp_path / "store", [Texts(texts)], ByteTokenizer(), {})
    return Corpus("verses", store, plan.make(store, L, "best_fit"))


@functools.cache
def params() -> Any:
    return host(begin(mesh_of(), TEACHER).state.params)


def ask(
    how: ObjectiveConfig, rows: Asked, progress: Any = lambda *_: None, **sizes: int
) -> Annotations:
    mesh = mesh_of(**sizes)
    outline = parameters.outline(TEACHER, computing.means(mesh, TEACHER))
    return annotate(how, {"model": "identity"}, lambda: outline, params, mesh, rows, progress)


def rows_of(corpus: Corpus, at_once: int = ROWS) -> Asked:
    bins = np.arange(corpus.plan.n_bins)[1::2]
    return annotations.of_bins("verses", corpus.store, corpus.plan, bins, at_once)


@functools.cache
def decode() -> Any:
    outline = parameters.outline(TEACHER)
    return jax.jit(lambda p, *rows: parameters.bind(outline, p)(*rows))


def said(store: TokenStore, piece: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The decoder's log-probabilities of all ids, in a document alone; and its targets."""
    first, length = piece
    tokens = store.read(first, first + length + 1).astype(np.int32)
    row = np.zeros((1, L), np.int32)
    row[0, :length] = tokens[:-1]
    segments = (np.arange(L) < length).astype(np.int32)[None]
    logits = decode()(params(), row, np.arange(L, dtype=np.int32)[None], segments)
    return np.asarray(logits, np.float64)[0, :length, : TEACHER.vocab_size], tokens[1:]


@pytest.mark.parametrize(
    "sizes",
    [{}, pytest.param(dict(context=2, tensor=2, fsdp=2), marks=SLOW)],
    ids=["one", "context2xtensor2xfsdp2"],
)
@pytest.mark.parametrize("how", [DISTILL, DPO], ids=lambda how: how.name)
def test_each_position_is_what_its_document_says(
    corpus: Corpus, how: ObjectiveConfig, sizes: dict[str, int]
) -> None:
    asked = rows_of(corpus)
    found = ask(how, asked, **sizes)
    batch = {"tokens": np.zeros((asked.bins.size, L), np.int32)}
    found.fill(batch, np.arange(asked.bins.size), asked.bins * L)
    checked = 0
    for row, number in enumerate(asked.bins.tolist()):
        for column, first, length in zip(
            *(x.tolist() for x in corpus.plan.pieces(np.array([number * L]), L)[1:]), strict=True
        ):
            if corpus.store.read(first, first + 1)[0] != corpus.store.bos_id:
                continue  # the rest of a longer one, whose beginning is elsewhere
            here = slice(column, column + length)
            logits, targets = said(corpus.store, (first, length))
            checked += length
            if how is DPO:
                log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
                expected = np.take_along_axis(log_p, targets[:, None].astype(int), -1)[:, 0]
                np.testing.assert_allclose(batch[REFERENCE][row, here], expected, atol=2e-5)
                continue
            log_p = logits / 2 - np.log(np.exp(logits / 2).sum(-1, keepdims=True))
            order = np.sort(-log_p, -1)
            np.testing.assert_allclose(batch[LOG_PROBS][row, here], -order[:, :K], rtol=1e-3)
            np.testing.assert_allclose(
                batch[REST][row, here], np.log(np.exp(-order[:, K:]).sum(-1)), rtol=2e-3
            )
            of_ids = np.take_along_axis(log_p, batch[IDS][row, here], -1)
            np.testing.assert_allclose(of_ids, -order[:, :K], atol=1e-5)
    assert checked > 40
    assert found.about["sums"]["positions"] > 0
    if how is DISTILL:
        assert batch[IDS].dtype == np.int32
        size = asked.bins.size * L * (4 * K + 2)
        assert found.n_bytes == size  # two bytes an id, two a logarithm, two for the rest


class Killed(Exception):
    pass


def test_what_a_killed_pass_has_done_is_not_done_again(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = rows_of(corpus, 2)
    assert len(asked.batches) >= 4
    calls: list[int] = []
    make_score = annotating.make_score

    def counting(*args: Any) -> Any:
        score = make_score(*args)

        def one(params: Any, batch: Any) -> Any:
            calls.append(1)
            return score(params, batch)

        return one

    monkeypatch.setattr(annotating, "make_score", counting)

    def killed_at_third(what: str, done: int, total: int) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        ask(DISTILL, asked, killed_at_third)
    assert len(calls) == 2
    after = ask(DISTILL, asked)
    assert len(calls) == len(asked.batches)
    ask(DISTILL, asked)  # it is there
    assert len(calls) == len(asked.batches)
    other = dataclasses.replace(DISTILL, top_k=K - 1)
    assert ask(other, asked).path != after.path


def test_a_killed_pass_goes_on_with_another_number_of_rows_at_once(corpus: Corpus) -> None:
    whole = ask(DPO, rows_of(corpus, 3))
    expected = np.load(whole.path / f"{REFERENCE}.npy")
    shutil.rmtree(whole.path)

    def killed_at_third(what: str, done: int, total: int) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        ask(DPO, rows_of(corpus, 2), killed_at_third)
    again = ask(DPO, rows_of(corpus, 3))
    assert again.path == whole.path
    np.testing.assert_allclose(np.load(again.path / f"{REFERENCE}.npy"), expected, atol=1e-6)


@pytest.mark.parametrize("moment", ["asking about verses: rows", "joining annotations: part"])
def test_two_make_them_at_once(corpus: Corpus, moment: str) -> None:
    """Whoever ends first takes the parts away; the other goes on with what is there."""
    of_other: list[Annotations] = []

    def overtaken(what: str, done: int, total: int) -> None:
        if what == moment and done and not of_other:
            of_other.append(ask(DPO, rows_of(corpus, 2)))

    made = ask(DPO, rows_of(corpus, 2), overtaken)
    assert of_other and made.path == of_other[0].path
    assert made.about == of_other[0].about
    assert [path.name for path in made.path.parent.iterdir()] == [made.path.name]


def test_what_is_of_other_rows_is_not_joined(corpus: Corpus) -> None:
    asked = rows_of(corpus, 2)
    path = annotations.address(asked, kind="x")
    making = Making(path, asked)
    for number in range(len(asked.batches)):
        making.add(number, Found({"x": np.zeros((2, L))}, {}))
    making.add(1, Found({"x": np.zeros((1, L))}, {}))
    with pytest.raises(ValueError, match="is not of rows 2 to 4"):
        making.publish({}, lambda *_: None)
    assert not path.exists()


def test_damage_is_told(corpus: Corpus) -> None:
    found = ask(DPO, rows_of(corpus))
    file = found.path / f"{REFERENCE}.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{REFERENCE}.npy is not what was written"):
        ask(DPO, rows_of(corpus))


def test_the_stream_shows_them_beside_its_rows(corpus: Corpus) -> None:
    """And what is learned from all of a teacher's tokens is what it says live."""
    stream = Stream([corpus], [Stage(0, L, ROWS, Mixture([1]))], 7, {})
    (bins,) = stream.bins(3)
    assert bins.size == min(3 * ROWS, corpus.plan.n_bins)
    how = dataclasses.replace(DISTILL, top_k=TEACHER.vocab_size - 1)
    found = ask(how, annotations.of_bins("x", corpus.store, corpus.plan, bins, ROWS))
    annotated = stream.annotated([found])
    assert annotated.fingerprint(3) == stream.fingerprint(3)
    batch = annotated.batch(2)
    plain = stream.batch(2)
    for name, array in plain.items():
        np.testing.assert_array_equal(batch[name], array)
    half = annotated.batch(2, slice(2, 4))
    np.testing.assert_array_equal(half[LOG_PROBS], batch[LOG_PROBS][2:])

    outline = parameters.outline(TEACHER)
    student = jax.tree.map(
        lambda x: x + 0.02 * np.cos(np.arange(x.size)).reshape(x.shape), params()
    )
    sums = []
    for teacher, rows in ((None, batch), (outline, plain)):
        asked = objective(how, teacher=teacher)
        of = jax.jit(
            lambda p, t, b, asked=asked: asked.sums(parameters.bind(outline, p), b, mesh_of(), t)[1]
        )
        sums.append(host(of(student, params(), rows)))
    for name, value in sums[1].items():
        np.testing.assert_allclose(sums[0][name], value, rtol=2e-3, err_msg=name)
    assert sums[1]["distill_loss"] > 1e-3 * sums[1]["tokens"]


def test_no_rows_are_no_work(corpus: Corpus) -> None:
    nothing = annotations.of_bins("x", corpus.store, corpus.plan, np.zeros(0, np.int64), ROWS)
    assert ask(DPO, nothing).n_bytes == 0
