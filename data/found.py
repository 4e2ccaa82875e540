"""A corpus of a config, with the source that it names."""

from collections.abc import Sequence

from data import sources, tasks
from data.config import Corpus
from data.documents import Document, Progress, Shard, Source
from data.examples import rendering


class Found:
    """A corpus whose source was found; its splits are opened when they are needed.

    Attributes:
      corpus: which.
      progress: see data.documents.Progress.
      source: of its documents.

    Raises:
      UserError: there is no such source.
    """

    def __init__(self, corpus: Corpus, progress: Progress) -> None:
        self.corpus, self.progress = corpus, progress
        self.source: Source = sources.find(corpus.source, corpus, progress)
        self._shards: dict[str, Sequence[Shard]] = {}

    def shards(self, split: str) -> Sequence[Shard]:
        """The shards of a split."""
        if split not in self._shards:
            self._shards[split] = self.source.shards(split)
        return self._shards[split]

    def key(self, split: str) -> dict[str, str]:
        """What determines the documents of a split, and the examples that a task makes of them."""
        task = {"task": tasks.identity(self.corpus.task)} if self.corpus.task else {}
        return task | {
            "source": self.source.fingerprint,
            "split": split,
            "text_key": self.corpus.text_key,
            "invalid_utf8": self.corpus.invalid_utf8,
        }

    def text_of(self, document: Document) -> str:
        """The text of a document; of a record, that of the example that it is."""
        if not self.corpus.task:
            return document.text
        return rendering.text_of(tasks.find(self.corpus.task), self.corpus.task, document)
