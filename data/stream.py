"""batch(step): the training data as a pure function.

The rows of a stage are numbered; its mixture says which corpus a row is of, and which of the
corpus's rows. The rows of a corpus go through its bins (data/plan.py) epoch after epoch; in epoch
e, bins are in the order of a permutation keyed by (seed, corpus, e). A stage of rows shorter than a
bin cuts each bin into rows. Nothing is remembered between calls, so nothing is saved, and any
process computes just the rows it needs.

How far a corpus has been read is counted in positions. Where rows become longer, the first longer
row may lie over positions that were read: they are padding in it. So every position of an epoch is
in one row, whatever the stages.
"""

import functools
import itertools
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data import cache, permute, rows, stages
from data.annotations import Annotations
from data.config import DataConfig
from data.plan import Pieces, Plan
from data.preparation import Prepared
from data.rows import Batch
from data.stages import Skipped, Stage, stages_of
from data.store import TokenStore

_BLOCK = 4096  # bins whose order is computed at a time


class Corpus(NamedTuple):
    """What a stream reads.

    Attributes:
      name: part of the seed, so that corpora are shuffled independently.
      store: the tokens.
      plan: the store's bins; all plans of a stream have bins of one length.
    """

    name: str
    store: TokenStore
    plan: Plan


class Part(NamedTuple):
    """A piece of a document in a row.

    Attributes:
      corpus: its name.
      epoch: of the corpus.
      document: its number in the store.
      first: its first input, as a token of the document; 0 is BOS.
      column: where it is in the row.
      length: inputs.
    """

    corpus: str
    epoch: int
    document: int
    first: int
    column: int
    length: int


class Visit(NamedTuple):
    """A row that shows some of a document, and whether it is learnt from."""

    step: int
    row: int
    epoch: int
    learnt: bool


class _Places(NamedTuple):
    """Rows in the plan of one corpus.

    Attributes:
      rows: int64 [R], of the batch.
      epoch: int64 [R].
      position: int64 [R], where each begins in the plan.
      hidden: int64 [R], how many of its first positions were read before.
    """

    rows: np.ndarray
    epoch: np.ndarray
    position: np.ndarray
    hidden: np.ndarray


