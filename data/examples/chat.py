"""Dialogues as a model's own chat template writes them, and what of them its assistant says.

A template is asked again after every message. What an answer adds to the text that asks for it is
what is learned of it, with whatever ends the turn; so nothing is searched for in the text, and a
template of which the beginning of a dialogue is no beginning of the whole is refused. So is an
answer whose first token is one with the end of what asks for it: a model that is asked has other
tokens before it than those that it learned from.
"""

import datetime
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers as tokenizers_library
from etils import epath

from data import cache
from data import tokenizer as tokenizers
from data.tokenizer import ByteLevelTokenizer, Tokenizer
from data.tokenizing.chat import ChatTemplate
from data.tokenizing.published import FOLDER, Published
from errors import UserError

ASSISTANT = "assistant"
_SYSTEM = ("system", "developer")
_TEMPLATE, _TOKENIZER, _CONFIG = "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"
_FILES = (_TOKENIZER, _CONFIG, _TEMPLATE)
_PROBE = "What is 12 + 30? It's forty-two."  # text whose ids tell tokenizers apart
_TODAY = datetime.date(2024, 7, 26)  # in a store, which is the same whenever it is built

Files = Mapping[str, bytes]
"""The files of a chat template, by their names in a folder that Published reads."""


def files_of(tokenizer: Tokenizer, path: str, template: str) -> Files:
    """The chat template of a tokenizer, with what spells its specials.

    Args:
      tokenizer: of the run.
      path: data.tokenizer, where that is a path. The template lies in the folder `hf` beside it, as
        convert.py leaves it, or with it.
      template: data.chat_template, a file with another; "" is the tokenizer's own.

    Raises:
      UserError: there is none, or none that can be used with this tokenizer.
    """
    found = _published(path)
    if found is not None:
        _check_ids(tokenizer, found, path)
    if not template:
        if found is None:
            raise UserError(
                f"config.data.tokenizer={path!r} has no chat template, and the task has dialogues: "
                "give a tokenizer that comes with one, or config.data.chat_template=FILE.jinja"
            )
        return found
    try:
        source = epath.Path(template).read_bytes()
    except OSError as error:
        raise UserError(
            f"config.data.chat_template={template!r} cannot be read ({error.strerror}): give the "
            "path of a file"
        ) from error
    ChatTemplate(source.decode(errors="replace"), {}, f"config.data.chat_template={template!r}")
    if found is not None:
        return {**found, _TEMPLATE: source}
    if not isinstance(tokenizer, ByteLevelTokenizer):
        raise UserError(
            f"config.data.tokenizer={path!r} spells no specials, which chat templates write: use "
            "'bpe', 'unigram', or the path of a tokenizer.json"
        )
    named = {
        "bos_token": tokenizer.spelling(tokenizer.bos_id),
        "eos_token": tokenizer.spelling(tokenizer.eos_id),
    }
    return {
        _TOKENIZER: tokenizer.serialized.encode(),
        _CONFIG: json.dumps(named).encode(),
        _TEMPLATE: source,
    }


def _check_ids(tokenizer: Tokenizer, found: Files, path: str) -> None:
    """Refuses files that are of another tokenizer than the run's."""
    try:
        made = tokenizers_library.Tokenizer.from_str(found[_TOKENIZER].decode())
    except Exception as error:  # the library raises nothing more precise
        raise UserError(
            f"the {_TOKENIZER} beside the chat template of config.data.tokenizer={path!r} cannot "
            "be read: copy it again"
        ) from error
    ids = made.encode(_PROBE, add_special_tokens=False).ids
    same = ids == tokenizer.encode_batch([_PROBE])[0].tolist()
    if same and isinstance(tokenizer, ByteLevelTokenizer):
        ends = (tokenizer.bos_id, tokenizer.eos_id)
        same = all(made.id_to_token(i) == tokenizer.spelling(i) for i in ends)
    if not same:
        raise UserError(
            f"the chat template of config.data.tokenizer={path!r} comes with another tokenizer: "
            "give that tokenizer, or config.data.chat_template=FILE.jinja"
        )


