"""How likely each of a task's labels is after a prompt.

A row is a prompt and the tree of all labels (evaluation/tasks/trie.py) behind it, in one forward
pass: a token of the tree sees the prompt and what is above it, and has the position that it has in
its label. So a prompt is computed once, what labels share is too, and keys and values of the prompt
are copied for none of them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cluster.interrupts import BrokenOff, Vote
from evaluation.tasks.trie import Trie
from model import parameters
from model.attention import attend_where, window_of
from model.config import ModelConfig
from model.decoder import Decoder
from model.layers import Attend
from sharding.config import MeshConfig
from sharding.means import means
from sharding.placement import place_rows
from sharding.table import sharding

_BLOCK = 512  # queries whose scores are in memory at a time
_LEAST = 16  # tokens that a prompt is padded to: shorter programs would be many, and no faster


class Likelihoods:
    """Log-likelihoods of labels.

    Args:
      config: of the decoder.
      mesh: of its parameters.
      layout: see sharding/means.py.
      shardings: of its parameters.
      labels: the tree.
      batch_size: prompts at a time.
    """

    def __init__(
        self,
        config: ModelConfig,
        mesh: Mesh,
        layout: MeshConfig | None,
        shardings: Any,
        labels: Trie,
        batch_size: int,
    ) -> None:
        self._mesh, self._labels, self._batch_size = mesh, labels, batch_size
        self._room = config.max_length - labels.depth
        attend = _attend(config, labels)
        outline = parameters.outline(config, means(mesh, config, layout)._replace(attend=attend))
        self._score = jax.jit(
            functools.partial(_score, outline, labels),
            in_shardings=(shardings, sharding(mesh, ("batch",))),
            out_shardings=sharding(mesh, ()),
        )

    def too_long(self, prompt: Sequence[int]) -> str:
        """What is to be said of a prompt that with the labels is longer than the model takes."""
        if len(prompt) <= self._room:
            return ""
        depth, room = self._labels.depth, self._room + self._labels.depth
        return f"its {len(prompt)} tokens and {depth} of the labels exceed the model's {room}"

    def __call__(
        self,
        params: parameters.Params,
        prompts: Sequence[Sequence[int]],
        progress: Callable[[int, int], None] = lambda done, total: None,
        vote: Vote | None = None,
    ) -> np.ndarray:
        """Log-likelihoods [prompts, labels], float64, nats, of whole labels.

        Args:
          params: the parameters.
          prompts: ids, with BOS; none may be `too_long`, or empty.
          progress: called with (batches done, of how many).
          vote: see evaluation.perplexity.evaluate.

        Raises:
          BrokenOff: the vote was to stop.
        """
        found = np.zeros((len(prompts), len(self._labels.paths)))
        # Those of a batch are about as long, and padded little.
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        parts = [order[i : i + self._batch_size] for i in range(0, len(order), self._batch_size)]
        pending: tuple[list[int], jax.Array] | None = None
        stop: jax.Array | bool = False

        def take(pending: tuple[list[int], jax.Array]) -> None:
            part, branches_BE = pending
            found[part] = self._labels.sums(jax.device_get(branches_BE)[: len(part)])

        for index, part in enumerate(parts):
            width = rounded(len(prompts[part[-1]]))
            filled = [*part, *part[-1:] * (self._batch_size - len(part))]
            make = functools.partial(_rows, [prompts[i] for i in filled], width)
            batch = place_rows(self._mesh, self._batch_size, make)
            branches_BE = self._score(params, batch)
            if pending is not None:  # one batch behind, so that the devices never wait
                take(pending)
                if stop:
                    raise BrokenOff
            pending, stop = (part, branches_BE), vote() if vote is not None else False
            progress(index + 1, len(parts))
        if pending is not None:
            take(pending)
        return found


class Choice(NamedTuple):
    """Which label is the likeliest.

    Attributes:
      label: the first of the likeliest.
      share: of the likeliest labels the asked one is: 1 or 0; where several are equally likely
        and it is one of them, one part of them.
    """

    label: int
    share: float


def choose(scores: np.ndarray, asked: int) -> Choice:
    """The likeliest label by the scores [labels] of all; `asked` is the right one."""
    best = np.flatnonzero(scores == scores.max())
    return Choice(int(best[0]), float(asked in best) / len(best))


def _rows(prompts: Sequence[Sequence[int]], width: int, rows: slice) -> dict[str, np.ndarray]:
    chosen = prompts[rows]
    tokens_BT = np.zeros((len(chosen), width), np.int32)
    for row, prompt in enumerate(chosen):
        tokens_BT[row, width - len(prompt) :] = prompt
    padding_B = np.array([width - len(prompt) for prompt in chosen], np.int32)
    return {"tokens": tokens_BT, "padding": padding_B}


def rounded(length: int) -> int:
    """A power of two, or one and a half of one: few programs for prompts of many lengths."""
    power = 1 << (length - 1).bit_length()
    return max(_LEAST, power if 4 * length > 3 * power else 3 * power // 4)


def _attend(config: ModelConfig, labels: Trie) -> Attend:
    """Attention of rows that end with the tree; segment 0 is padding before the prompt."""

    def attend(
        q_BTNH: jax.Array,
        k_BTKH: jax.Array,
        v_BTKH: jax.Array,
        segments_BT: jax.Array,
        local: jax.Array | None = None,
        sinks_N: jax.Array | None = None,
        /,
    ) -> jax.Array:
        length, fed = q_BTNH.shape[1], len(labels.tokens_M)
        prompt = length - fed
        # Where a token would stand if its label were the only one.
        at_T = np.concatenate([np.arange(prompt), prompt - 1 + labels.depth_M])
        sees_TT = np.tril(np.ones((length, length), bool))
        sees_TT[prompt:, prompt:] = labels.sees_MM
        near_TT = jnp.asarray(sees_TT)
        window = window_of(config, local)
        if not (isinstance(window, int) and window == 0):
            near_TT &= jnp.asarray(at_T[:, None] - at_T[None, :]) < window

        def some(near_tT: jax.Array, q_BtNH: jax.Array, segments_Bt: jax.Array) -> jax.Array:
            mask_BtT = near_tT[None] & (segments_Bt[:, :, None] == segments_BT[:, None, :])
            return attend_where(
                mask_BtT,
                q_BtNH,
                k_BTKH,
                v_BTKH,
                softcap=config.attention_softcap,
                sinks_N=sinks_N,
            )

        if length <= _BLOCK:
            return some(near_TT, q_BTNH, segments_BT)
        blocks = -(-length // _BLOCK)
        padding = blocks * _BLOCK - length  # of the last query, so that each has a key

        def cut(x: jax.Array, axis: int) -> jax.Array:
            x = jnp.pad(x, [(0, padding if d == axis else 0) for d in range(x.ndim)], mode="edge")
            x = x.reshape(*x.shape[:axis], blocks, _BLOCK, *x.shape[axis + 1 :])
            return jnp.moveaxis(x, axis, 0)

        parts = cut(near_TT, 0), cut(q_BTNH, 1), cut(segments_BT, 1)
        found = jnp.moveaxis(jax.lax.map(lambda part: some(*part), parts), 0, 1)
        return found.reshape(found.shape[0], -1, *found.shape[3:])[:, :length]

    return attend


def _score(
    outline: Decoder,
    labels: Trie,
    params: parameters.Params,
    batch: dict[str, jax.Array],
) -> jax.Array:
    """Log-likelihoods of branches [B, E], float32."""
    decoder, config = parameters.bind(outline, params), outline.config
    rows, prompt = batch["tokens"].shape
    tree_BM = jnp.broadcast_to(labels.tokens_M, (rows, len(labels.tokens_M)))
    tokens_BT = jnp.concatenate([batch["tokens"], tree_BM], axis=1)
    at_T = jnp.concatenate([jnp.arange(prompt), prompt - 1 + jnp.asarray(labels.depth_M)])
    at_BT = at_T[None] - batch["padding"][:, None]
    segments_BT = (at_BT >= 0).astype(jnp.int32)
    x_BTD = decoder.features(tokens_BT, jnp.maximum(at_BT, 0), segments_BT).x_BTD

    x_BJD = x_BTD[:, prompt - 1 :]  # of the prompt's last token, and of the tree
    nodes, width = labels.next_JK.shape
    size = max((config.logits_mb << 20) // (4 * rows * config.padded_vocab_size), 1)
    chunks = -(-nodes // size)
    size = -(-nodes // chunks)
    padding = chunks * size - nodes
    x_BJD = jnp.pad(x_BJD, ((0, 0), (0, padding), (0, 0)))
    x_CBjD = x_BJD.reshape(rows, chunks, size, -1).swapaxes(0, 1)
    next_CjK = np.pad(labels.next_JK, ((0, padding), (0, 0))).reshape(chunks, size, width)

    def chunk(_: None, part: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        x_BjD, next_jK = part
        # As a matrix: XLA's products over two dimensions are slower on CPUs.
        logits_MV = decoder.unembed(x_BjD.reshape(-1, x_BjD.shape[-1]))
        next_MK = jnp.tile(next_jK, (rows, 1))
        found_MK = jnp.take_along_axis(logits_MV, next_MK, axis=1)
        found_MK -= jax.nn.logsumexp(logits_MV, axis=1, keepdims=True)
        return None, found_MK.reshape(rows, size, width)

    _, found_CBjK = jax.lax.scan(chunk, None, (x_CBjD, jnp.asarray(next_CjK)))
    found_BF = found_CBjK.swapaxes(0, 1).reshape(rows, -1)
    return found_BF[:, labels.branch_E]
