"""A config.json of Hugging Face, read so that nothing in it is overlooked."""

from collections.abc import Mapping
from typing import Any

_NOT_OF_THE_MODEL = frozenset(
    "_name_or_path architectures attn_implementation bos_token_id dtype eos_token_id "
    "initializer_range model_type pad_token_id quantization_config tokenizer_class torch_dtype "
    "transformers_version unk_token_id use_cache".split()
)
"""Keys of every family that change no logit, or that who reads the weights looks at."""

_MISSING: Any = object()


class HfConfigError(ValueError):
    """A config.json that is not, or not wholly, one of a family that Podium has."""


class HfConfig:
    """The keys of a config.json, which notes those that were asked for.

    Args:
      values: as JSON gave them.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self._read: set[str] = set(_NOT_OF_THE_MODEL)

    def get(self, key: str, default: Any = _MISSING) -> Any:
        """The value of a key; `default` where it is missing or null.

        Raises:
          HfConfigError: it is, and there is no default.
        """
        self._read.add(key)
        value = self.values.get(key)
        if value is not None:
            return value
        if default is _MISSING:
            raise HfConfigError(f"config.json has no {key}")
        return default

    def said(self, key: str, unsaid: Any) -> Any:
        """The value of a key; None where it is null, which is something else than `unsaid`, which
        it is where there is none.
        """
        self._read.add(key)
        return self.values.get(key, unsaid)

    def expect(self, key: str, *values: Any) -> None:
        """Refuses a key that has another value than these, all of which mean the first one.

        Raises:
          HfConfigError: so it is.
        """
        found = self.get(key, values[0])
        if found not in values:
            raise HfConfigError(
                f"config.json has {key}={found!r}: Podium's decoder can only do {values[0]!r} here"
            )

    def ignore(self, *keys: str) -> None:
        """Marks keys that change no logit: dropout, and what another key says once more."""
        self._read.update(keys)

    def suppose(self, values: Mapping[str, Any]) -> None:
        """Says what keys are where config.json does not have them, or has null."""
        self.values = {**values, **{k: v for k, v in self.values.items() if v is not None}}

    def unread(self) -> dict[str, Any]:
        """What nobody asked for, and so has no effect."""
        return {key: value for key, value in self.values.items() if key not in self._read}
