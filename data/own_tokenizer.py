"""A tokenizer that is trained on the text of a config's corpora, or read from where it says."""

import json
from collections.abc import Iterator, Sequence

from etils import epath

from data import cache
from data import tokenizer as tokenizers
from data.config import DataConfig
from data.documents import Progress
from data.found import Found
from data.tokenizer import Tokenizer
from data.waiting import steadily
from errors import UserError

# A tokenizer is trained on this many bytes of the train splits at most: more changes little and
# takes memory. Of each shard an equal part, from its beginning.
TOKENIZER_TRAINING_BYTES = 1 << 28
_LEAST_OF_A_SHARD = 1 << 20


def tokenizer_of(config: DataConfig, found: Sequence[Found], progress: Progress) -> Tokenizer:
    """The tokenizer that a config names: read, or trained on the train splits, once.

    Args:
      config: of the data.
      found: its corpora.
      progress: told while one is trained.

    Raises:
      UserError: it cannot be read, or there is no text to train one on.
    """
    if config.tokenizer == "byte":
        return tokenizers.ByteTokenizer()
    if config.tokenizer not in tokenizers.TRAINERS:
        return tokenizers.load(epath.Path(config.tokenizer).expanduser())
    # One without weight is there for a later stage, and may be added while a run goes on.
    found = [one for one in found if one.corpus.weight]
    splits = [one.key(one.corpus.train_split) | {"weight": one.corpus.weight} for one in found]
    name = cache.key(
        kind=config.tokenizer,
        text=json.dumps(splits, sort_keys=True),
        vocab_size=config.tokenizer_vocab_size,
        version=tokenizers.TRAINING_VERSION,
    )
    directory = cache.root() / "tokenizers" / name
    if not cache.has(directory):
        trained = _train(config, found, progress)
        with cache.publish(directory) as folder:
            trained.save(folder / "tokenizer.json")
    return tokenizers.load(directory / "tokenizer.json")


def _train(config: DataConfig, found: Sequence[Found], progress: Progress) -> Tokenizer:
    read, total = 0, sum(one.corpus.weight for one in found)
    size = sum(shard.size for one in found for shard in one.shards(one.corpus.train_split))

    def texts() -> Iterator[str]:
        nonlocal read
        for one in found:
            budget = int(TOKENIZER_TRAINING_BYTES * one.corpus.weight / total)
            for text in _sample(one, budget):
                read += len(text)
                yield text

    def tick() -> None:
        most = max(read, min(size, TOKENIZER_TRAINING_BYTES))
        progress("training the tokenizer: MB of text read", read >> 20, most >> 20)

    tick()
    if all(not text for text in texts()):
        splits = ", ".join(f"{one.source.name} {one.corpus.train_split!r}" for one in found)
        raise UserError(f"no text to train a tokenizer on ({splits}): use a split that has some")
    read = 0
    train = tokenizers.TRAINERS[config.tokenizer]
    trained = steadily(lambda: train(texts(), config.tokenizer_vocab_size), tick)
    tick()
    return trained


def _sample(found: Found, budget: int) -> Iterator[str]:
    """At most `budget` bytes of text: of shards spread over all of them, the same from each."""
    shards = found.shards(found.corpus.train_split)
    count = min(len(shards), max(budget // _LEAST_OF_A_SHARD, 1))
    for i in range(count):
        left = budget // count
        for document, _ in shards[i * len(shards) // count].documents():
            text = found.text_of(document)
            yield text
            left -= len(text.encode())
            if left <= 0:
                break
