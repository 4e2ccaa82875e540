"""A chat: turns are kept, and each answer goes on from all of them."""

from collections.abc import Callable
from typing import Any

from data.tokenizing.published import Published
from inference.loading import Loaded, template_of
from inference.texts import Ending, Speed, Text, continued
from model.generation import Generator


class Conversation:
    """Turns of a user and of a model.

    Attributes:
      messages: those so far, {"role", "content"}.

    Args:
      loaded: the model.
      generator: what draws from it.
      ending: what ends an answer.
      system: what the model is told before; empty is the template's own, if it has one.

    Raises:
      UserError: the model has no chat template.
    """

    def __init__(
        self, loaded: Loaded, generator: Generator, ending: Ending, system: str = ""
    ) -> None:
        self._published: Published = template_of(loaded)
        self._loaded, self._generator, self._ending = loaded, generator, ending
        self._system = system
        self.messages: list[dict[str, Any]] = []
        self.reset()

    def reset(self) -> None:
        """Forgets all turns."""
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def ids(self) -> list[int]:
        """What the next answer goes on from."""
        assert self._published.template is not None
        text = self._published.template.render(self.messages, add_generation_prompt=True)
        return self._published.rendered(text)

    def answer(
        self,
        message: str,
        *,
        seed: int = 0,
        show: Callable[[str], None] = lambda piece: None,
        at: Callable[[str], None] = lambda what: None,
        speed: Speed | None = None,
    ) -> Text:
        """The model's answer to a message of the user; both are kept.

        Args:
          message: of the user.
          seed: of the draws.
          show: is called with each piece of the answer.
          at, speed: see inference.texts.continued.

        Raises:
          PromptError: the turns have become longer than the model takes; the message is not kept.
          UserError: the template refuses them.
        """
        self.messages.append({"role": "user", "content": message})
        try:
            (text,) = continued(
                self._generator,
                self._loaded.tokenizer,
                [self.ids()],
                self._ending,
                seed=seed,
                show=lambda _, piece: show(piece),
                at=at,
                speed=speed,
            )
        except BaseException:
            self.messages.pop()
            raise
        self.messages.append({"role": "assistant", "content": text.text})
        return text