class Stream:
    """The batches of a run. Threads may call it together.

    A step is named by how many are done before it: the batch of step 0 is learnt from in the step
    that people and metrics call 1.

    Args:
      corpora: in the order of the mixtures.
      stages: from data.stages.stages_of.
      seed: orders the rows of each epoch; 0 <= seed < 2**63.
      skip: from data.stages.skipped.
      annotations: of each corpus, what comes with its rows beside them (data/annotations.py).
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        stages: Sequence[Stage],
        seed: int,
        skip: Skipped,
        annotations: Sequence[Annotations] = (),
    ) -> None:
        self.corpora, self.stages = tuple(corpora), tuple(stages)
        self._annotations = tuple(annotations)
        self._seed, self._skip = seed, skip
        self._seeds = [permute.derive_key(seed, zlib.crc32(c.name.encode())) for c in corpora]
        self._ends = [c.plan.n_bins * c.plan.length for c in corpora]
        self._block = functools.lru_cache(maxsize=64)(self._make_block)
        # How far each corpus has been read where each stage begins.
        self._read = [[0] * len(corpora)]
        for stage, after in itertools.pairwise(stages):
            steps = after.after_step - stage.after_step
            self._read.append(self._advanced(stage, self._read[-1], steps))

    def shape(self, step: int) -> tuple[int, int]:
        """Rows of a step's batch (B), and tokens of a row (T)."""
        stage = self.stages[self._stage(step)]
        return stage.rows, stage.length

    def shapes(self, start: int, stop: int) -> dict[tuple[int, int], int]:
        """The shapes of the batches of steps [start, stop), and the first step of each."""
        steps = [start, *(s.after_step for s in self.stages if start < s.after_step < stop)]
        found: dict[tuple[int, int], int] = {}
        for step in steps if start < stop else ():
            found.setdefault(self.shape(step), step)
        return found

    def batch(self, step: int, which: slice | None = None) -> Batch:
        """The batch of a step, or just the rows [lo:hi) of it that a process holds.

        Returns:
          Arrays [B, T], or [hi - lo, T], as of `rows.empty`; of a mixture also "source", int32
          [B, number of corpora]: 1 where the row is of the corpus; and the arrays [B, T, ...] of
          its annotations.
        """
        stage = self._stage(step)
        wanted = np.arange(*(which or slice(None)).indices(self.stages[stage].rows))
        batch = rows.empty(wanted.size, self.stages[stage].length)
        for corpus, places in self._places(stage, step, wanted):
            pieces = self._pieces(corpus, places, self.stages[stage].length)
            rows.fill(batch, places.rows, pieces, self.corpora[corpus].store)
            if self._annotations:
                self._annotations[corpus].fill(batch, places.rows, places.position)
            if len(self.corpora) > 1:
                source = batch.setdefault(
                    "source", np.zeros((wanted.size, len(self.corpora)), np.int32)
                )
                source[places.rows, corpus] = 1
        if step in self._skip:
            some = self._skip[step]
            out = [i for i, row in enumerate(wanted.tolist()) if row in some]
            batch["weights"][out] = 0
            batch["bytes"][out] = 0
        return batch

    def annotated(self, annotations: Sequence[Annotations]) -> "Stream":
        """The same batches, with annotations of each corpus."""
        return Stream(self.corpora, self.stages, self._seed, self._skip, annotations)

    def bins(self, steps: int) -> list[np.ndarray]:
        """Of each corpus which bins the rows of steps [0, steps) are of: int64, ascending."""
        found: list[list[np.ndarray]] = [[] for _ in self.corpora]
        for number, (stage, end) in enumerate(self._spans()):
            count = (min(end, steps) - stage.after_step) * stage.rows
            for first in range(0, count, _BLOCK):
                wanted = np.arange(first, min(count, first + _BLOCK))
                for corpus, places in self._places(number, stage.after_step, wanted):
                    found[corpus].append(places.position // self.corpora[corpus].plan.length)
        nothing = np.zeros(0, np.int64)
        return [np.unique(np.concatenate([nothing, *some])) for some in found]

    def fingerprint(self, steps: int) -> str:
        """Names the batches of steps [0, steps): two streams with the same one give the same.

        What is to come later (stages, skipped rows, corpora that have had no row) is not part of
        it.
        """
        past = [stage for stage in self.stages if stage.after_step < steps]
        used = [i for i in range(len(self.corpora)) if any(s.mixture.shares[i] for s in past)]
        return cache.key(
            seed=self._seed,
            corpora=repr(
                [
                    (c.name, c.store.fingerprint, c.plan.identity)
                    for c in (self.corpora[i] for i in used)
                ]
            ),
            stages=repr(
                [
                    (s.after_step, s.length, s.rows, [s.mixture.shares[i] for i in used])
                    for s in past
                ]
            ),
            skip=repr(
                [(step, sorted(some)) for step, some in sorted(self._skip.items()) if step < steps]
            ),
        )

    def rows(self, step: int) -> int:
        """How many rows the first `step` steps have."""
        return sum(
            stage.rows * (min(end, step) - stage.after_step)
            for stage, end in self._spans()
            if stage.after_step < step
        )

    def counts(self, step: int) -> dict[str, int]:
        """How many of those rows are of each corpus."""
        total = dict.fromkeys((c.name for c in self.corpora), 0)
        for stage, end in self._spans():
            if stage.after_step < step:
                n = stage.rows * (min(end, step) - stage.after_step)
                for index, corpus in enumerate(self.corpora):
                    total[corpus.name] += stage.mixture.count(index, n)
        return total

    def epochs(self, step: int) -> dict[str, float]:
        """How many times each corpus has been seen when `step` steps are done."""
        stage = self._stage(max(step - 1, 0))
        steps = step - self.stages[stage].after_step
        read = self._advanced(self.stages[stage], self._read[stage], steps)
        return {c.name: at / end for c, at, end in zip(self.corpora, read, self._ends, strict=True)}

    def explain(self, step: int, row: int) -> list[Part]:
        """What a row shows, from left to right.

        Raises:
          ValueError: there is no such row.
        """
        stage = self._stage(step)
        if not 0 <= row < self.stages[stage].rows:
            raise ValueError(f"step {step} has rows 0 to {self.stages[stage].rows - 1}, not {row}")
        ((index, places),) = self._places(stage, step, np.array([row]))
        corpus = self.corpora[index]
        pieces = self._pieces(index, places, self.stages[stage].length)
        document = np.searchsorted(corpus.store.token_offsets, pieces.start, side="right") - 1
        first = pieces.start - corpus.store.token_offsets[document]
        return [
            Part(corpus.name, int(places.epoch[0]), *numbers)
            for numbers in zip(
                document.tolist(),
                first.tolist(),
                pieces.column.tolist(),
                pieces.length.tolist(),
                strict=True,
            )
        ]

    def visits(self, corpus: str, document: int, steps: int) -> list[Visit]:
        """Every row of steps [0, steps) that shows some of a document, in order."""
        index = [c.name for c in self.corpora].index(corpus)
        store, plan = self.corpora[index].store, self.corpora[index].plan
        first, last = store.token_offsets[document : document + 2].tolist()
        found: set[Visit] = set()
        for number, (stage, end) in enumerate(self._spans()):
            if stage.after_step >= steps:
                break
            n = stage.mixture.count(index, (min(end, steps) - stage.after_step) * stage.rows)
            read, width = self._read[number][index], stage.length
            base, a_bin = read // width, plan.length // width
            if not n:
                continue
            epochs = range(base * width // self._ends[index], self._epoch(index, base + n, width))
            for at, length in plan.of_document(first, last):
                for part in range(at // width, (at + length - 1) // width + 1):
                    bin_, nth = divmod(part, a_bin)
                    for epoch in epochs:
                        key = permute.derive_key(self._seeds[index], epoch)
                        slot = int(permute.inverse(np.array([bin_]), plan.n_bins, key)[0])
                        row = (epoch * plan.n_bins + slot) * a_bin + nth
                        seen = row * width + min(at + length - part * width, width) > read
                        if base <= row < base + n and seen:
                            i = stage.mixture.row(index, row - base)
                            step, where = divmod(i, stage.rows)
                            step += stage.after_step
                            learnt = where not in self._skip.get(step, ())
                            found.add(Visit(step, where, epoch, learnt))
        return sorted(found)

    def _stage(self, step: int) -> int:
        if step < 0:
            raise ValueError(f"there is no step {step}")
        return stages.at(self.stages, step)

    def _spans(self) -> Iterator[tuple[Stage, int]]:
        """The stages, each with the step that it ends before; the last one does not end."""
        ends = [*(stage.after_step for stage in self.stages[1:]), sys.maxsize]
        return zip(self.stages, ends, strict=True)

    def _advanced(self, stage: Stage, read: Sequence[int], steps: int) -> list[int]:
        """How far each corpus has been read after some steps of a stage."""
        counts = [stage.mixture.count(i, steps * stage.rows) for i in range(len(self.corpora))]
        return [
            (at // stage.length + n) * stage.length if n else at
            for at, n in zip(read, counts, strict=True)
        ]

    def _epoch(self, index: int, rows: int, width: int) -> int:
        """The epoch after the last one that the first `rows` rows of a corpus are of."""
        return (rows * width - 1) // self._ends[index] + 1

    def _places(self, number: int, step: int, wanted: np.ndarray) -> Iterator[tuple[int, _Places]]:
        """Where the rows of a step are, by the index of their corpus."""
        stage = self.stages[number]
        all_rows = (step - stage.after_step) * stage.rows + wanted
        corpora, ordinals = stage.mixture.locate(all_rows)
        for index in np.unique(corpora).tolist():
            (rows,) = np.nonzero(corpora == index)
            read, plan = self._read[number][index], self.corpora[index].plan
            begin = (read // stage.length + ordinals[rows]) * stage.length
            epoch, within = np.divmod(begin, self._ends[index])
            slot, offset = np.divmod(within, plan.length)
            position = self._bins(index, epoch, slot) * plan.length + offset
            yield index, _Places(rows, epoch, position, np.maximum(read - begin, 0))

    def _pieces(self, index: int, places: _Places, width: int) -> Pieces:
        """What rows of a corpus show; what was read before is left out."""
        pieces = self.corpora[index].plan.pieces(places.position, width)
        if not places.hidden.any():
            return pieces
        cut = np.maximum(places.hidden[pieces.row] - pieces.column, 0)
        shorter = Pieces(pieces.row, pieces.column + cut, pieces.start + cut, pieces.length - cut)
        return Pieces(*(array[shorter.length > 0] for array in shorter))

    def _bins(self, index: int, epoch: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """The bins that come at some places of some epochs of a corpus."""
        block, within = np.divmod(slot, _BLOCK)
        found = np.empty_like(slot)
        for e, b in {*zip(epoch.tolist(), block.tolist(), strict=True)}:
            here = (epoch == e) & (block == b)
            found[here] = self._block(index, e, b)[within[here]]
        return found

    def _make_block(self, index: int, epoch: int, block: int) -> np.ndarray:
        n = self.corpora[index].plan.n_bins
        slots = np.arange(block * _BLOCK, min(n, (block + 1) * _BLOCK))
        return permute.permute(slots, n, permute.derive_key(self._seeds[index], epoch))


def stream_of(config: DataConfig, batch_size: int, data: Prepared) -> Stream:
    """The stream of a run.

    Args:
      batch_size: rows of a step, where no stage says otherwise.

    Raises:
      ValueError: of a stage or a row to skip; one line names the field.
    """
    corpora = [Corpus(one.name, one.train, one.plan) for one in data.corpora]
    course = stages_of(config, batch_size, [one.weight for one in data.corpora])
    return Stream(corpora, course, config.seed, stages.skipped(config.skip, course))
