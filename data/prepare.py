"""From a DataConfig to stores that can be read: everything needed, nothing twice.

Each product (the dataset, the tokenizer, two token stores, the baselines) is found in the cache
by what determines it, or built and published there. Processes may prepare the same data at the
same time: each product appears whole, and the first one to appear stays. To spare the work, let
one process prepare, then the others, which find everything done (or build their own on a file
system of their own).
"""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import baselines, cache, sources, store
from data import tokenizer as tokenizers
from data.config import DataConfig
from data.documents import Documents, Progress, Source
from data.store import TokenStore
from data.tokenizer import Tokenizer
from data.waiting import steadily
from errors import UserError

# A BPE tokenizer is trained on this many bytes of the train split at most (in store order, which
# is a shuffle): more changes little and takes memory.
TOKENIZER_TRAINING_BYTES = 1 << 28
GZIP_BYTES = 64 << 20  # of the eval split are measured: some seconds' work


def _ignore(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def _accept(tokenizer: Tokenizer) -> None:
    """Takes any tokenizer."""


@dataclass(frozen=True)
class Prepared:
    """Data ready for `Stream` and `Windows`.

    Attributes:
      description: for people and reports: "dataset", "fingerprint", "tokenizer",
        "tokenizer_fingerprint", "vocab_size", "gzip_bits_per_byte" and "uniform_bits_per_byte" (of
        the eval split), "gzip_text_bytes" (of how many of its bytes: at most the first
        `GZIP_BYTES` in store order), and for "train" and "eval" each "split", "documents",
        "text_bytes", "tokens" and "fingerprint".
    """

    tokenizer: Tokenizer
    train: TokenStore
    eval: TokenStore
    description: dict[str, Any]


def prepare(
    config: DataConfig,
    progress: Progress = _ignore,
    check: Callable[[Tokenizer], None] = _accept,
) -> Prepared:
    """Finds or builds everything that `config` names.

    Args:
      progress: called every few seconds while something is built, from this thread.
      check: is given the tokenizer before anything is tokenized, and raises UserError where it
        does not suit the run.

    Raises:
      UserError: the data or the tokenizer cannot be used; one line says what to do.
    """
    found, documents = _find(config, progress)
    tokenizer = _tokenizer(config, found, documents, progress)
    check(tokenizer)
    token_store = functools.partial(_token_store, config, found, documents, tokenizer, progress)
    train, evaluation = token_store(config.train_split), token_store(config.eval_split)
    gzip = _gzip(config, found, documents, min(GZIP_BYTES, evaluation.n_bytes), progress)
    description = {
        "dataset": found.name,
        "fingerprint": found.fingerprint,
        "tokenizer": config.tokenizer,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "gzip_bits_per_byte": gzip.bits_per_byte,
        "gzip_text_bytes": gzip.text_bytes,
        "uniform_bits_per_byte": baselines.UNIFORM_BITS_PER_BYTE,
        "train": _describe(train),
        "eval": _describe(evaluation),
    }
    return Prepared(tokenizer, train, evaluation, description)


def prepare_split(
    config: DataConfig, split: str, tokenizer: Tokenizer, progress: Progress = _ignore
) -> tuple[TokenStore, str]:
    """Finds or builds the store of one split alone, with a tokenizer that is there already.

    Returns:
      the store, and the fingerprint of the dataset.

    Raises:
      UserError: the data cannot be used; one line says what to do.
    """
    found, documents = _find(config, progress)
    return _token_store(config, found, documents, tokenizer, progress, split), found.fingerprint


def _find(config: DataConfig, progress: Progress) -> tuple[Source, Callable[[str], Documents]]:
    found = sources.find(config.source, config, progress)
    return found, functools.cache(lambda split: found.open(split, progress))


def _token_store(
    config: DataConfig,
    found: Source,
    documents: Callable[[str], Documents],
    tokenizer: Tokenizer,
    progress: Progress,
    split: str,
) -> TokenStore:
    path = store.address(found.fingerprint, split, config.text_key, tokenizer)
    if cache.has(path):
        return TokenStore(path)
    about = {"dataset": found.name, "dataset_fingerprint": found.fingerprint, "split": split}
    report = functools.partial(progress, f"tokenizing {split}: document")
    return store.build(path, documents(split), tokenizer, about, report)


def _tokenizer(
    config: DataConfig,
    found: Source,
    documents: Callable[[str], Documents],
    progress: Progress,
) -> Tokenizer:
    if config.tokenizer == "byte":
        return tokenizers.ByteTokenizer()
    if config.tokenizer != "bpe":
        return tokenizers.load(Path(config.tokenizer).expanduser())
    name = cache.key(
        source=found.fingerprint,
        split=config.train_split,
        text_key=config.text_key,
        vocab_size=config.tokenizer_vocab_size,
        version=tokenizers.TRAINING_VERSION,
        store_order=store.STORE_VERSION,
    )
    directory = cache.root() / "tokenizers" / name
    if not cache.has(directory):
        trained = _train(documents(config.train_split), config.tokenizer_vocab_size, progress)
        with cache.publish(directory) as building:
            trained.save(building / "tokenizer.json")
    return tokenizers.load(directory / "tokenizer.json")


def _train(documents: Documents, vocab_size: int, progress: Progress) -> Tokenizer:
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        left = TOKENIZER_TRAINING_BYTES
        for document in itertools.chain.from_iterable(store.read_in_order(documents)):
            yield document["text"]
            read += 1
            left -= len(document["text"].encode())
            if left <= 0:
                return

    def tick() -> None:
        progress("training the tokenizer: document", read, len(documents))

    tick()
    trained = steadily(lambda: tokenizers.train_bpe(texts(), vocab_size), tick)
    tick()
    return trained


def _gzip(
    config: DataConfig,
    found: Source,
    documents: Callable[[str], Documents],
    at_most: int,
    progress: Progress,
) -> baselines.Measured:
    name = cache.key(
        source=found.fingerprint,
        split=config.eval_split,
        text_key=config.text_key,
        at_most=at_most,
    )
    directory = cache.root() / "baselines" / name
    if not cache.has(directory):
        split = documents(config.eval_split)
        total = _kilobytes(at_most)
        in_order = (store.in_store_order(split, i) for i in range(len(split)))
        measured = baselines.gzip_bits_per_byte(
            in_order,
            at_most,
            lambda done: progress("measuring gzip: kB", _kilobytes(done), total),
        )
        with cache.publish(directory) as building:
            (building / "gzip.json").write_text(json.dumps(measured._asdict()) + "\n")
    try:
        return baselines.Measured(**json.loads((directory / "gzip.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{directory / 'gzip.json'} is missing or damaged: delete the directory {directory}"
        ) from error


def _kilobytes(n_bytes: int) -> int:
    return -(-n_bytes // 1000)


def _describe(tokens: TokenStore) -> dict[str, Any]:
    names = ("split", "documents", "text_bytes", "tokens", "fingerprint")
    return {name: tokens.manifest[name] for name in names}
