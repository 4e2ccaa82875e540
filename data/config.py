"""What the data side needs to know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from data import sources, tasks
from data.documents import NO_SPLIT
from data.examples.rates import RatesConfig
from data.examples.sequences import TooLong
from data.filters.config import OFF, FilterConfig

Packing = Literal["concatenate", "best_fit"]
InvalidUtf8 = Literal["refuse", "replace"]
ALONE = "text"  # the name of the one corpus where there is no mixture
_OPEN = {"source": "python_stdlib", "train_split": "train", "eval_split": "validation"}
"""What base() has (configs/base.py): where a task is, it has its own."""


@dataclass(frozen=True)
class CorpusConfig:
    """One corpus of a mixture; what is empty is as DataConfig has it.

    Attributes:
      weight: its share of the rows, beside the other weights.
      source, train_split, eval_split, text_key, data_dir, task: see DataConfig. An eval_split of
        "none" leaves the corpus out of the evaluation.
    """

    source: str = ""
    weight: float = 1.0
    train_split: str = ""
    eval_split: str = ""
    text_key: str = ""
    data_dir: str = ""
    task: str = ""


@dataclass(frozen=True)
class StageConfig:
    """A part of the run with its own rows; what is 0 or empty is as in the run's beginning.

    Attributes:
      after_step: how many steps are done when it begins.
      sequence_length: tokens a row; it divides data.sequence_length.
      batch_size: rows a step.
      weights: by corpus of the mixture; one that is not named has none.
    """

    after_step: int
    sequence_length: int = 0
    batch_size: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.after_step < 1:
            raise ValueError(f"after_step={self.after_step}: it must be 1 or more")
        for name in ("sequence_length", "batch_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")


@dataclass(frozen=True)
class Corpus:
    """A corpus with everything settled: what a source is told (data/documents.py, Wanted).

    Attributes:
      task: makes examples of its records, and text_key is ""; "" of plain text.
    """

    name: str
    weight: float
    source: str
    train_split: str
    eval_split: str
    text_key: str
    data_dir: str
    invalid_utf8: InvalidUtf8
    task: str = ""


@dataclass(frozen=True)
class DataConfig:
    """Which text, how it becomes tokens, and how these become rows.

    The batch size is not here: it belongs to the run, and is an argument of `Stream`.

    Attributes:
      source: "python_stdlib" (the running Python's standard library), "files:PATTERN" (text,
        JSON lines, Parquet, ArrayRecord), "tfds:name/config" (a prepared TFDS dataset), "hf:name"
        (Hugging Face datasets); see docs/data.md.
      sequence_length: tokens a row (T); the longest one, where stages have others.
      train_split: a split of the source, such as "train" or "train[:95%]"; of "files:" also a
        pattern of file names.
      eval_split: the split to evaluate on, likewise.
      text_key: the feature, field or column that holds the text.
      invalid_utf8: what is not UTF-8 ends the preparation ("refuse"), or becomes U+FFFD and is
        counted ("replace").
      tokenizer: "bpe" or "unigram" (byte-level, trained on the train splits), "byte", or the path
        of a tokenizer; see docs/data.md.
      tokenizer_vocab_size: ids of a trained tokenizer, BOS and EOS included.
      mixture: corpora by name, instead of the one that `source` names.
      stages: changes of weights, length and batch size in the course of the run, by name.
      packing: how documents become rows: "concatenate" or "best_fit" (data/packers.py).
      filters: what is left out of the train splits, or masked in them.
      max_epochs: a corpus that is to be seen more often than this is named before the run starts.
      skip: rows that are not learnt from: "1200" (a step, counted as in the metrics), "1205:3" or
        "1205:3-5" (rows of one).
      seed: orders the rows of each epoch; 0 <= seed < 2**63.
      data_dir: the TFDS data_dir of a "tfds:" source; empty means `tensorflow_datasets` in the
        cache (data/cache.py).
      processes: that prepare data, at most; 0 is one for each core.
      task: "" is plain text; else what becomes of records: a file of data/tasks/, as "NAME" or
        "NAME:ARGUMENT". Source and splits that are left at their defaults are the task's own;
        packing is "best_fit", so that no example is cut.
      too_long: an example that does not fit into a row is left out ("drop"), or shortened on the
        side of its prompt ("cut"), a dialogue by whole turns; either is counted.
      limit: examples of a corpus with a task that are trained on, at most, as many of each label as
        of another; 0 is all.
      chat_template: a file with the template of dialogues; "" is the tokenizer's own.
      rates: weights of a mixture by how many examples its corpora have.

    Raises:
      ValueError: one line that names the field.
    """

    source: str
    sequence_length: int
    train_split: str = "train"
    eval_split: str = "validation"
    text_key: str = "text"
    invalid_utf8: InvalidUtf8 = "refuse"
    tokenizer: str = "bpe"
    tokenizer_vocab_size: int = 4096
    mixture: Mapping[str, CorpusConfig] = field(default_factory=dict)
    stages: Mapping[str, StageConfig] = field(default_factory=dict)
    filters: FilterConfig = OFF
    packing: Packing = "concatenate"
    max_epochs: float = 4.0
    skip: tuple[str, ...] = ()
    seed: int = 0
    data_dir: str = ""
    processes: int = 0
    task: str = ""
    too_long: TooLong = "drop"
    limit: int = 0
    chat_template: str = ""
    rates: RatesConfig = RatesConfig()

    def __post_init__(self) -> None:
        for name in ("train_split", "eval_split", "text_key", "tokenizer"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: give it a value")
        self._check_tasks()
        for corpus in self.corpora():
            prefix = "" if not self.mixture else f"mixture.{corpus.name}."
            try:
                sources.resolve(corpus.source)
            except ValueError as error:
                raise ValueError(f"{prefix}{error}") from None
            if corpus.weight < 0:
                raise ValueError(f"{prefix}weight={corpus.weight}: must not be negative")
            if "://" in corpus.data_dir:
                raise ValueError(
                    f"{prefix}data_dir is {corpus.data_dir!r}: only mounted file systems are read; "
                    "mount the bucket and give its path"
                )
        if all(corpus.eval_split == NO_SPLIT for corpus in self.corpora()):
            raise ValueError(f"eval_split={NO_SPLIT!r}: some corpus has to be evaluated on")
        if self.sequence_length < 2:
            raise ValueError(f"sequence_length is {self.sequence_length}: use 2 or more")
        if self.tokenizer in ("bpe", "unigram") and self.tokenizer_vocab_size < 258:
            raise ValueError(
                f"tokenizer_vocab_size is {self.tokenizer_vocab_size}: use 258 or more "
                "(256 bytes, BOS and EOS)"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: use 0 <= seed < 2**63")
        for name in ("max_epochs", "processes", "limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")

    @property
    def has_tasks(self) -> bool:
        """Whether some corpus is of examples."""
        return any(one.task or self.task for one in self._mixture().values())

    def corpora(self) -> tuple[Corpus, ...]:
        """What is to be read, in the order of the mixture."""
        shared = ("source", "train_split", "eval_split", "text_key", "data_dir", "task")
        found = []
        for name, one in self._mixture().items():
            values = {key: getattr(one, key) or getattr(self, key) for key in shared}
            if values["task"]:
                values |= {"text_key": "", **self._of_task(values)}
            found.append(
                Corpus(name=name, weight=one.weight, invalid_utf8=self.invalid_utf8, **values)
            )
        return tuple(found)

    def is_counted(self, task: str) -> bool:
        """Whether `rates` make the weight of a corpus that has this task, or none."""
        return bool(task or self.task) or not self.has_tasks

    def _mixture(self) -> Mapping[str, CorpusConfig]:
        return self.mixture or {ALONE: CorpusConfig()}

    def _of_task(self, values: Mapping[str, str]) -> dict[str, str]:
        """What a task says where the config leaves it open. Its splits are of files."""
        task = tasks.find(values["task"])
        open_keys = [key for key, usual in _OPEN.items() if values[key] in (usual, "")]
        source = task.source if "source" in open_keys else values["source"]
        if not source.startswith("files:"):
            open_keys = [key for key in open_keys if key == "source"]
        return {key: getattr(task, key) for key in open_keys}

    def _check_tasks(self) -> None:
        for name, one in self._mixture().items():
            if text := one.task or self.task:
                try:
                    tasks.find(text)
                except ValueError as error:
                    prefix = f"mixture.{name}." if one.task else ""
                    raise ValueError(f"{prefix}{error}") from None
        counted = [one for one in self._mixture().values() if self.is_counted(one.task)]
        if self.rates.temperature and any(one.weight != 1 for one in counted):
            raise ValueError(
                f"rates.temperature={self.rates.temperature}: weights follow from counts then: "
                "leave them out (but for plain text beside tasks), or set it to 0"
            )
        if not self.has_tasks:
            if self.limit:
                raise ValueError(f"limit={self.limit}: it is of examples, and there is no task")
            return
        if self.packing != "best_fit":
            raise ValueError(
                f"packing={self.packing!r}: an example is not cut: set "
                "config.data.packing='best_fit'"
            )
        for name, stage in self.stages.items():
            if stage.sequence_length not in (0, self.sequence_length):
                raise ValueError(
                    f"stages.{name}.sequence_length={stage.sequence_length}: rows of examples keep "
                    "their length: leave it out"
                )
        if self.filters != OFF and all(one.task or self.task for one in self._mixture().values()):
            raise ValueError(
                "filters are of plain text, and there is none beside the examples: leave them out"
            )
