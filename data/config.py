"""What the data side needs to know."""

from dataclasses import dataclass

from data import sources


@dataclass(frozen=True)
class DataConfig:
    """Which text, how it becomes tokens, and how long a row is.

    The batch size is not here: it belongs to the run, and is an argument of `Stream`.

    Attributes:
      source: "python_stdlib" (the running Python's standard library), "files:PATTERN" (text
        files or JSON lines), or "tfds:name", "tfds:name/config", "tfds:name/config:1.2.3" (a
        prepared TFDS dataset).
      sequence_length: tokens a row (T).
      train_split: a TFDS split expression, such as "train" or "train[:95%]"; of "files:" also a
        pattern of file names.
      eval_split: the split to evaluate on, likewise.
      text_key: the feature, or the field of JSON lines, that holds the text.
      tokenizer: "bpe" (byte-level BPE trained on the train split), "byte", or the path of a
        byte-level `tokenizer.json`.
      tokenizer_vocab_size: ids of the "bpe" tokenizer, BOS and EOS included.
      seed: orders the rows of each epoch; 0 <= seed < 2**63.
      data_dir: the TFDS data_dir of a "tfds:" source; empty means `tensorflow_datasets` in the
        cache (data/cache.py).

    Raises:
      ValueError: one line that names the field.
    """

    source: str
    sequence_length: int
    train_split: str = "train"
    eval_split: str = "validation"
    text_key: str = "text"
    tokenizer: str = "bpe"
    tokenizer_vocab_size: int = 4096
    seed: int = 0
    data_dir: str = ""

    def __post_init__(self) -> None:
        sources.resolve(self.source)
        for field in ("train_split", "eval_split", "text_key", "tokenizer"):
            if not getattr(self, field):
                raise ValueError(f"{field} is empty: give it a value")
        if self.sequence_length < 2:
            raise ValueError(f"sequence_length is {self.sequence_length}: use 2 or more")
        if self.tokenizer == "bpe" and self.tokenizer_vocab_size < 258:
            raise ValueError(
                f"tokenizer_vocab_size is {self.tokenizer_vocab_size}: use 258 or more "
                "(256 bytes, BOS and EOS)"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: use 0 <= seed < 2**63")
        if "://" in self.data_dir:
            raise ValueError(
                f"data_dir is {self.data_dir!r}: only mounted file systems are read; "
                "mount the bucket and give its path"
            )
