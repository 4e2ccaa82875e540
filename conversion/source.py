"""What is converted: a folder, or a model of the hub, which is brought into one."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from conversion.safetensors_files import Stored
from errors import UserError

CARRIED = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("tokenizer.model", "chat_template.jinja", "chat_template.json"),
)
"""Small files that go along with a model."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
_SAMPLES, _SAMPLE_BYTES = 64, 4096  # of each file of weights, for the fingerprint


class Source(NamedTuple):
    """Attributes:
    name: for people: the path or the id.
    folder: on this machine.
    hf: its config.json.
    """

    name: str
    folder: Path
    hf: dict[str, Any]

    @property
    def text(self) -> dict[str, Any]:
        """The config of the text part, which is all of it but for multimodal models."""
        inner = self.hf.get("text_config")
        return inner if isinstance(inner, dict) else self.hf

    @property
    def quantization(self) -> dict[str, Any]:
        """In which form the weights are; empty if there is nothing to say."""
        found = self.hf.get("quantization_config") or self.text.get("quantization_config")
        return found if isinstance(found, dict) else {}

    def fingerprint(self, tensors: Mapping[str, Stored]) -> str:
        """A name for config and weights: 32 hexadecimal digits, of headers and of samples of the
        weights, since reading them all takes as long as converting them.
        """
        digest = hashlib.sha256(json.dumps(self.hf, sort_keys=True).encode())
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        for path in sorted({tensor.file for tensor in tensors.values()}):
            size = path.stat().st_size
            with path.open("rb") as file:
                for i in range(_SAMPLES):
                    file.seek(max(0, size - _SAMPLE_BYTES) * i // max(1, _SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()[:32]


def find(text: str) -> Source:
    """The folder of a path, or of an id of the hub.

    Raises:
      UserError: there is none, or it has no config.json.
    """
    name, folder = text, Path(text).expanduser()
    if not folder.is_dir():
        if folder.exists() or not _HUB_ID.fullmatch(text):
            raise UserError(
                f"{text}: give a folder with config.json, or an id of the hub, ORG/NAME"
            )
        name, folder = _downloaded(text)
    try:
        hf = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(hf, dict):
            raise ValueError("no object")
    except OSError as error:
        raise UserError(f"{text} has no config.json: is it a model of transformers?") from error
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is damaged: copy it again") from error
    return Source(name, folder, hf)


def _downloaded(text: str) -> tuple[str, Path]:
    """A model of the hub in the hub's own cache; its name says which version it is."""
    model, _, revision = text.partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise UserError(
            f"{text} is no folder, and models of the hub need the package huggingface_hub: `make "
            "setup HF=1`"
        ) from error
    try:
        path = snapshot_download(
            model,
            revision=revision or None,
            allow_patterns=["*.safetensors", "model.safetensors.index.json", *CARRIED],
            ignore_patterns=["*/*", "consolidated*"],  # other forms of the same weights
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UserError(f"{text} cannot be had from the hub: {line}") from error
    return f"{model}@{Path(path).name}", Path(path)
