"""From a DataConfig to stores that can be read: everything needed, nothing twice.

Each product (the tokenizer, two token stores of each corpus, the baselines) is found in the cache
by what determines it, or built and published there. Processes may prepare the same data at the
same time: each product appears whole, and the first one to appear stays. To spare the work, let
one process prepare, then the others, which find everything done (or build their own on a file
system of their own).
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data import baselines, building, cache, checksums, filters, plan, store, tasks
from data.config import Corpus, DataConfig
from data.documents import NO_SPLIT, Progress
from data.examples import chat, rates, rendering
from data.examples.rendering import Making
from data.filters import OFF, FilterConfig, overlap
from data.found import Found
from data.own_tokenizer import tokenizer_of
from data.plan import Plan
from data.store import TokenStore
from data.tokenizer import Tokenizer
from data.waiting import steadily

GZIP_BYTES = 64 << 20  # of each eval split are measured: some seconds' work


def _ignore(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def _accept(tokenizer: Tokenizer) -> None:
    """Takes any tokenizer."""


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus as it is trained on, and evaluated on.

    Attributes:
      name: in the mixture.
      weight: at the beginning of the run; by counts, where the config says so.
      dataset, fingerprint: of its source.
      train, eval: its stores; no `eval` where the config says so.
      plan: the bins of `train`.
      gzip: of its eval split, where that is plain text.
      task: of its examples; "" of plain text.
    """

    name: str
    weight: float
    dataset: str
    fingerprint: str
    train: TokenStore
    eval: TokenStore | None
    plan: Plan
    gzip: baselines.Measured | None
    task: str = ""


@dataclass(frozen=True)
class Prepared:
    """Data ready for `Stream` and `Windows`."""

    tokenizer: Tokenizer
    corpora: tuple[PreparedCorpus, ...]

    @property
    def dataset(self) -> str:
        """For people."""
        return " + ".join(corpus.dataset for corpus in self.corpora)

    @property
    def fingerprint(self) -> str:
        """Of all sources."""
        return "+".join(corpus.fingerprint for corpus in self.corpora)

    @property
    def eval_fingerprint(self) -> str:
        """Of all that is evaluated on."""
        return "+".join(c.eval.fingerprint for c in self.corpora if c.eval is not None)

    @property
    def gzip_bits_per_byte(self) -> float:
        """What `gzip -9` makes of the eval splits, document by document; 0 where there are
        examples: they are predicted from their prompts."""
        if any(c.task for c in self.corpora):
            return 0.0
        measured = [c.gzip for c in self.corpora if c.gzip is not None]
        text_bytes = sum(m.text_bytes for m in measured)
        return sum(m.bits_per_byte * m.text_bytes for m in measured) / max(text_bytes, 1)

    def description(self, config: DataConfig) -> dict[str, Any]:
        """For people and reports."""
        return {
            "dataset": self.dataset,
            "tokenizer": config.tokenizer,
            "tokenizer_fingerprint": self.tokenizer.fingerprint,
            "vocab_size": self.tokenizer.vocab_size,
            "corpora": {
                corpus.name: {
                    "dataset": corpus.dataset,
                    "fingerprint": corpus.fingerprint,
                    "weight": corpus.weight,
                    "train": _describe(corpus.train),
                    "eval": corpus.eval and _describe(corpus.eval),
                    "packing": config.packing,
                    "padding_percent": round(100 * corpus.plan.waste, 4),
                }
                for corpus in self.corpora
            },
        }


def prepare(
    config: DataConfig,
    progress: Progress = _ignore,
    check: Callable[[Tokenizer], None] = _accept,
    rebuild: bool = False,
) -> Prepared:
    """Finds or builds everything that `config` names.

    Args:
      progress: called every few seconds while something is built, from this thread.
      check: is given the tokenizer before anything is tokenized, and raises UserError where it
        does not suit the run.
      rebuild: build the stores, and all else but the tokenizer, anew, even where it is there.

    Raises:
      UserError: the data or the tokenizer cannot be used; one line says what to do.
    """
    found = [Found(corpus, progress) for corpus in config.corpora()]
    tokenizer = tokenizer_of(config, found, progress)
    check(tokenizer)
    writing = _Writing(tokenizer, chat_files(config, tokenizer))
    filtered = _filtered(config.filters, found, rebuild)
    for one in found:  # a split that is not there is named before hours of work on another
        for path, split in _stores(config, one, writing, filtered):
            if rebuild or not cache.has(path):
                one.shards(split)
    if rebuild:
        for one in found:
            for path, _ in _stores(config, one, writing, filtered):
                cache.remove(path)
    prepared = [_prepared(config, one, writing, filtered, progress, rebuild) for one in found]
    return Prepared(tokenizer, tuple(_weighted(config, prepared)))


