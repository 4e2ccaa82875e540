"""Shows what a run trains on: any batch as text, any document's steps, the data in numbers.
Of examples, what is learned is bold and green, or between [[ and ]] where this is no terminal.

    python -m data.inspect --config=configs/books.py --step=120
    python -m data.inspect --config=configs/books.py --step=120 --row=3
    python -m data.inspect --config=configs/books.py --find="train-00003.jsonl.gz:17"
    python -m data.inspect --config=configs/books.py --stats

The batches are those of train.py with the same --config and the same --config.key=value, before,
during and after the run: they are a function of these. The data is prepared if it is not.
"""

import signal

if __name__ == "__main__":
    # Before libraries are read: Python's own handler raises an exception, which gets lost in JAX.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import itertools
import os
import sys
from collections.abc import Iterator

from absl import flags

import commands
from configs import door, start_from
from configs import flags as config_flags
from data import statistics
from data.preparation import Prepared, prepare
from data.shown import marked, printable, shortened
from data.stream import Corpus, Stream, stream_of
from data.tokenizer import Tokenizer, decode
from errors import UserError
from reporting import outlook
from training.config import RunConfig

CONFIG = config_flags.define()
STEP = flags.DEFINE_integer(
    "step",
    None,
    "Show the batch of this step, counted from 1 as in the metrics.",
    lower_bound=1,
    upper_bound=1 << 40,
)
ROW = flags.DEFINE_integer("row", None, "Only this row of it.", lower_bound=0)
FIND = flags.DEFINE_string("find", None, "List every row that shows the document of this id.")
STATS = flags.DEFINE_bool("stats", False, "Lengths, padding, mixture and epochs.")
WIDTH = flags.DEFINE_integer(
    "width", 300, "Characters shown of a piece, half of them from its end; 0 is all.", lower_bound=0
)


def check() -> None:
    """Refuses what asks for nothing, or for two things."""
    asked = [STEP.value is not None, FIND.value is not None, STATS.value]
    if sum(asked) != 1:
        raise UserError("give one of --step=N, --find=DOCUMENT and --stats")
    if ROW.value is not None and STEP.value is None:
        raise UserError("--row needs --step=N")


def main(job: commands.Job) -> None:
    chosen, _ = start_from.applied(CONFIG.value, config_flags.given())
    config = door.read(chosen, "cpu")  # nothing here depends on the platform
    job.watch.bounds = config.watch
    data = commands.in_turn(job, lambda progress: prepare(config.data, progress))
    stream = stream_of(config.data, config.train.batch_size, data)
    lines: Iterator[str]
    if STATS.value:
        lines = itertools.chain(
            statistics.lines(config.data, config.train.steps, data, stream),
            outlook.notes(config, stream),
        )
    elif STEP.value is not None:
        lines = show(config, stream, data.tokenizer, STEP.value, ROW.value, WIDTH.value)
    else:
        lines = find(config, data, stream, str(FIND.value))
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(
    config: RunConfig,
    stream: Stream,
    tokenizer: Tokenizer,
    number: int,
    row: int | None,
    width: int,
) -> Iterator[str]:
    """The rows of the step of this number as text, with what each piece is of."""
    step = number - 1
    rows, length = stream.shape(step)
    if row is not None and row >= rows:
        raise UserError(f"--row={row}: step {number} has rows 0 to {rows - 1}")
    corpora = {corpus.name: corpus for corpus in stream.corpora}
    if number > config.train.steps:
        yield f"note: the run ends with step {config.train.steps}"
    yield f"step {number}: {rows} rows of {length} tokens"
    for at in range(rows) if row is None else [row]:
        batch = stream.batch(step, slice(at, at + 1))
        learnt = int(batch["weights"].sum())
        yield f"\nrow {at}: {learnt} tokens predicted of {batch['bytes'].sum()} bytes of text"
        for part in stream.explain(step, at):
            corpus = corpora[part.corpus]
            first = int(corpus.store.token_offsets[part.document])
            tokens = int(corpus.store.token_offsets[part.document + 1]) - first
            last = part.first + part.length + 1  # the last input has its target after it
            place = first + part.first, first + last
            ids = corpus.store.read(*place)
            learned = corpus.store.learned(*place) if corpus.store.is_examples else None
            low, high = (_bytes(corpus, part.document, end) for end in (part.first, last))
            yield (
                f"  [{part.column}:{part.column + part.length}] {part.corpus}, epoch {part.epoch}: "
                f"{corpus.store.document_id(part.document)!r}, tokens {part.first} to {last} of "
                f"{tokens}, bytes {low} to {high}"
                + ("" if learned is None else f", {int(learned.sum())} learned")
            )
            if learned is None:
                text = shortened(decode(tokenizer, ids), width)
                yield from (f"    | {printable(line)}" for line in text.splitlines())
            else:
                colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
                lines = marked(tokenizer, ids, learned, width, colours)
                yield from (f"    | {line}" for line in lines)


def _bytes(corpus: Corpus, document: int, end: int) -> int:
    """How many bytes of a document its first `end` tokens are."""
    store = corpus.store
    first = int(store.token_offsets[document])
    # What the tokenizer puts in front is no text.
    return max(int(store.token_bytes[store.read(first, first + end)].sum()) - store.prefix_bytes, 0)


def find(config: RunConfig, data: Prepared, stream: Stream, name: str) -> Iterator[str]:
    """Every row of the run that shows a document."""
    found = [(c, i) for c in stream.corpora for i in c.store.find(name)]
    if not found:
        raise UserError(f"no document {name!r} in {data.dataset}: ids look like {_example(stream)}")
    for corpus, document in found:
        tokens = int(
            corpus.store.token_offsets[document + 1] - corpus.store.token_offsets[document]
        )
        visits = stream.visits(corpus.name, document, config.train.steps)
        yield (
            f"{corpus.name}: {name!r}, document {document} of the store, {tokens} tokens: "
            f"rows of {config.train.steps} steps that show some of it: {len(visits)}"
        )
        for visit in visits:
            left_out = "" if visit.learnt else ", left out by data.skip"
            yield f"  step {visit.step + 1}, row {visit.row} (epoch {visit.epoch}){left_out}"


def _example(stream: Stream) -> str:
    def one(corpus: Corpus) -> str:
        return repr(corpus.store.document_id(0))

    return ", ".join(map(one, stream.corpora[:3]))


if __name__ == "__main__":
    commands.run(main, required=("config",), check=check)
