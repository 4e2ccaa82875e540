"""The stream is a function: of a step, whatever the rows asked for, the stages and the history."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import plan
from data.mixture import Mixture
from data.stages import Stage, skipped
from data.stream import Corpus, Stream, Visit
from tests.data.memory import MemoryStore

BIN = 12
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Stream, int]:
    """A stream of random corpora and stages, and a number of its steps."""
    packing = draw(st.sampled_from(["concatenate", "best_fit"]))
    corpora = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        store = MemoryStore(draw(LENGTHS), name)
        corpora.append(Corpus(name, store, plan.make(store, BIN, packing)))  # type: ignore[arg-type]
    stages, step = [], 0
    for _ in range(draw(st.integers(1, 4))):
        weights = draw(
            st.lists(st.integers(0, 5), min_size=len(corpora), max_size=len(corpora)).filter(any)
        )
        length = draw(st.sampled_from([2, 3, 4, 6, 12]))
        stages.append(Stage(step, length, draw(st.integers(1, 5)), Mixture(weights)))
        step += draw(st.integers(1, 12))
    return Stream(corpora, stages, draw(st.integers(0, 2**62)), {}), step


@pytest.fixture(autouse=True, scope="module")
def cache_of_all_examples(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODIUM_CACHE", str(tmp_path_factory.mktemp("plans")))
        yield


@pytest.fixture(autouse=True)
def own_cache() -> None:
    """Plans are kept over examples: they differ by what they are of."""


def corpus_of(stream: Stream, batch: dict[str, np.ndarray], row: int) -> Corpus:
    return stream.corpora[int(batch["source"][row].argmax()) if "source" in batch else 0]


@settings(max_examples=150, deadline=None)
@given(run=runs())
def test_every_target_comes_once_an_epoch_whatever_the_stages(run: tuple[Stream, int]) -> None:
    stream, steps = run
    seen: dict[str, Counter[int]] = {corpus.name: Counter() for corpus in stream.corpora}
    rows: Counter[str] = Counter()
    for step in range(steps):
        batch = stream.batch(step)
        assert batch["tokens"].shape == stream.shape(step)
        for row in range(len(batch["tokens"])):
            corpus = corpus_of(stream, batch, row)
            rows[corpus.name] += 1
            seen[corpus.name].update(batch["targets"][row][batch["weights"][row] == 1].tolist())
    assert stream.counts(steps) == {corpus.name: rows[corpus.name] for corpus in stream.corpora}
    assert stream.rows(steps) == sum(rows.values())
    for corpus in stream.corpora:
        epochs = stream.epochs(steps)[corpus.name]
        begins = set(corpus.store.token_offsets[:-1].tolist())
        for token in range(corpus.store.n_tokens):
            times = seen[corpus.name][token]
            if token in begins:
                assert times == 0
            else:
                assert np.floor(epochs) <= times <= np.ceil(epochs)


@settings(max_examples=60, deadline=None)
@given(run=runs())
def test_a_row_by_its_definition(run: tuple[Stream, int]) -> None:
    stream, steps = run
    for step in range(steps):
        batch = stream.batch(step)
        for row in range(len(batch["tokens"])):
            one = {name: array[row] for name, array in batch.items()}
            store = corpus_of(stream, batch, row).store
            parts = stream.explain(step, row)
            real = np.zeros(len(one["tokens"]), np.bool_)
            for number, part in enumerate(parts, 1):
                here = slice(part.column, part.column + part.length)
                first = store.token_offsets[part.document] + part.first
                assert (one["tokens"][here] == first + np.arange(part.length)).all()
                assert (one["targets"][here] == one["tokens"][here] + 1).all()
                assert first + part.length < store.token_offsets[part.document + 1]
                assert (one["segments"][here] == number).all()
                assert (one["positions"][here] == np.arange(part.length)).all()
                assert (one["bytes"][here] == store.token_bytes[one["targets"][here]]).all()
                real[here] = True
            assert (one["weights"] == real).all()
            for name in ("tokens", "targets", "segments", "positions", "bytes"):
                assert not one[name][~real].any()


@settings(max_examples=60, deadline=None)
@given(run=runs(), data=st.data())
def test_any_rows_are_those_of_the_whole_batch(
    run: tuple[Stream, int], data: st.DataObject
) -> None:
    stream, steps = run
    step = data.draw(st.integers(0, steps - 1))
    rows = stream.shape(step)[0]
    low = data.draw(st.integers(0, rows))
    high = data.draw(st.integers(low, rows))
    whole, some = stream.batch(step), stream.batch(step, slice(low, high))
    for name in some:
        assert np.array_equal(whole[name][low:high], some[name])
    if low < high:
        assert some.keys() == whole.keys()


@settings(max_examples=40, deadline=None)
@given(run=runs())
def test_visits_are_what_the_rows_show(run: tuple[Stream, int]) -> None:
    stream, steps = run
    expected: dict[tuple[str, int], set[Visit]] = {}
    for step in range(steps):
        for row in range(stream.shape(step)[0]):
            for part in stream.explain(step, row):
                key = part.corpus, part.document
                expected.setdefault(key, set()).add(Visit(step, row, part.epoch, True))
    for corpus in stream.corpora:
        for document in range(corpus.store.n_documents):
            visits = stream.visits(corpus.name, document, steps)
            assert visits == sorted(expected.get((corpus.name, document), set()))


def small(
    weights: Sequence[float] = (2, 1, 1),
    stages: Sequence[Stage] = (),
    skip: Sequence[str] = (),
    seed: int = 5,
    packing: str = "concatenate",
) -> Stream:
    """A stream of three corpora."""
    rng = np.random.default_rng(3)
    corpora = []
    for name in "abc"[: len(weights)]:
        store = MemoryStore(rng.integers(1, 60, 40).tolist(), name)
        corpora.append(Corpus(name, store, plan.make(store, 24, packing)))  # type: ignore[arg-type]
    course = [Stage(0, 24, 8, Mixture(weights)), *stages]
    return Stream(corpora, course, seed, skipped(skip, course))


def digest_of(*batches: dict[str, np.ndarray]) -> str:
    content = hashlib.sha256()
    for batch in batches:
        for name, array in sorted(batch.items()):
            content.update(name.encode() + array.tobytes())
    return content.hexdigest()[:16]


def digest(stream: Stream, steps: int) -> str:
    return digest_of(*(stream.batch(step) for step in range(steps)))


LATER = Stage(6, 12, 4, Mixture([1, 0, 3]))


def test_the_batches_never_change() -> None:
    assert digest(small(), 10) == "cf458e2dde2a116b"
    assert (
        digest(small(stages=[LATER], skip=["3", "5:1-2"], packing="best_fit"), 10)
        == "6df3dc3a2595908a"
    )


def test_a_thousand_batches_on_any_number_of_processes_from_any_step() -> None:
    """Packing, three corpora, stages and a skip list together."""
    skip = ["18", *(f"{step}:1-3" for step in range(41, 901, 7))]
    stages = [Stage(300, 12, 16, Mixture([1, 0, 3])), Stage(700, 24, 8, Mixture([3, 2, 1]))]
    for packing in ("concatenate", "best_fit"):
        first = small((2, 1, 1), stages, skip, packing=packing)
        whole = [digest_of(first.batch(step)) for step in range(1000)]
        assert len(set(whole)) > 990
        for processes in (1, 2, 4, 8):
            stream = small((2, 1, 1), stages, skip, packing=packing)
            for step in range(1000):
                share = stream.shape(step)[0] // processes
                parts = [
                    stream.batch(step, slice(i * share, (i + 1) * share)) for i in range(processes)
                ]
                batch = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
                assert digest_of(batch) == whole[step]
        for start in (1, 299, 300, 301, 777, 999):  # a new process, which knows nothing
            again = small((2, 1, 1), stages, skip, packing=packing)
            for step in range(start, min(start + 20, 1000)):
                assert digest_of(again.batch(step)) == whole[step]


def test_a_stage_ahead_and_rows_skipped_ahead_leave_the_past_alone() -> None:
    plain, more = small(), small(stages=[LATER], skip=["8:1"])
    assert plain.fingerprint(6) == more.fingerprint(6)
    assert digest(plain, 6) == digest(more, 6)
    assert plain.fingerprint(7) != more.fingerprint(7)
    assert plain.fingerprint(0) == small((1, 3, 1)).fingerprint(0)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 6},
        {"weights": (2, 1, 2)},
        {"weights": (2, 1)},
        {"packing": "best_fit"},
        {"skip": ["2:0"]},
        {"stages": [LATER._replace(after_step=3)]},
        {"stages": [Stage(3, 24, 7, Mixture([2, 1, 1]))]},
    ],
)
def test_the_fingerprint_tells_streams_apart(other: dict[str, object]) -> None:
    assert small(**other).fingerprint(4) != small().fingerprint(4)  # type: ignore[arg-type]


def test_a_corpus_that_comes_later_is_no_part_of_the_past() -> None:
    with_c = small((2, 1, 0), [Stage(4, 24, 8, Mixture([1, 1, 1]))])
    assert with_c.fingerprint(4) == small((2, 1)).fingerprint(4)
    assert np.array_equal(with_c.batch(3)["tokens"], small((2, 1)).batch(3)["tokens"])


def test_skipped_rows_are_not_learnt_from_and_no_other_row_moves() -> None:
    plain, skipping = small(), small(skip=["3", "5:1-2", "5:5"])
    for step in range(6):
        one, other = plain.batch(step), skipping.batch(step)
        out = {2: range(8), 4: (1, 2, 5)}.get(step, ())
        for row in range(8):
            for name in one:
                same = np.array_equal(one[name][row], other[name][row])
                assert same == (row not in out or name not in ("weights", "bytes"))
            if row in out:
                assert not other["weights"][row].any() and not other["bytes"][row].any()
        visits = [v for d in range(40) for v in skipping.visits("a", d, 6) if v.step == step]
        assert all(visit.learnt == (visit.row not in out) for visit in visits)
        part = skipping.batch(step, slice(4, 7))
        assert np.array_equal(part["weights"], other["weights"][4:7])


def test_corpora_are_shuffled_apart_and_every_epoch_anew() -> None:
    store = MemoryStore([1] * 24 * 20)
    same = plan.make(store, 24, "concatenate")  # type: ignore[arg-type]
    corpora = [Corpus(name, store, same) for name in "ab"]  # type: ignore[arg-type]
    stream = Stream(corpora, [Stage(0, 24, 40, Mixture([1, 1]))], 0, {})
    orders = []
    for step in range(2):
        batch = stream.batch(step)
        orders += [batch["tokens"][batch["source"][:, i] == 1, 0].tolist() for i in range(2)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_shapes_are_those_to_come() -> None:
    stream = small(stages=[LATER, Stage(9, 24, 8, Mixture([1, 1, 1]))])
    assert stream.shapes(0, 100) == {(8, 24): 0, (4, 12): 6}
    assert stream.shapes(7, 100) == {(4, 12): 7, (8, 24): 9}
    assert stream.shapes(2, 5) == {(8, 24): 2}
    assert stream.shapes(5, 5) == {}


def test_what_there_is_not() -> None:
    with pytest.raises(ValueError, match="there is no step -1"):
        small().batch(-1)
    with pytest.raises(ValueError, match="step 6 has rows 0 to 3, not 4"):
        small(stages=[LATER]).explain(6, 4)