def _published(path: str) -> Files | None:
    """Files with a template, beside a tokenizer or in the folder of what was published with it."""
    if path in tokenizers.TRAINERS or path == "byte":
        return None
    at = epath.Path(path).expanduser()
    folder = at if at.is_dir() else at.parent
    for place in (folder / FOLDER, folder):
        files = {name: (place / name).read_bytes() for name in _FILES if (place / name).exists()}
        if _TOKENIZER in files and (
            _TEMPLATE in files or b'"chat_template"' in files.get(_CONFIG, b"")
        ):
            return files
    return None


def identity(files: Files) -> str:
    """Names a template, what spells its specials, and what runs it."""
    parts = {name: content.hex() for name, content in files.items()}
    return cache.key(**parts, jinja=importlib.metadata.version("jinja2"))


def later(messages: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
    """A dialogue without its first turn: it begins with what the user says next, after the system's
    message if there is one. Empty where the user says nothing more.
    """
    head = int(bool(messages) and messages[0]["role"] in _SYSTEM)
    begins = [i for i, one in enumerate(messages) if i > head and one["role"] == "user"]
    return messages[:head] + messages[begins[0] :] if begins else ()


class Span(NamedTuple):
    """What is learned of an answer.

    Attributes:
      message: its number, from 1.
      begin, end: in the text of the dialogue, in characters.
    """

    message: int
    begin: int
    end: int


class Chat:
    """Writes dialogues.

    Args:
      folder: with the files of `files_of`.

    Raises:
      UserError: the template is no program.
    """

    def __init__(self, folder: Path) -> None:
        self._published = Published(folder)

    def asked(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[int]]:
        """What an answer to messages goes on from, as text and as tokens.

        Raises:
          ValueError: the template refuses them.
        """
        template = self._published.template
        assert template is not None  # files_of
        text = _written(template, messages, True)
        return text, self._published.rendered(text)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a dialogue.

        Returns:
          ids, uint32 [m]; learned, bool [m].

        Raises:
          ValueError: one line says what is wrong with the messages, or with the template.
        """
        text, spans = self.spans(messages)
        ids, starts = self._published.placed(text)
        found = self._published.spelled(ids.tolist())
        # White space beside a special is the decoder's own in some kinds of tokenizers.
        if "".join(found.split()) != "".join(text.split()):
            raise ValueError("the tokenizer loses text of it: use a lossless byte-level tokenizer")
        learned = np.zeros(len(ids), np.bool_)
        for message, begin, end in spans:
            asked = self._published.rendered(text[:begin])
            if ids[: len(asked)].tolist() != asked:
                raise ValueError(
                    f"the beginning of message {message} is one token with the end of what asks "
                    "for it, so that a model that is asked would go on from other tokens: take "
                    "white space from where it begins, or from the end of what the chat template "
                    "asks with"
                )
            learned |= (starts >= begin) & (starts < end)
        learned[:1] = False
        return ids, learned

    def spans(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[Span]]:
        """The text of a dialogue, and where in it is what is learned.

        Raises:
          ValueError: as of `render`.
        """
        template = self._published.template
        assert template is not None  # files_of
        spans, so_far = [], ""
        for n, message in enumerate(messages, 1):
            whole = _written(template, messages[:n], False)
            asks = message.get("role") == ASSISTANT
            before = _written(template, messages[: n - 1], True) if asks else so_far
            for part, what in ((so_far, ""), (before, " and what asks for an answer")):
                if not whole.startswith(part):
                    raise ValueError(
                        f"what the chat template writes of the first {n - 1} messages{what} does "
                        f"not begin what it writes of the first {n}, so that nobody can tell what "
                        "is learned: give config.data.chat_template one that only adds"
                    )
            if asks:
                spans.append(Span(n, len(before), len(whole)))
            so_far = whole
        return so_far, spans


def _written(template: ChatTemplate, messages: Sequence[Mapping[str, Any]], asks: bool) -> str:
    if not messages and not asks:
        return ""
    try:
        return template.render(messages, add_generation_prompt=asks, strftime_now=_TODAY.strftime)
    except UserError as error:
        # It was copied to where the store is built: that says nothing to anybody.
        raise ValueError(str(error).replace(template.origin, "the chat template")) from None
