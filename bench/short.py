"""Documents of about 400 tokens, cut from long ones."""

from collections.abc import Iterator

import numpy as np

from data.documents import Document, Shard

_CHARACTERS = 1600  # about 400 tokens of English


class Short:
    """The documents of shards, each cut into many of about `_CHARACTERS` characters."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.name, self.size = f"short {shard.name}", shard.size

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        number = 0
        draw = np.random.default_rng(0)
        for document, read in self._shard.documents():
            at = 0
            while at < len(document.text):
                end = at + int(draw.lognormal(np.log(_CHARACTERS), 0.6)) + 1
                if number >= start:
                    yield Document(f"{document.id}:{at}", document.text[at:end]), read
                number, at = number + 1, end
