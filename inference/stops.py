"""Texts end before strings that nobody is to see."""

from collections.abc import Sequence


class Stops:
    """Releases a text that arrives in pieces, up to the first of some strings.

    What might still become the beginning of one is held back, so that no part of it is ever shown.

    Attributes:
      found: the string that has ended the text; None so far.

    Args:
      strings: the text ends before the first of them that comes; none may be empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        if "" in strings:
            raise ValueError("stop='': a text cannot end before an empty string")
        self._strings, self._held = tuple(strings), ""
        self.found: str | None = None

    def add(self, piece: str) -> str:
        """What may be shown after this piece; nothing once the text has ended."""
        if self.found is not None:
            return ""
        text = self._held + piece
        hits = [(at, string) for string in self._strings if (at := text.find(string)) >= 0]
        # One that has begun earlier may still be completed: it would end the text there.
        first, self.found = min(hits, default=(len(text), None))
        open_at = self._begun(text)
        if self.found is not None and open_at < first:
            self.found = None
        cut = first if self.found is not None else open_at
        self._held = "" if self.found is not None else text[cut:]
        return text[:cut]

    def end(self) -> str:
        """What was held back of a text that ends for another reason."""
        if self.found is not None:
            return ""
        text, self._held = self._held, ""
        hits = [(at, string) for string in self._strings if (at := text.find(string)) >= 0]
        first, self.found = min(hits, default=(len(text), None))
        return text[:first]

    def _begun(self, text: str) -> int:
        """Where the earliest string begins of which all that is left of the text is a part."""
        longest = max((len(string) for string in self._strings), default=1)
        for at in range(max(0, len(text) - longest + 1), len(text)):
            if any(string.startswith(text[at:]) for string in self._strings):
                return at
        return len(text)
