"""How files become shards: small ones together, large ones alone or in pieces."""

from collections.abc import Sequence
from dataclasses import dataclass

from data.sources.storage import File

# Both determine the order and the names of documents: raise files.VERSION when they change.
GROUP_BYTES = 8 << 20  # of small files that are one shard
CUT_BYTES = 256 << 20  # of a piece of a large file


@dataclass(frozen=True)
class Piece:
    """A file, or the bytes of it from `begin` to before `end`.

    Attributes:
      like: a file of the same format, whose columns this one must have.
    """

    file: File
    begin: int = 0
    end: int | None = None
    like: File | None = None

    @property
    def is_cut(self) -> bool:
        return self.end is not None

    @property
    def size(self) -> int:
        return (self.file.size if self.end is None else self.end) - self.begin

    @property
    def name(self) -> str:
        if self.end is None:
            return self.file.name
        return f"{self.file.name} from byte {self.begin:,} to {self.end:,}"


def cut(file: File, cut_bytes: int = CUT_BYTES) -> list[Piece]:
    """The pieces of a file of lines; a file that is not larger than one stays whole."""
    if file.size <= cut_bytes:
        return [Piece(file)]
    begins = range(0, file.size, cut_bytes)
    return [Piece(file, begin, min(begin + cut_bytes, file.size)) for begin in begins]


def grouped(pieces: Sequence[Piece], group_bytes: int = GROUP_BYTES) -> list[tuple[Piece, ...]]:
    """Consecutive pieces, as many together as have no more than `group_bytes`, or one."""
    groups: list[list[Piece]] = []
    size = 0
    for piece in pieces:
        if not groups or size + piece.size > group_bytes:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += piece.size
    return [tuple(group) for group in groups]
