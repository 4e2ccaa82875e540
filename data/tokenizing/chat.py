"""Chat templates: messages as the text that a model was trained to go on from.

A template is a Jinja program that comes with a tokenizer. It is run in Jinja's sandbox, whose
programs can neither reach Python's inside nor change what they are given, with the settings and the
functions that `transformers` gives it.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from errors import UserError

Message = Mapping[str, Any]
"""{"role": "user", "content": "..."}, and what else a template knows."""


class ChatTemplate:
    """A template.

    Args:
      source: the Jinja program.
      specials: spellings that it may use, such as bos_token and eos_token.
      origin: where it came from, for messages.

    Attributes:
      origin: as given.

    Raises:
      UserError: it is no Jinja program.
    """

    def __init__(self, source: str, specials: Mapping[str, str], origin: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationBlocks],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        self._specials, self.origin = dict(specials), origin
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(f"{origin} is not a chat template that Jinja reads: {error}") from None

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool, **variables: Any
    ) -> str:
        """The text of messages.

        Args:
          messages: in order.
          add_generation_prompt: the text ends with what begins the model's answer.
          variables: others that the template knows. As from `transformers`, tools and documents
            are None where they are not given.

        Raises:
          UserError: the template refuses these messages, or fails.
        """
        try:
            text: str = self._template.render(
                {"tools": None, "documents": None} | self._specials | variables,
                messages=messages,
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # a template is a program of others, and may fail as it likes
            raise UserError(f"{self.origin} refuses these messages: {error}") from None
        return text


class _GenerationBlocks(jinja2.ext.Extension):
    """{% generation %} marks, for masks of a loss, what the model has said. Here it is a scope for
    variables, as it is for `transformers`, and nothing else.
    """

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _refuse(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter would escape what HTML gives a meaning."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
