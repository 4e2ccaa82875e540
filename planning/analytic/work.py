"""What a device computes in a step: FLOPs, and bytes of its memory that go in and out.

Each line is of a whole step, all layers and microbatches, and bears its formula in the letters of
planning/layout.py; n is layers x microbatches, and what stages compute while they have nothing to
do (Layout.calls). FLOPs are of products of matrices alone: a multiply and an add. Bytes suppose
that a product reads both its matrices and writes the third once, and that an elementwise operation
reads and writes once for as many as XLA commonly fuses.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from planning.analytic import remat
from planning.analytic.layout import Layout
from planning.analytic.memory import bytes_of
from planning.chip import Torus
from training import muon

FORWARD, AGAIN, BACKWARD = "forward", "recomputed", "backward"
HEAD, UPDATE = "head", "update"
PHASES = (FORWARD, AGAIN, BACKWARD, HEAD, UPDATE)

ATTENTION, MLP, EXPERTS = "attention", "mlp", "experts"
"""The halves of a block, whose products can hide what they exchange along `tensor`; and what is
exchanged for experts, which nothing hides."""


class Work(NamedTuple):
    """Something that is computed.

    Attributes:
      phase: of PHASES.
      half: of a block, or "".
      name: what it is.
      flops: of products of matrices.
      padded: the same with what matrix units do for sizes that do not fill them.
      bytes: of memory, read and written.
      formula: of the FLOPs; where there are none, of the bytes.
    """

    phase: str
    half: str
    name: str
    flops: float
    padded: float
    bytes: float
    formula: str


def work(layout: Layout) -> tuple[Work, ...]:
    """All that a device computes in a step."""
    return tuple(line for term in TERMS for line in term(layout))


def model_flops(layout: Layout) -> float:
    """FLOPs of a step that the model asks for, a device's share: what MFU counts."""
    a_token = layout.run.model.flops_per_token(layout.run.data.sequence_length)
    return layout.tokens * a_token / layout.topology.devices


