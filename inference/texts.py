"""Prompts become texts: batches, samples, what ends a text, and how fast it went."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from data.tokenizer import StreamingDecoder, Tokenizer
from inference.stops import Stops
from model.generation import Generator


@dataclasses.dataclass
class Text:
    """What a prompt was continued with.

    Attributes:
      prompt: which one it was, counted from 0.
      sample: which of its samples, counted from 0.
      text: without what ended it.
      ids: of the tokens that were drawn, without an id that ended the text. If a string ended it,
        the last of them are of that string.
      logprobs: of these tokens, by the model's own distribution.
      top: of each token the likeliest ids and their log-probabilities, if they were asked for.
      finish: "stop" if an id or a string ended it, "length" if max_tokens did.
    """

    prompt: int
    sample: int
    text: str = ""
    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    top: list[list[tuple[int, float]]] = dataclasses.field(default_factory=list)
    finish: str = ""


@dataclasses.dataclass
class Speed:
    """Attributes:
    prompt_tokens, prompt_s: tokens that were fed as prompts, and how long that and the first
      draw took.
    tokens, seconds: tokens that were drawn after the first of each text, and how long it took.
    compile_s: spent on compiling before.
    """

    prompt_tokens: int = 0
    prompt_s: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    compile_s: float = 0.0

    def __str__(self) -> str:
        every, spent = self.prompt_tokens + self.tokens, self.prompt_s + self.seconds
        return (
            f"prompts {self.prompt_tokens} tokens, {_rate(self.prompt_tokens, self.prompt_s)}; "
            f"text {self.tokens} tokens, {_rate(self.tokens, self.seconds)}; "
            f"all {_rate(every, spent)}, after {self.compile_s:.1f} s of compiling"
        )


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:,.1f} tokens/s" if seconds else "none"


class Ending(NamedTuple):
    """What ends a text, besides its ids and strings: a number of tokens.

    Attributes:
      max_tokens: at most so many.
      ids: that end it.
      strings: it ends before the first of them.
    """

    max_tokens: int
    ids: frozenset[int]
    strings: tuple[str, ...] = ()


class _Row:
    """A text that grows."""

    def __init__(self, text: Text, tokenizer: Tokenizer, ending: Ending) -> None:
        self.text, self._ending = text, ending
        self._decoder, self._stops = StreamingDecoder(tokenizer), Stops(ending.strings)

    def add(self, token: int, logprob: float, top: list[tuple[int, float]]) -> str:
        """Takes a token, and returns what of the text it completes."""
        text = self.text
        if token in self._ending.ids:
            return self._end("stop")
        text.ids.append(token)
        text.logprobs.append(logprob)
        if top:
            text.top.append(top)
        piece = self._show(self._decoder.add(token))
        if self._stops.found is not None:
            text.finish = "stop"
        elif len(text.ids) == self._ending.max_tokens:
            piece += self._end("length")
        return piece

    def _end(self, finish: str) -> str:
        piece = self._show(self._decoder.end())
        rest = self._stops.end()
        self.text.text += rest
        self.text.finish = "stop" if self._stops.found is not None else finish
        return piece + rest

    def _show(self, piece: str) -> str:
        piece = self._stops.add(piece)
        self.text.text += piece
        return piece


def continued(
    generator: Generator,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    ending: Ending,
    *,
    seed: int = 0,
    num_samples: int = 1,
    batch_size: int = 8,
    show: Callable[[Text, str], None] = lambda text, piece: None,
    at: Callable[[str], None] = lambda what: None,
    speed: Speed | None = None,
) -> Iterator[Text]:
    """Continues prompts.

    Sample i of a prompt is drawn with seed + i: it is what that seed alone would give, whatever
    else is asked for.

    Args:
      generator: what draws.
      tokenizer: of its model.
      prompts: ids, see Loaded.prompt.
      ending: what ends a text.
      seed: of the draws.
      num_samples: texts of each prompt.
      batch_size: texts at a time.
      show: is called with each piece of a text as soon as it is certain.
      at: is called with what is being done, before it begins.
      speed: to which is added how fast it went.

    Returns:
      the texts in order, samples of a prompt one after the other, each batch once it is done.

    Raises:
      PromptError: a prompt that is empty or, with max_tokens, longer than the model takes.
    """
    speed = speed if speed is not None else Speed()
    wanted = [(p, s) for p in range(len(prompts)) for s in range(num_samples)]
    size = max(min(batch_size, len(wanted)), 1)
    for begin in range(0, len(wanted), size):
        part = wanted[begin : begin + size]
        # The last batch is filled up, so that it needs no programs of its own.
        filled = part + part[-1:] * (size - len(part))
        ids, seeds = [prompts[p] for p, _ in filled], [seed + s for _, s in filled]
        at("compiling")
        began = time.perf_counter()
        generator.warm(ids, max_tokens=ending.max_tokens)
        compiled = time.perf_counter()
        at("feeding the prompts")
        rows = [_Row(Text(p, s), tokenizer, ending) for p, s in part]
        first = 0.0
        drawn = generator.rows(ids, max_tokens=ending.max_tokens, seeds=seeds)
        for index, one in enumerate(drawn):
            first = first or time.perf_counter()
            growing = [i for i, row in enumerate(rows) if not row.text.finish]
            for i in growing:
                top_ids, top_logprobs = one.top_ids_BR[i].tolist(), one.top_logprobs_BR[i].tolist()
                top = list(zip(top_ids, top_logprobs, strict=True))
                piece = rows[i].add(int(one.tokens_B[i]), float(one.logprobs_B[i]), top)
                show(rows[i].text, piece)
            speed.tokens += len(growing) if index else 0
            if all(row.text.finish for row in rows):
                break
            at(f"drawing token {index + 2}")
        ended = time.perf_counter()
        first = first or ended  # with max_tokens=0 nothing is drawn
        speed.compile_s += compiled - began
        speed.prompt_tokens += sum(map(len, ids[: len(part)]))
        speed.prompt_s += first - compiled
        speed.seconds += ended - first
        yield from (row.text for row in rows)
