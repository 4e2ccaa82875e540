"""Documents of any size: cut where the ids of the parts, joined, are those of the whole.

A tokenizer needs tens of bytes of memory for each byte of a text, and one thread a text. So a long
text is cut at places where tokenizers end a token whatever comes before and after, and the
tokenizer itself is asked about each: it has to give a window around the cut the ids that it gives
the window's two halves. Text that offers no such place (one word of a megabyte) stays whole.

One kind has ids that depend on how long a text is: a SentencePiece Unigram model adds up scores in
float32 from the beginning of the text, so that far into a long one about a token in a million falls
to another split that is as likely. There the ids of the parts are what counts.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from data.tokenizer import Tokenizer

LIMIT = 1 << 18  # characters of a part
_GROUP = 8  # parts at a time: a few MB, and work for as many threads
_WINDOW = 1024  # characters on each side of a cut that the tokenizer is asked about
_BLOCK = 4096  # characters that are looked through for cuts at a time
_TRIES = 16  # cuts tried before the part grows

# Where to cut, best first. No pattern that cuts text into words has a piece that goes on over a
# space, or over the end of a word into a mark: a piece that has come so far ends there, wherever it
# began, so that what lies before the cut cannot shift what comes after it. What a pattern makes of
# white space depends on what follows the whole run, so a run is not cut, nor cut off, unless it is
# one line end.
_CUTS = (
    re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])"),  # between two words
    re.compile(r"(?<=\S)(?= )"),  # before a space
    re.compile(r"(?<=[^\W_])(?=[^\w'\u2019])"),  # after a word or number
    re.compile(r"(?:(?<=\S\n)|(?<=\S\r\n))(?=\S)"),  # between two lines
)


def encode_documents(
    tokenizer: Tokenizer, texts: Sequence[str], limit: int = LIMIT
) -> list[np.ndarray]:
    """The ids of each text, uint32, as `encode_batch` gives them; long texts go in parts.

    This spreads a few long texts over all threads. It holds all ids: see `encode_long`.
    """
    cut = [list(pieces(text, tokenizer, limit)) for text in texts]
    encoded = iter(_encode(tokenizer, [p for parts in cut for p in enumerate(parts)]))
    return [np.concatenate(list(itertools.islice(encoded, len(parts)))) for parts in cut]


def encode_long(tokenizer: Tokenizer, text: str, limit: int = LIMIT) -> Iterator[np.ndarray]:
    """The ids of one text of any size, uint32, as arrays to be joined in this order.

    Memory beyond the text itself does not grow with it, where it can be cut.
    """
    parts = enumerate(pieces(text, tokenizer, limit))
    while group := list(itertools.islice(parts, _GROUP)):
        yield from _encode(tokenizer, group)


def pieces(text: str, tokenizer: Tokenizer, limit: int = LIMIT) -> Iterator[str]:
    """Cuts a text where the ids of the parts, joined, are the ids of the whole.

    Args:
      text: of any length.
      tokenizer: that will encode the first part with `encode_batch`, the others with
        `encode_inner`.
      limit: characters of a part, at most; more where no cut is found. 2 or more.

    Yields:
      parts that joined are `text`; one part, maybe empty, where it is not longer than `limit`.
    """
    start = 0
    while len(text) - start > limit:
        end = _find_cut(text, tokenizer, start, limit)
        if end is None:
            break
        yield text[start:end]
        start = end
    yield text[start:]


def _encode(tokenizer: Tokenizer, parts: Sequence[tuple[int, str]]) -> list[np.ndarray]:
    """The ids of parts, each given with its number in its document."""
    if not tokenizer.prefix_bytes:
        return tokenizer.encode_batch([part for _, part in parts])
    first = iter(tokenizer.encode_batch([part for i, part in parts if i == 0]))
    inner = iter(tokenizer.encode_inner([part for i, part in parts if i > 0]))
    return [next(inner if i > 0 else first) for i, _ in parts]


def _find_cut(text: str, tokenizer: Tokenizer, start: int, limit: int) -> int | None:
    """The end of a part from `start` on, about `limit` long; None if the rest stays whole."""
    low, high = start + max(limit // 2, 1), start + limit
    while low < len(text):
        cuts = _candidates(text, low, min(high, len(text)))
        for cut in itertools.islice(cuts, _TRIES):
            if _keeps_ids(text, tokenizer, cut):
                return cut
        low, high = high, high + limit
    return None


def _candidates(text: str, low: int, high: int) -> Iterator[int]:
    """Cuts in text[low:high], backwards: the last one of each kind in every block, best first."""
    for end in range(high, low, -_BLOCK):
        for pattern in _CUTS:
            found = (match.start() for match in pattern.finditer(text, max(low, end - _BLOCK), end))
            # A mark belongs to the letter before it.
            cuts = [c for c in found if c < len(text) and unicodedata.category(text[c])[0] != "M"]
            yield from cuts[-1:]


def _keeps_ids(text: str, tokenizer: Tokenizer, cut: int) -> bool:
    before, after = text[max(cut - _WINDOW, 0) : cut], text[cut : cut + _WINDOW]
    whole, left, right = tokenizer.encode_inner([before + after, before, after])
    return np.array_equal(whole, np.concatenate([left, right]))