def filled(size: float, side: int) -> float:
    """How much of a matrix unit a dimension fills: 64 of 128 are a half; 1 without units."""
    return size / (-(-size // side) * side) if side else 1.0


def _fill(layout: Layout, *sizes: float) -> float:
    side, share = layout.topology.chip.side if layout.topology.chip else 0, 1.0
    for size in sizes:
        share *= filled(size, side)
    return share


Products = Mapping[str, Sequence[tuple[float, float]]]
"""By the names of a block's tensors: inputs and outputs of the products that make them."""


def _products(layout: Layout) -> list[Work]:
    """Products with the weights of the blocks."""
    model, m, a = layout.run.model, layout.rows * layout.length, layout.itemsize
    n = layout.calls
    embed = model.embed_dim
    of_mlp: Products = {
        "gate": [(embed, layout.hidden)],
        "up": [(embed, layout.hidden)],
        "down": [(layout.hidden, embed)],
    }
    of_attention = _latent_products(layout) if model.latent.kv_rank else _head_products(layout)
    every, lines = {*of_attention, *of_mlp} - (set() if model.gated else {"gate"}), []
    # Backward two products for each: of a weight that stays, one.
    learnt = {name for name in every if _learns(layout, name)}
    for phase, each, names in (
        (FORWARD, 1, every),
        (AGAIN, 1, remat.again(model)),
        (BACKWARD, 2, learnt),
        (BACKWARD, 1, every - learnt),
    ):
        for half, products in ((ATTENTION, of_attention), (MLP, of_mlp)):
            shapes = [shape for name, some in products.items() if name in names for shape in some]
            if not shapes:
                continue
            times = n * each
            lines.append(
                Work(
                    phase,
                    half,
                    "products with weights",
                    times * sum(2 * m * i * o for i, o in shapes),
                    times * sum(2 * m * i * o / _fill(layout, i, o) for i, o in shapes),
                    times * sum(a * (m * (i + o) + i * o) for i, o in shapes),
                    f"{2 * each} n B T x weights of {half}",
                )
            )
    return lines


def _learns(layout: Layout, name: str) -> bool:
    """Whether a weight moves with which a tensor of that name is made."""
    latent = {"query": ("query_down", "query_up"), "key": ("kv_down", "key_up")}
    return any(map(layout.learns, (name, *latent.get(name, (f"{name}_up",)))))


def _adapters(layout: Layout) -> list[Work]:
    """Two small products beside each weight that has an adapter, and four back."""
    model, m = layout.run.model, layout.rows * layout.length
    if (adapter := model.adapter).kind == "none":
        return []
    embed, hidden = model.embed_dim, layout.hidden
    sides = {name: shapes[0] for name, shapes in _head_products(layout).items()}
    sides |= {"gate": (embed, hidden), "up": (embed, hidden), "down": (hidden, embed)}
    lines = []
    for phase, times in ((FORWARD, 1), (BACKWARD, 2), (AGAIN, 1 if model.remat != "none" else 0)):
        flops = sum(2 * m * adapter.rank * sum(sides[name]) for name in adapter.targets)
        moved = sum(
            layout.itemsize * m * (sides[name][0] + 3 * sides[name][1]) for name in adapter.targets
        )
        n = layout.calls * times
        filled = _fill(layout, adapter.rank)
        formula = f"{2 * times} n B T x weights of adapters"
        lines.append(Work(phase, "", "adapters", n * flops, n * flops / filled, n * moved, formula))
    return lines


def _head_products(layout: Layout) -> Products:
    embed, size = layout.run.model.embed_dim, layout.run.model.head_dim
    return {
        "query": [(embed, layout.heads * size)],
        "key": [(embed, layout.kv_heads * size)],
        "value": [(embed, layout.kv_heads * size)],
        "out": [(layout.heads * size, embed)],
    }


def _latent_products(layout: Layout) -> Products:
    """Of latent attention (model/latent.py)."""
    model, latent = layout.run.model, layout.run.model.latent
    embed, of_queries = model.embed_dim, layout.heads * model.head_dim
    query: list[tuple[float, float]] = [(embed, of_queries)]
    if latent.query_rank:
        query = [(embed, latent.query_rank), (latent.query_rank, of_queries)]
    plain, values = model.head_dim - latent.rope_dim, layout.heads * latent.value_dim
    return {
        "query": query,
        "key": [(embed, latent.kv_rank + latent.rope_dim), (latent.kv_rank, layout.heads * plain)],
        "value": [(latent.kv_rank, values)],
        "out": [(values, embed)],
    }


def pairs(layout: Layout) -> float:
    """Pairs of a query and a key of one row and head that the kernel computes, masked ones too.

    It works in blocks, b x b, and leaves out those that are masked whole; `context` shares them.
    The mean over layers, where some are local.
    """
    model, length = layout.run.model, layout.run.data.sequence_length
    near = _pairs(layout, model.sliding_window)
    if (local := model.local_layers) is not None:
        share = sum(local) / len(local)
        near = share * near + (1 - share) * _pairs(layout, 0)
    return near / layout.ways("length", length)


def _pairs(layout: Layout, window: int) -> float:
    side = block(layout)
    blocks = -(-layout.run.data.sequence_length // side)
    # Queries of block i see keys from that of their window's first to their own.
    first = [max(i * side - window + 1, 0) // side if window else 0 for i in range(blocks)]
    seen = sum(i + 1 - since for i, since in enumerate(first))
    return seen * side * side


def block(layout: Layout) -> int:
    """Queries, and keys, that the kernel takes at a time (model/kernels)."""
    length = layout.run.data.sequence_length
    if layout.topology.chip is None:
        return min(256, length)
    if isinstance(layout.topology.chip.links, Torus):
        padded = -(-length // 128) * 128
        return next(side for side in (512, 256, 128) if padded % side == 0)
    return 128 if layout.run.model.head_dim <= 64 else 64


def _attention(layout: Layout) -> list[Work]:
    """Scores and values: two products forward, seven backward (splash, and Triton's: four for keys
    and values, three for queries), five where one loop makes all (our own).
    """
    model, a, n = layout.run.model, layout.itemsize, layout.calls
    each = layout.rows * layout.heads * pairs(layout)
    size = (model.head_dim + model.value_dim) / 2  # of a head
    a_product = 2 * each * size
    # Queries and what belongs to them once, keys and values again for every block of queries.
    tokens = layout.rows * layout.length * layout.heads * size
    moved = a * (2 * tokens + 2 * each / block(layout) * size)
    backward = 5 if layout.topology.chip is None else 7
    phases = [(FORWARD, 2, 1.0), (BACKWARD, backward, 3.0)]
    if "attention" in remat.again(model):
        phases.append((AGAIN, 2, 1.0))
    return [
        Work(
            phase,
            "",
            "scores and values",
            n * products * a_product,
            n * products * a_product / _fill(layout, size),
            n * passes * moved,
            f"{products} x 2 n B N H x pairs",
        )
        for phase, products, passes in phases
    ]


def _elementwise(layout: Layout) -> list[Work]:
    """Norms, residual sums, rotation and the activation function."""
    model, a, n = layout.run.model, layout.itemsize, layout.calls
    stream = layout.rows * layout.between * model.embed_dim
    turned = layout.rows * layout.length * model.head_dim * (layout.heads + layout.kv_heads)
    hidden = layout.rows * layout.length * layout.hidden
    once = a * (10 * stream + 2 * turned + (3 if model.gated else 2) * hidden)
    formula = "n B T (10 D + 2 (N + K) H + 3 F) a"
    phases = [(FORWARD, 1, ""), (BACKWARD, 2, "2 x ")]
    if model.remat != "none":
        phases.append((AGAIN, 1, ""))
    return [
        Work(phase, "", "elementwise", 0, 0, n * times * once, f"{told}{formula}")
        for phase, times, told in phases
    ]


def _head(layout: Layout) -> list[Work]:
    """The output projection with its loss and both gradients, and the embedding."""
    model, a, n = layout.run.model, layout.itemsize, layout.microbatches
    m, width, vocab = layout.all_rows * layout.length, model.embed_dim, layout.vocab
    products = 6 if layout.head_learns else 4  # logits, and gradients of features and table
    flops = products * m * vocab * width
    parts = -(-4 * m * layout.numbers // (model.logits_mb << 20))
    # Logits are written, reduced and made a gradient of; the table's gradient grows part by part.
    logits = m * vocab * (4 * 4 + 3 * a)
    table = parts * vocab * width * (2 * a + 8 * layout.head_learns)
    embedding = layout.all_rows * layout.between * width * 2 * (a + 4)
    return [
        Work(
            HEAD,
            "",
            "logits, loss and gradients",
            n * flops,
            n * flops / _fill(layout, width, vocab),
            n * (logits + table),
            f"{products} x microbatches x B T V D",
        ),
        Work(HEAD, "", "embedding", 0, 0, n * embedding, "2 x microbatches x B T D (a + 4)"),
    ]


def _update(layout: Layout) -> list[Work]:
    state, elements = layout.state, sum(p.held for p in layout.parameters if p.moves)
    kept = bytes_of(state.params) + bytes_of(state.opt_state)
    moved = 2 * kept + 3 * 4 * elements
    if layout.microbatches > 1:
        moved += layout.microbatches * 3 * 4 * elements
    formula = "2 x (parameters + optimizer state) + 3 x gradients (+ 3 a microbatch)"
    lines = [Work(UPDATE, "", "optimizer", 0, 0, moved, formula)]
    if layout.run.optimizer.name == "muon":
        lines.append(_muon(layout))
    return lines


ITERATIONS = 5  # of optax.contrib's Newton-Schulz


def _muon(layout: Layout) -> Work:
    """Newton-Schulz, of matrices [I, O]: with s the smaller side, 5 x (4 s^2 l + 2 s^3)."""
    moving = [p for p in layout.parameters if p.moves]
    found = muon.matrices({p.name: p.axes for p in moving})
    flops, moved = 0.0, 0.0
    for parameter in moving:
        matrix = found[parameter.name]
        if matrix is None:
            continue
        stacked, *sides = (math.prod(parameter.shape[i] for i in part) for part in matrix)
        small, large = sorted(sides)
        each = -(-stacked // layout.ways("stack"))  # whole matrices on each device
        flops += each * ITERATIONS * (4 * small**2 * large + 2 * small**3)
        moved += each * ITERATIONS * layout.itemsize * (6 * small * large + 4 * small**2)
    return Work(UPDATE, "", "Muon", flops, flops, moved, "5 x (4 s^2 l + 2 s^3) a matrix")


def _experts(layout: Layout) -> list[Work]:
    """What experts add to the products of an MLP: rows are sorted and brought back, all weights are
    read, and hidden activations of rows that travelled are computed again (sharding/rounds.py).
    """
    model, moe, a = layout.run.model, layout.run.model.moe, layout.itemsize
    if not moe.num_experts:
        return []
    n, m = layout.expert_layers * layout.microbatches, layout.rows * layout.length
    rows, gated = m * moe.experts_per_token * model.embed_dim, model.gated
    here = moe.num_experts / layout.ways("experts") - moe.experts_per_token
    width = moe.expert_mlp_dim / layout.ways("mlp", moe.expert_mlp_dim)
    others = max(here, 0) * (3 if gated else 2) * model.embed_dim * width
    router = 2 * m * model.embed_dim * moe.num_experts
    lines = [
        Work(
            phase,
            "",
            "routing, and rows to experts and back",
            n * times * router,
            n * times * router,
            n * a * times * (6 * rows + others),
            f"{2 * times} n B T D E",
        )
        for phase, times in ((FORWARD, 1), (BACKWARD, 2))
    ]
    if layout.sizes["expert"] > 1:
        names = {"gate", "up"} if gated else {"up"}
        travelled = len(names - remat.again(model)) * 2 * m * model.embed_dim
        flops = n * travelled * layout.experts_hidden
        padded = flops / _fill(layout, model.embed_dim, width)
        lines.append(
            Work(AGAIN, MLP, "experts that tokens travelled to", flops, padded, 0, "4 n B T D A F")
        )
    return lines


Term = Callable[[Layout], list[Work]]
TERMS: tuple[Term, ...] = (
    _products,
    _adapters,
    _attention,
    _elementwise,
    _experts,
    _head,
    _update,
)
