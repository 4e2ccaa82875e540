"""A run, loaded to generate from."""

from typing import NamedTuple

from checkpointing.workdir import PUBLISHED, Workdir
from data import tokenizer as tokenizers
from data.tokenizing.published import Published
from errors import UserError
from evaluation.trained import Trained, load, merged, resolve, tokenizer_of
from model.generation import Generator, Sampling
from sharding.config import MeshConfig
from sharding.table import sharding


class Loaded(NamedTuple):
    """Attributes:
    trained: the model.
    tokenizer: its tokenizer.
    published: what else came with an imported model; None of one that was trained here.
    """

    trained: Trained
    tokenizer: tokenizers.Tokenizer
    published: Published | None

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a text: those that were published, or EOS."""
        named = self.published.stop_ids if self.published else frozenset()
        return named or frozenset({self.tokenizer.eos_id})

    def prompt(self, text: str) -> list[int]:
        """The ids of a prompt. Documents of our own begin with BOS, and so does it, also where a
        run started from an imported model; one for an imported model itself begins as the tokenizer
        that was published with it has it."""
        as_published = self.trained.record.imported and self.published
        if as_published and (ids := as_published.prompt(text)):
            return ids
        return [self.tokenizer.bos_id, *map(int, self.tokenizer.encode_batch([text])[0])]

    def generator(
        self, how: Sampling, *, cache_dtype: str | None = None, top: int = 0
    ) -> Generator:
        """What draws from it; see model/generation.py."""
        model, params, mesh = self.trained.outline, self.trained.params, self.trained.mesh
        where = sharding(mesh, ())
        return Generator(model, params, how, where, cache_dtype=cache_dtype, top=top)


def load_run(
    workdir: str | Workdir,
    step: int | None = None,
    mesh: MeshConfig | None = None,
    rows: int | None = None,
    base: str = "",
) -> Loaded:
    """Loads a checkpoint and its tokenizer.

    Args:
      workdir: of the run.
      step: of the checkpoint; None is the newest.
      mesh: of the devices; None is the one made for decoding.
      rows, base: see evaluation.trained.load.

    Raises:
      UserError: there is none, or the mesh does not fit.
    """
    if isinstance(workdir, str):
        workdir = Workdir(workdir)
    trained = merged(load(workdir, resolve(workdir, step), mesh, rows, base=base))
    tokenizer = tokenizer_of(workdir)
    workdir.fetch(PUBLISHED)
    folder = workdir.local / PUBLISHED
    return Loaded(trained, tokenizer, Published(folder) if folder.is_dir() else None)


def template_of(loaded: Loaded) -> Published:
    """What renders chats.

    Raises:
      UserError: the model has no chat template.
    """
    if loaded.published is None or loaded.published.template is None:
        raise UserError(
            "--chat: this model has no chat template, which `convert.py from-hf` would have put "
            "into WORKDIR/hf/chat_template.jinja; leave --chat out to continue a plain text"
        )
    return loaded.published