def prepare_split(
    config: DataConfig, split: str | None, tokenizer: Tokenizer, progress: Progress = _ignore
) -> tuple[dict[str, TokenStore], str]:
    """Finds or builds the stores of one split alone, with a tokenizer that is there already.

    Args:
      split: of every corpus; None is its eval_split.

    Returns:
      the stores by corpus, and the fingerprint of the data.

    Raises:
      UserError: the data cannot be used; one line says what to do.
    """
    found = [Found(corpus, progress) for corpus in config.corpora()]
    writing = _Writing(tokenizer, chat_files(config, tokenizer))
    stores = {
        one.corpus.name: _token_store(
            config, one, split or one.corpus.eval_split, writing, _UNFILTERED
        )
        for one in found
        if split or one.corpus.eval_split != NO_SPLIT
    }
    return stores, "+".join(one.source.fingerprint for one in found)


class _Examples(NamedTuple):
    """How examples are made of a split.

    Attributes:
      making: how, but for where the chat template is while a store is built.
      chat: that template, where the task has dialogues.
    """

    making: Making
    chat: chat.Files | None

    @property
    def identity(self) -> dict[str, str]:
        """Of all that a store of them depends on, beside its task and source."""
        of = self.making
        return {
            "length": str(of.length),
            "too_long": of.too_long,
            "limit": str(of.limit),
            "chat": chat.identity(self.chat) if self.chat else "",
            "rendering": str(rendering.VERSION),
        }


class _Writing(NamedTuple):
    """How text becomes tokens.

    Attributes:
      tokenizer: that makes them.
      chat: see `chat_files`.
    """

    tokenizer: Tokenizer
    chat: chat.Files | None


def _examples(
    config: DataConfig, corpus: Corpus, split: str, writing: _Writing
) -> _Examples | None:
    """None of plain text."""
    if not corpus.task:
        return None
    files = writing.chat if tasks.find(corpus.task).chat else None
    limit = config.limit if split == corpus.train_split else 0
    return _Examples(Making(corpus.task, config.sequence_length, config.too_long, limit), files)


def chat_files(config: DataConfig, tokenizer: Tokenizer) -> chat.Files | None:
    """The chat template that dialogues are learned by, with what spells its specials; None where
    there are none.
    """
    if not any(corpus.task and tasks.find(corpus.task).chat for corpus in config.corpora()):
        return None
    return chat.files_of(tokenizer, config.tokenizer, config.chat_template)


class _Filtered(NamedTuple):
    """How the train splits are filtered.

    Attributes:
      config: the filters.
      identity: of what they do; "" where they do nothing.
      overlaps: makes the file of what is evaluated on, or finds it.
    """

    config: FilterConfig
    identity: str
    overlaps: Callable[[], Path | None]


_UNFILTERED = _Filtered(OFF, "", lambda: None)


def _filtered(config: FilterConfig, found: Sequence[Found], rebuild: bool) -> _Filtered:
    identity = filters.identity(config)
    if not config.decontaminate:
        return _Filtered(config, identity, lambda: None)
    evaluated = [one for one in found if one.corpus.eval_split != NO_SPLIT]
    splits = [one.key(one.corpus.eval_split) for one in evaluated]
    name = cache.key(
        n=config.decontaminate,
        splits=json.dumps(splits, sort_keys=True),
        version=filters.VERSION,
    )
    directory = cache.root() / "overlaps" / cache.key(ngrams=name, layout=overlap.LAYOUT)
    if rebuild:
        cache.remove(directory)

    def overlaps() -> Path:
        tick = functools.partial(found[0].progress, "reading what is evaluated on", 0, 1)
        if cache.has(directory):
            noted = checksums.read(directory)
            steadily(functools.partial(checksums.check_all, directory, noted), tick)
        else:
            texts = (
                one.text_of(document)
                for one in evaluated
                for shard in one.shards(one.corpus.eval_split)
                for document, _ in shard.documents()
            )
            with cache.publish(directory) as folder:
                save = functools.partial(overlap.save, texts, config.decontaminate)
                steadily(functools.partial(save, folder / "ngrams.npy"), tick)
                checksums.write(folder)
        return directory / "ngrams.npy"

    return _Filtered(config, f"{identity}-{name}", overlaps)


