"""What a device holds in a step, without a compiler: each thing a named line with its formula.

What is held is not all there at the same time: a line says in which moments it is, and the peak is
that of the moment with the most. Letters are those of planning/layout.py. What XLA adds (copies,
alignment, the program) is not counted, what it saves by fusion neither.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from planning.analytic import remat
from planning.analytic.layout import Layout
from sharding.rounds import ROOM

HEAD, BLOCKS, UPDATE = "head", "blocks, backward", "update"
"""The moments: the loss, with all blocks' activations kept; the backward pass of a block; the
optimizer."""

MOMENTS = (HEAD, BLOCKS, UPDATE)


class Held(NamedTuple):
    """Something that a device holds.

    Attributes:
      kind: parameters, optimizer, gradients, activations, weights, head or batch.
      name: what it is.
      bytes: of it.
      formula: of the bytes.
      moments: when.
    """

    kind: str
    name: str
    bytes: int
    formula: str
    moments: tuple[str, ...] = MOMENTS


def held(layout: Layout) -> tuple[Held, ...]:
    """Everything that a device holds."""
    return tuple(line for term in TERMS for line in term(layout) if line.bytes)


def peak(lines: tuple[Held, ...]) -> tuple[str, int]:
    """The moment that needs most, and its bytes."""
    sums = {m: sum(line.bytes for line in lines if m in line.moments) for m in MOMENTS}
    moment = max(sums, key=lambda m: sums[m])
    return moment, sums[moment]


def bytes_of(tree: Any) -> int:
    """Bytes that a device holds of abstract arrays."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _state(layout: Layout) -> list[Held]:
    state, batch = layout.state, 6 * 4 * layout.all_rows * layout.microbatches * layout.length
    return [
        Held("parameters", "parameters", bytes_of(state.params), "4 x elements on the device"),
        Held("parameters", "parameters that stay", bytes_of(layout.fixed), "a x elements"),
        Held(
            "optimizer",
            "optimizer state",
            bytes_of(state.opt_state),
            "of every leaf its shard",
            (UPDATE,) if layout.run.optimizer.offload else MOMENTS,
        ),
        # sharding/feed.py places batches that long before they are used.
        Held("batch", "batches", 3 * batch, "3 x 6 arrays x B T x microbatches x 4"),
    ]


def _gradients(layout: Layout) -> list[Held]:
    elements = sum(p.held for p in layout.parameters if p.moves)
    lines = [
        Held("gradients", "gradients", 4 * elements, "4 x elements on the device", (BLOCKS, UPDATE))
    ]
    if layout.microbatches > 1:
        lines.append(
            Held(
                "gradients",
                "sums over microbatches",
                4 * elements,
                "4 x elements on the device",
                (HEAD, BLOCKS),
            )
        )
    return lines


def _activations(layout: Layout) -> list[Held]:
    model = layout.run.model
    lines = [
        Held(
            "activations",
            f"kept of all blocks: {name}",
            round(layout.kept * tensor.size(layout)),
            f"n x B T{' (between blocks)' if tensor.between else ''} x {tensor.formula}",
            (HEAD, BLOCKS),
        )
        for name, tensor in remat.kept(layout).items()
    ]
    if away := remat.offloaded(model):
        # One block's come while those of another are used.
        sizes = sum(remat.TENSORS[name].size(layout) for name in away)
        names = ", ".join(sorted(away))
        lines.append(
            Held("activations", f"back from the host: {names}", round(2 * sizes), "2 x", (BLOCKS,))
        )
    if model.remat != "none":
        heads = layout.heads + layout.kv_heads
        width: float = 2 * model.embed_dim + 2 * heads * model.head_dim
        width += layout.hidden * (3 if model.gated else 2)
        again = round(layout.itemsize * layout.rows * layout.length * width)
        formula = "B T (2 D + 2 (N + K) H + 3 F) a (2 F for gelu)"
        lines.append(Held("activations", "a block, computed again", again, formula, (BLOCKS,)))
    slopes = layout.itemsize * (2 * layout.hidden + model.embed_dim)
    slopes *= layout.rows * layout.length
    lines.append(
        Held("activations", "gradients inside a block", round(slopes), "B T (2 F + D) a", (BLOCKS,))
    )
    return lines


