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

from data import baselines, cache, source, store
from data import tokenizer as tokenizers
from data.config import DataConfig
from data.documents import Documents, open_documents
from data.source import Source
from data.store import TokenStore
from data.tokenizer import Tokenizer
from errors import UserError

# A BPE tokenizer is trained on this many bytes of the train split at most (in store order, which
# is a shuffle): more changes little and takes memory.
TOKENIZER_TRAINING_BYTES = 1 << 28

Progress = Callable[[str, int, int], None]  # (what is being built, done, in all)


@dataclass(frozen=True)
class Prepared:
    """Data ready for `Stream` and `Windows`.

    Attributes:
      description: for people and reports: "dataset", "fingerprint", "tokenizer",
        "tokenizer_fingerprint", "vocab_size", "gzip_bits_per_byte" and "uniform_bits_per_byte" (of
        the eval split), and for "train" and "eval" each "split", "documents", "text_bytes",
        "tokens" and "fingerprint".
    """

    tokenizer: Tokenizer
    train: TokenStore
    eval: TokenStore
    description: dict[str, Any]


def prepare(config: DataConfig, progress: Progress | None = None) -> Prepared:
    """Finds or builds everything that `config` names.

    Raises:
      UserError: the data or the tokenizer cannot be used; one line says what to do.
    """
    found = source.find(config)
    documents = functools.cache(lambda split: open_documents(config, found, split))
    tokenizer = _tokenizer(config, found, documents, progress)
    token_store = functools.partial(_token_store, config, found, documents, tokenizer, progress)
    train, held_out = token_store(config.train_split), token_store(config.eval_split)
    description = {
        "dataset": found.name,
        "fingerprint": found.fingerprint,
        "tokenizer": config.tokenizer,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "gzip_bits_per_byte": _gzip(config, found, documents, progress),
        "uniform_bits_per_byte": baselines.UNIFORM_BITS_PER_BYTE,
        "train": _describe(train),
        "eval": _describe(held_out),
    }
    return Prepared(tokenizer, train, held_out, description)


def prepare_split(
    config: DataConfig, split: str, tokenizer: Tokenizer, progress: Progress | None = None
) -> tuple[TokenStore, str]:
    """Finds or builds the store of one split alone, with a tokenizer that is there already.

    Returns:
      the store, and the fingerprint of the dataset.

    Raises:
      UserError: the data cannot be used; one line says what to do.
    """
    found = source.find(config)
    documents = functools.cache(lambda split: open_documents(config, found, split))
    return _token_store(config, found, documents, tokenizer, progress, split), found.fingerprint


def _token_store(
    config: DataConfig,
    found: Source,
    documents: Callable[[str], Documents],
    tokenizer: Tokenizer,
    progress: Progress | None,
    split: str,
) -> TokenStore:
    path = store.address(found.fingerprint, split, config.text_key, tokenizer)
    if path.is_dir():
        return TokenStore(path)
    about = {"dataset": found.name, "dataset_fingerprint": found.fingerprint, "split": split}
    report = functools.partial(progress, f"tokenizing {split}") if progress else None
    return store.build(path, documents(split), tokenizer, about, report)


def _tokenizer(
    config: DataConfig,
    found: Source,
    documents: Callable[[str], Documents],
    progress: Progress | None,
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
    if not directory.is_dir():
        texts = documents(config.train_split)
        trained = tokenizers.train_bpe(
            _training_texts(texts, progress), config.tokenizer_vocab_size
        )
        with cache.publish(directory) as building:
            trained.save(building / "tokenizer.json")
    return tokenizers.load(directory / "tokenizer.json")


def _training_texts(documents: Documents, progress: Progress | None) -> Iterator[str]:
    left = TOKENIZER_TRAINING_BYTES
    in_order = itertools.chain.from_iterable(store.read_in_order(documents))
    for done, document in enumerate(in_order, 1):
        yield document["text"]
        if progress:
            progress("training the tokenizer", done, len(documents))
        left -= len(document["text"].encode())
        if left <= 0:
            return


def _gzip(
    config: DataConfig,
    found: Source,
    documents: Callable[[str], Documents],
    progress: Progress | None,
) -> float:
    name = cache.key(source=found.fingerprint, split=config.eval_split, text_key=config.text_key)
    directory = cache.root() / "baselines" / name
    if not directory.is_dir():
        held_out = documents(config.eval_split)
        if progress:
            progress("measuring gzip", 0, len(held_out))
        measured = baselines.gzip_bits_per_byte(held_out)
        with cache.publish(directory) as building:
            (building / "gzip.json").write_text(json.dumps({"bits_per_byte": measured}) + "\n")
    try:
        return float(json.loads((directory / "gzip.json").read_text())["bits_per_byte"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{directory / 'gzip.json'} is missing or damaged: delete the directory {directory}"
        ) from error


def _describe(tokens: TokenStore) -> dict[str, Any]:
    names = ("split", "documents", "text_bytes", "tokens", "fingerprint")
    return {name: tokens.manifest[name] for name in names}
