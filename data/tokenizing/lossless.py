"""The test that every tokenizer passes when it is loaded: text comes back, byte for byte."""

from collections.abc import Callable, Sequence

import numpy as np

from errors import UserError

# Non-NFC and astral characters, controls, line ends, runs of white space, marks without a base,
# right-to-left, and the character that SentencePiece writes for a space; one begins with a space
# and one with a letter, since some tokenizers put a space before the latter.
_PROBES = (
    " a  b\t\r\n\n   e\u0301\u00e9 \ufb01\u212b \ud55c\uae00 \U0001f469\u200d\U0001f4bb "
    "\x00\x7f\ufeff 12345 _x__ ",
    "Abc ABC\u2581d\u2581\u2581 \u0301\u0301x \u05e9\u05dc\u05d5\u05dd\u200f \uff21\u3000\u2028\x85"
    "\xa0\u1e9e\u0130\n",
)


def check(
    encode: Callable[[Sequence[str]], list[np.ndarray]],
    tokens: Sequence[bytes],
    prefix: str,
    origin: str,
    also: Sequence[str] = (),
) -> None:
    """Encodes hard texts and compares the bytes that their ids stand for.

    Args:
      encode: texts to ids.
      tokens: the bytes of each id.
      prefix: what the tokenizer puts before each text.
      origin: where the tokenizer came from, for the message.
      also: further texts to try.

    Raises:
      UserError: a text does not come back.
    """
    texts = [*_PROBES, *also]
    for text, ids in zip(texts, encode(texts), strict=True):
        if b"".join(tokens[i] for i in ids.tolist()) != (prefix + text).encode():
            raise UserError(
                f"{origin} does not give every text back (a normalizer, an unknown token or an "
                "added space?): give the path of a lossless tokenizer"
            )