def _keys(layout: Layout) -> list[Held]:
    """Of attention along `context` while it computes (sharding/context.py): all keys and values and
    their gradients, or in a ring those here, on their way in, and the same of their gradients."""
    elements = 2 * layout.rows * layout.length * layout.keys * layout.run.model.head_dim
    if layout.context_form == "gather":
        size = 2 * layout.itemsize * layout.ways("length") * elements
        return [Held("activations", "keys gathered", size, "4 C B T K H a", (BLOCKS,))]
    if layout.context_form == "ring":
        size, formula = 2 * (layout.itemsize + 4) * elements, "4 B T K H (a + 4)"
        return [Held("activations", "keys in the ring", size, formula, (BLOCKS,))]
    return []


def _experts(layout: Layout) -> list[Held]:
    """Rows of tokens for their experts, and what comes of them; where they travel, room for more,
    and their gradients in float32 (sharding/rounds.py).
    """
    moe, model, a = layout.run.model.moe, layout.run.model, layout.itemsize
    if not moe.num_experts:
        return []
    travel = layout.sizes["expert"] > 1
    rows = layout.rows * layout.length * moe.experts_per_token * (ROOM if travel else 1)
    lines = [
        Held(
            "activations",
            "rows for experts",
            round(4 * a * rows * model.embed_dim),
            f"4 x {'ROOM x ' if travel else ''}B T A D a",
            (BLOCKS,),
        ),
    ]
    if travel:
        width = moe.expert_mlp_dim / layout.ways("mlp", moe.expert_mlp_dim)
        more = a * rows * width * (1 - 1 / ROOM) * (5 if model.gated else 4)
        of_experts = sum(p.whole for p in layout.parameters if "experts" in p.axes)
        whole = of_experts / layout.expert_layers
        lines += [
            Held(
                "activations",
                "room for more rows",
                round(more),
                "(ROOM - 1) B T A 5 F a",
                (BLOCKS,),
            ),
            Held(
                "weights",
                "gradients of experts, summed",
                round(4 * whole),
                "4 x elements",
                (BLOCKS,),
            ),
        ]
    return lines


def _stages(layout: Layout) -> list[Held]:
    """Of sharding/pipeline.py: what goes into the first and comes out of the last, all rows."""
    if layout.sizes["pipeline"] == 1:
        return []
    stream = layout.all_rows * layout.between * layout.run.model.embed_dim * layout.itemsize
    return [
        Held("activations", "into and out of the stages", 2 * stream, "2 x rows T D a", (HEAD,)),
        Held("activations", "and their gradients", 2 * stream, "2 x rows T D a", (BLOCKS,)),
    ]


def _weights(layout: Layout) -> list[Held]:
    """Weights on their way: cast for all blocks before the loop, gathered block by block."""
    blocks = [p for p in layout.parameters if p.in_blocks]
    held, whole = sum(p.held for p in blocks), sum(p.whole for p in blocks if p.gathered)
    of_one = layout.itemsize * whole // layout.layers
    # What stays is in that dtype already.
    held -= sum(p.held for p in blocks if not p.moves)
    cast = layout.itemsize * held if layout.itemsize < 4 else 0
    learnt = sum(p.whole for p in blocks if p.gathered and p.moves)
    return [
        Held("weights", "cast, of all blocks", cast, "a x elements", (HEAD, BLOCKS)),
        # The next block's are gathered while one is computed.
        Held("weights", "gathered, of two blocks", 2 * of_one, "2 x a x elements", (BLOCKS,)),
        Held(
            "weights",
            "gradients of a block before they are scattered",
            layout.itemsize * learnt // layout.layers,
            "a x elements",
            (BLOCKS,),
        ),
    ]


def _head(layout: Layout) -> list[Held]:
    """Of training/head.py: the table whole along `fsdp`, and a part of the logits."""
    model, tokens = layout.run.model, layout.all_rows * layout.length
    table = layout.vocab * model.embed_dim
    part = min(model.logits_mb << 20, 4 * tokens * layout.numbers)
    slope = part * layout.itemsize // 4
    features = 2 * layout.all_rows * layout.outside * model.embed_dim * layout.itemsize
    return [
        Held("head", "table, gathered", layout.itemsize * table, "V D a", (HEAD,)),
        Held("head", "gradient of the table", 4 * table * layout.head_learns, "4 V D", (HEAD,)),
        Held("head", "logits and their gradient", part + slope, "logits_mb x (1 + a / 4)", (HEAD,)),
        Held("head", "features and their gradient", features, "2 B T D a", (HEAD,)),
    ]


Term = Callable[[Layout], list[Held]]
TERMS: tuple[Term, ...] = (
    _state,
    _gradients,
    _activations,
    _keys,
    _experts,
    _stages,
    _weights,
    _head,
)