def _prepared(
    config: DataConfig,
    found: Found,
    writing: _Writing,
    filtered: _Filtered,
    progress: Progress,
    rebuild: bool,
) -> PreparedCorpus:
    corpus = found.corpus
    train = _token_store(config, found, corpus.train_split, writing, filtered)
    evaluation = gzip = None
    if corpus.eval_split != NO_SPLIT:
        evaluation = _token_store(config, found, corpus.eval_split, writing, _UNFILTERED)
        if not corpus.task:
            gzip = _gzip(found, min(GZIP_BYTES, evaluation.n_bytes), progress, rebuild)
    return PreparedCorpus(
        corpus.name,
        corpus.weight,
        found.source.name,
        found.source.fingerprint,
        train,
        evaluation,
        plan.make(train, config.sequence_length, config.packing, progress, rebuild),
        gzip,
        corpus.task,
    )


def _weighted(config: DataConfig, corpora: Sequence[PreparedCorpus]) -> Sequence[PreparedCorpus]:
    """The corpora with weights by their counts, where the config says so."""
    if not config.rates.temperature:
        return corpora
    counts = [
        rates.Counts(one.train.n_documents // one.train.unit, one.plan.n_bins)
        if config.is_counted(one.task)
        else one.weight
        for one in corpora
    ]
    weights = rates.weights(counts, config.rates)
    return [
        dataclasses.replace(one, weight=float(weight))
        for one, weight in zip(corpora, weights, strict=True)
    ]


def _token_store(
    config: DataConfig, found: Found, split: str, writing: _Writing, filtered: _Filtered
) -> TokenStore:
    examples = _examples(config, found.corpus, split, writing)
    if examples is not None:
        filtered = _UNFILTERED
    path = _address(found, split, writing.tokenizer, filtered, examples)
    if cache.has(path):
        return TokenStore(path)
    about = {
        "dataset": found.source.name,
        "dataset_fingerprint": found.source.fingerprint,
        "split": split,
    }
    shards = found.shards(split)
    return building.build(
        path,
        shards,
        writing.tokenizer,
        about,
        found.progress,
        config.processes,
        filtered.config,
        filtered.overlaps(),
        examples and examples.making,
        examples and examples.chat,
    )


def _stores(
    config: DataConfig, found: Found, writing: _Writing, filtered: _Filtered
) -> Iterator[tuple[Path, str]]:
    """Where the stores of a corpus are, or will be, and the split of each."""
    corpus = found.corpus
    for split, how in ((corpus.train_split, filtered), (corpus.eval_split, _UNFILTERED)):
        if split != NO_SPLIT:
            examples = _examples(config, corpus, split, writing)
            how = _UNFILTERED if examples else how
            yield _address(found, split, writing.tokenizer, how, examples), split


def _address(
    found: Found,
    split: str,
    tokenizer: Tokenizer,
    filtered: _Filtered,
    examples: _Examples | None,
) -> Path:
    parts = found.key(split) | {"tokenizer": tokenizer.fingerprint, "filters": filtered.identity}
    return store.address(**parts, **(examples.identity if examples else {}))


def _gzip(found: Found, at_most: int, progress: Progress, rebuild: bool) -> baselines.Measured:
    split = found.corpus.eval_split
    name = cache.key(**found.key(split), at_most=at_most, layout=baselines.LAYOUT)
    directory = cache.root() / "baselines" / name
    if rebuild:
        cache.remove(directory)
    if not cache.has(directory):
        total = _kilobytes(at_most)
        documents = itertools.chain.from_iterable(s.documents() for s in found.shards(split))
        measured = baselines.gzip_bits_per_byte(
            (document for document, _ in documents),
            at_most,
            lambda done: progress("measuring gzip: kB", _kilobytes(done), total),
        )
        with cache.publish(directory) as folder:
            baselines.save(measured, folder)
    return baselines.load(directory)


def _kilobytes(n_bytes: int) -> int:
    return -(-n_bytes // 1000)


def _describe(tokens: TokenStore) -> dict[str, Any]:
    names = ("split", "documents", "text_bytes", "tokens", "fingerprint", "counts")
    return {name: tokens.manifest[name] for name in names}
