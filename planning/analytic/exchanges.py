"""What devices exchange in a step: each exchange a named line with its bytes and its formula.

Letters are those of planning/layout.py. `whole` is what a device has after an all-gather or before
a reduce-scatter; of an all-to-all and a collective-permute, what it has before and after.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from planning.analytic import remat
from planning.analytic.layout import Layout, Parameter
from planning.analytic.work import AGAIN, ATTENTION, BACKWARD, EXPERTS, FORWARD, HEAD, MLP, UPDATE
from planning.torus import Links, links
from sharding.table import mesh_axes

Axes = tuple[str, ...]


class Exchange(NamedTuple):
    """One kind of exchange along some mesh axes.

    Attributes:
      phase: of planning.analytic.work.PHASES.
      half: of a block, whose products can hide it; "" of what all products of the phase can.
      name: of what.
      kind: all-gather, reduce-scatter, all-reduce, all-to-all or collective-permute.
      axes: mesh axes, along which it goes at once.
      whole: bytes of each; see the module.
      times: how many in a step.
      formula: of `whole`.
    """

    phase: str
    half: str
    name: str
    kind: str
    axes: Axes
    whole: float
    times: int
    formula: str

    def received(self, over: Links) -> float:
        """Bytes that come into a device in a step."""
        return self.times * over.received(self.kind, self.whole)

    def seconds(self, over: Links) -> float:
        """Time of all of them in a step, if nothing else is on their links."""
        return self.times * over.seconds(self.kind, self.whole)


def exchanges(layout: Layout) -> tuple[Exchange, ...]:
    """All exchanges of a step, but for scalars and token ids."""
    return tuple(line for term in TERMS for line in term(layout) if line.axes and line.whole)


def links_of(layout: Layout, lines: Iterable[Exchange]) -> dict[Axes, Links]:
    """The links of all axes that are exchanged along; the chip must be known."""
    return {
        axes: links(layout.topology, layout.sizes, axes)
        for axes in dict.fromkeys(line.axes for line in lines)
    }


def _axes(layout: Layout, name: str, size: int | None = None) -> Axes:
    return mesh_axes(layout.mesh, name, size)  # type: ignore[arg-type]  # of a mesh it reads sizes


def _added_up(parameters: Iterable[Parameter], by: str, what: str) -> dict[Axes, int]:
    """Elements (`what` of Parameter) of all that go along the same axes (`by` of Parameter)."""
    found: dict[Axes, int] = {}
    for parameter in parameters:
        axes = getattr(parameter, by)
        found[axes] = found.get(axes, 0) + getattr(parameter, what)
    return found


def _blocks(layout: Layout) -> list[Exchange]:
    """Weights of the blocks: gathered for each pass, their gradients scattered and summed."""
    a, times = layout.itemsize, layout.calls
    blocks = [p for p in layout.parameters if p.in_blocks]
    weights = [p for p in blocks if "norm" not in p.axes]
    lines = []
    for axes, elements in _added_up(
        (p for p in weights if p.gathered), "gathered", "whole"
    ).items():
        size, formula = a * elements / layout.layers, "a x weights of a block"
        lines += [
            Exchange(FORWARD, "", "weights", "all-gather", axes, size, times, formula),
            Exchange(BACKWARD, "", "weights, again", "all-gather", axes, size, times, formula),
        ]
    learnt = [p for p in weights if p.moves]
    for axes, elements in _added_up((p for p in learnt if p.gathered), "gathered", "whole").items():
        size, formula = a * elements / layout.layers, "a x weights of a block"
        lines.append(
            Exchange(BACKWARD, "", "gradients", "reduce-scatter", axes, size, times, formula)
        )
    for axes, elements in _added_up(learnt, "summed", "held").items():
        size, formula = a * elements / layout.layers, "a x shards of a block"
        lines.append(Exchange(BACKWARD, "", "gradients", "all-reduce", axes, size, times, formula))
    norms = [p for p in blocks if "norm" in p.axes and p.moves]
    for axes, elements in _added_up(norms, "summed", "held").items():
        size, formula = 4 * elements / layout.layers, "4 x scales and biases"
        lines.append(
            Exchange(BACKWARD, "", "gradients of norms", "all-reduce", axes, size, times, formula)
        )
    return lines


def _residual_stream(layout: Layout) -> list[Exchange]:
    """Along `tensor`: whole rows before the products of each half of a block, parts after them.

    Where the length is not divided, sums stay whole: an all-reduce instead of both.
    """
    length = layout.run.data.sequence_length
    along = set(_axes(layout, "length", length))
    split = tuple(a for a in _axes(layout, "act_length", length) if a not in along)
    axes = split or _axes(layout, "heads")
    whole = layout.rows * layout.length * layout.run.model.embed_dim * layout.itemsize
    gather, scatter = ("all-gather", "reduce-scatter") if split else ("", "all-reduce")
    every: dict[str, tuple[str, ...]] = {ATTENTION: (gather, scatter), MLP: (gather, scatter)}
    phases = {FORWARD: every, AGAIN: {}, BACKWARD: every}
    model = layout.run.model
    if model.remat != "none":  # with the norms their results are gathered again
        sums = (scatter,) if "out" in remat.again(model) else ()
        phases[AGAIN] = {ATTENTION: (gather, *sums), MLP: (gather,)}
    times = layout.calls
    return [
        Exchange(phase, half, "activations", kind, axes, whole, times, "B T D a")
        for phase, halves in phases.items()
        for half, kinds in halves.items()
        for kind in kinds
        if kind
    ]


def _keys(layout: Layout) -> list[Exchange]:
    """Along `context`: keys and values to the queries, and their gradients back, in float32 where
    they travel (sharding/context.py)."""
    if layout.context_form == "whole":
        return []
    run, axes = layout.run, _axes(layout, "length", layout.run.data.sequence_length)
    devices, times = layout.ways("length"), layout.calls
    elements = 2 * layout.rows * layout.length * layout.keys * run.model.head_dim
    a, ring = layout.itemsize, layout.context_form == "ring"

    def line(phase: str, name: str, kind: str, size: int, times: int, formula: str) -> Exchange:
        return Exchange(phase, ATTENTION, name, kind, axes, size, times, formula)

    there, back = "keys and values", "their gradients"
    phases = [FORWARD, BACKWARD]
    if ring and "attention" in remat.again(run.model):  # gathered again, they serve both
        phases.append(AGAIN)
    if ring:
        kind, steps = "collective-permute", times * (devices - 1)
        return [
            *(line(p, there, kind, a * elements, steps, "2 B T K H a") for p in phases),
            line(BACKWARD, back, kind, 4 * elements, times * devices, "8 B T K H"),
        ]
    size, formula = a * devices * elements, "2 C B T K H a"
    return [
        *(line(p, there, "all-gather", size, times, formula) for p in phases),
        line(BACKWARD, back, "reduce-scatter", size, times, formula),
    ]


def _experts(layout: Layout) -> list[Exchange]:
    """Rows to the devices that have their experts, and back; twice there in the backward pass."""
    model, moe = layout.run.model, layout.run.model.moe
    if not moe.num_experts:
        return []
    axes = _axes(layout, "experts", moe.num_experts)
    rows = layout.rows * layout.length * moe.experts_per_token * model.embed_dim
    size, times = layout.itemsize * rows, round(layout.expert_layers * layout.microbatches)
    return [
        Exchange(phase, EXPERTS, "rows", "all-to-all", axes, size, n * times, "B T A D a")
        for phase, n in ((FORWARD, 2), (BACKWARD, 3))
    ]


def _tables(layout: Layout) -> list[Exchange]:
    """The output projection gathered once a microbatch, its gradient scattered once in float32;
    the embedding by its columns: activations travel, not the table. Features, and what was looked
    up, go along all that splits the vocabulary.

    libtpu makes an all-reduce of that scatter where the chips lie along `fsdp` alone, with twice
    the bytes (docs/performance.md).
    """
    a, n = layout.itemsize, layout.microbatches
    tables = {p.name: p for p in layout.parameters if "vocab" in p.axes}
    head = tables.get("unembedding", tables["embedding"])
    learns = tables["embedding"].moves
    features = layout.all_rows * layout.length * layout.run.model.embed_dim
    length = layout.run.data.sequence_length
    along = set(_axes(layout, "length", length))
    split = tuple(x for x in _axes(layout, "head_length", length) if x not in along)
    vocab = _axes(layout, "vocab", layout.run.model.padded_vocab_size)
    rest = tuple(x for x in vocab if x not in split)
    found = tuple(x for x in vocab if x in _axes(layout, "act_length", length))
    embed = tables["embedding"].gathered
    looked_up = layout.all_rows * layout.between * layout.run.model.embed_dim
    lines = [
        Exchange(HEAD, "", "table", "all-gather", head.gathered, a * head.whole, n, "V D a"),
        Exchange(
            *(HEAD, "", "its gradient", "reduce-scatter", head.gathered),
            *(4 * head.whole * head.moves, n, "4 V D"),
        ),
        Exchange(HEAD, "", "features", "all-gather", split, a * features, n, "B T D a"),
        Exchange(
            HEAD, "", "gradient of features", "reduce-scatter", split, a * features, n, "B T D a"
        ),
        Exchange(HEAD, "", "gradient of features", "all-reduce", rest, a * features, n, "B T D a"),
        Exchange(HEAD, "", "looked up", "reduce-scatter", found, a * features, n, "B T D a"),
        Exchange(
            *(HEAD, "", "slope of looked up", "all-gather", found),
            *(a * features * learns, n, "B T D a"),
        ),
        Exchange(HEAD, "", "embedded", "all-to-all", embed, a * looked_up, n, "B T D a"),
        Exchange(
            *(HEAD, "", "gradient of embedded", "all-to-all", embed),
            *(4 * looked_up * learns, n, "4 B T D"),
        ),
    ]
    return lines + [
        Exchange(HEAD, "", f"{name}'s gradient", "all-reduce", p.summed, 4 * p.held, n, "4 V D")
        for name, p in tables.items()
        if p.moves
    ]


def _stages(layout: Layout) -> list[Exchange]:
    """From each stage to the next; and along all of them what was looked up, the last one's output,
    and their gradients (sharding/pipeline.py)."""
    length, n = layout.run.data.sequence_length, layout.microbatches
    axes = _axes(layout, "stages")
    stream = layout.between * layout.run.model.embed_dim * layout.itemsize
    one, every = layout.rows * stream, layout.all_rows * stream
    times = layout.stages.iterations * n
    handed = "from stage to stage"
    divided = set(axes) <= set(_axes(layout, "head_length", length))
    last = ("reduce-scatter", "all-gather") if divided else ("all-reduce", "")
    return [
        Exchange(FORWARD, "", handed, "collective-permute", axes, one, times, "B T D a"),
        Exchange(BACKWARD, "", handed, "collective-permute", axes, one, times, "B T D a"),
        Exchange(HEAD, "", "into stages", "all-reduce", axes, every, 2 * n, "rows T D a"),
        *(
            Exchange(HEAD, "", "out of stages", kind, axes, every, n, "rows T D a")
            for kind in last
            if kind
        ),
    ]


def _muon(layout: Layout) -> list[Exchange]:
    """Matrices to the device that makes them orthogonal, and back."""
    if layout.run.optimizer.name != "muon":
        return []
    sides = {"embed", "expert_embed", "adapter"}
    matrices = (p for p in layout.parameters if p.moves and sides & {*p.axes})
    held = sum(p.held for p in matrices if p.in_blocks)
    axes, size = _axes(layout, "stack"), layout.itemsize * held
    return [
        Exchange(UPDATE, "", "matrices to Muon", "all-to-all", axes, size, 1, "a x shards"),
        Exchange(UPDATE, "", "matrices from Muon", "all-to-all", axes, size, 1, "a x shards"),
    ]


Term = Callable[[Layout], list[Exchange]]
TERMS: tuple[Term, ...] = (_blocks, _residual_stream, _keys, _experts, _stages, _tables, _muon)
