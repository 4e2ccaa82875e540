"""Documents as people read them."""

import itertools
from collections.abc import Iterator

import numpy as np

from data.tokenizer import ByteLevelTokenizer, Tokenizer, decode

_MARKS = {True: ("\x1b[1;32m", "\x1b[0m"), False: ("[[", "]]")}
"""What is before and after what is learned: bold and green on a terminal."""


def printable(line: str) -> str:
    """The line with the control characters in it spelled out: a terminal would obey them."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)


def shortened(text: str, width: int) -> str:
    """The text, or its beginning and its end."""
    if not width or len(text) <= width:
        return text
    return f"{text[: width - width // 2]} ... {text[len(text) - width // 2 :]}"


def marked(
    tokenizer: Tokenizer, ids: np.ndarray, learned: np.ndarray, width: int, colours: bool
) -> Iterator[str]:
    """The lines of an example, with its specials spelled out and what is learned between marks.

    Args:
      ids: [m].
      learned: bool [m].
      width: characters of what is learned, and of what is not, half of them from its end; 0 is all.
      colours: marks are those of a terminal.
    """
    bounds = [0, *(np.flatnonzero(learned[1:] != learned[:-1]) + 1).tolist(), len(ids)]
    runs = [
        (shortened(_spelled(tokenizer, ids[low:high]), width), bool(learned[low]))
        for low, high in itertools.pairwise(bounds)
    ]
    begin, end = _MARKS[colours]
    line = ""
    for text, is_learned in runs:
        # A line end that ends a run belongs to it, and what is learned is marked line by line.
        for i, part in enumerate(text.split("\n")):
            if i:
                yield line
                line = ""
            shown = printable(part)
            line += f"{begin}{shown}{end}" if is_learned and shown else shown
    if line:
        yield line


def _spelled(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """Text of ids, in which specials are seen."""
    parts = []
    for is_special, some in itertools.groupby(ids.tolist(), tokenizer.special_ids.__contains__):
        if is_special:
            parts += [_spelling(tokenizer, i) for i in some]
        else:
            parts.append(decode(tokenizer, some))
    return "".join(parts)


def _spelling(tokenizer: Tokenizer, special: int) -> str:
    if isinstance(tokenizer, ByteLevelTokenizer):
        return tokenizer.spelling(special)
    names = {tokenizer.bos_id: "<BOS>", tokenizer.eos_id: "<EOS>"}
    return names.get(special, f"<{special}>")
