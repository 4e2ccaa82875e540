"""From what a file holds to documents: UTF-8, JSON, fields."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from data.documents import NO_METADATA, Document, Wanted, line_of
from errors import UserError

_ID = "id"  # the field that names a document
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACED = "\ufffd"


@dataclass(frozen=True)
class Maker:
    """Makes documents.

    Attributes:
      text_key: the field that holds the text; "" where a document is its whole record.
      replace: bytes that are not UTF-8 become U+FFFD and are counted, instead of being refused.
    """

    text_key: str
    replace: bool

    @classmethod
    def of(cls, wanted: Wanted) -> "Maker":
        return cls(wanted.text_key, wanted.invalid_utf8 == "replace")

    def decode(self, content: bytes, where: str) -> tuple[str, int]:
        """The text of UTF-8 bytes, and how many bytes of it were replaced.

        Raises:
          UserError: it is not UTF-8, and that is refused. `where` stands first in the line.
        """
        try:
            return content.decode(), 0
        except UnicodeDecodeError as error:
            if not self.replace:
                raise UserError(
                    f"{where} is not UTF-8 ({error.reason} at byte {error.start:,}): repair it, or "
                    'set config.data.invalid_utf8="replace"'
                ) from error
        text = content.decode(errors="replace")
        # Of the U+FFFD in the text, those that were there as valid bytes replace nothing.
        replaced = text.count(_REPLACED) - content.count(_REPLACED.encode())
        valid = len(text.encode()) - replaced * len(_REPLACED.encode())
        return text, len(content) - valid

    def from_json(self, content: bytes, name: str, where: str) -> Document:
        """The document of a JSON object.

        Args:
          name: of the document, if the object has no "id".
          where: stands first in messages.

        Raises:
          UserError: it is no object, or not one with a text.
        """
        invalid = 0
        try:
            record = msgspec.json.decode(content)  # holds nothing but its result: lines may be long
        except (ValueError, RecursionError):  # json takes more, and says better what is wrong
            record, invalid = self._lenient(content, where)
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise _refused(where, f"it is JSON, but a {kind}, not an object")
        return self.from_record(record, name, where, invalid)

    def _lenient(self, content: bytes, where: str) -> tuple[Any, int]:
        """What JSON says that may hold bytes and escapes which are no text, and how many bytes."""
        text, invalid = self.decode(content, where)
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _refused(where, f"it is no JSON: {line_of(error)}") from error
        record, found = _without_surrogates(record)
        if found and not self.replace:
            raise UserError(
                f"{where} is not a document (it holds a lone surrogate, which is no text): "
                'repair it, or set config.data.invalid_utf8="replace"'
            )
        return record, invalid + 3 * found  # what each would take in UTF-8

    def from_record(
        self, record: Mapping[str, Any], name: str, where: str, invalid: int = 0
    ) -> Document:
        """The document of a record whose text is a str or bytes, or which is a document whole.

        Raises:
          UserError: it has no text, or what names it cannot.
        """
        if not self.text_key:
            whole = {key: value for key, value in record.items() if _is_plain(value)}
            return Document(self._name(record, name, where), "", whole or NO_METADATA, invalid)
        if self.text_key not in record:
            there = ", ".join(sorted(map(str, record))) or "nothing"
            raise _refused(
                where, f"it has no {self.text_key!r}, but {there}", "set config.data.text_key"
            )
        text = record[self.text_key]
        if isinstance(text, bytes):
            text, more = self.decode(text, where)
            invalid += more
        if not isinstance(text, str):
            kind = "null" if text is None else type(text).__name__
            raise _refused(
                where, f"its {self.text_key!r} is not text but {kind}", "set config.data.text_key"
            )
        metadata = {
            key: value
            for key, value in record.items()
            if key not in (self.text_key, _ID) and _is_plain(value)
        }
        named = self._name(record, name, where)
        return Document(named, text, metadata or NO_METADATA, invalid)

    def _name(self, record: Mapping[str, Any], otherwise: str, where: str) -> str:
        given = record.get(_ID)
        if isinstance(given, bool) or not isinstance(given, str | int | None):
            raise _refused(where, "its 'id' is neither text nor a number")
        return otherwise if given is None else str(given)


def _refused(where: str, what: str, otherwise: str = "leave the file out") -> UserError:
    return UserError(f"{where} is not a document ({what}): repair it, or {otherwise}")


def _is_plain(value: object) -> bool:
    """Whether JSON has such values."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    return value is None or isinstance(value, str | int | float | bool)


def _without_surrogates(value: Any) -> tuple[Any, int]:
    """`value` with U+FFFD for each lone surrogate, and how many those are."""
    if isinstance(value, str):
        return _SURROGATE.subn(_REPLACED, value)
    if isinstance(value, list):
        items = [_without_surrogates(item) for item in value]
        return [item for item, _ in items], sum(found for _, found in items)
    if isinstance(value, dict):
        found_keys = [_without_surrogates(key) for key in value]
        values, found = _without_surrogates(list(value.values()))
        keys = [key for key, _ in found_keys]
        return dict(zip(keys, values, strict=True)), found + sum(n for _, n in found_keys)
    return value, 0
