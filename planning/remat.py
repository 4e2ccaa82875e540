"""What a block keeps for the backward pass, and what it computes again, by model.remat.

The names and the policies are those of model/decoder.py. Letters are those of planning/layout.py.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from planning.layout import Layout


class Tensor(NamedTuple):
    """Bytes a token that a block keeps of something, and the tokens of a row that it has."""

    a_token: Callable[[Layout], float]
    formula: str
    between: bool = False


TENSORS: Mapping[str, Tensor] = {
    "input": Tensor(lambda o: o.itemsize * o.run.model.embed_dim, "D a", between=True),
    "queries, keys, values": Tensor(
        lambda o: o.itemsize * o.run.model.head_dim * (o.heads + 2 * o.kv_heads), "(N + 2 K) H a"
    ),
    "attention": Tensor(lambda o: o.heads * (o.itemsize * o.run.model.head_dim + 4), "N (H a + 4)"),
    "attention's output": Tensor(lambda o: o.itemsize * o.run.model.embed_dim, "D a", between=True),
    "hidden": Tensor(
        lambda o: o.itemsize * o.hidden * (2 if o.run.model.mlp == "swiglu" else 1),
        "2 F a (1 for gelu)",
    ),
    # What only a backward pass without recomputation reads: float32 inside the norms, attention's
    # result once more, and the activation function from the inside.
    "norms": Tensor(
        lambda o: 2 * ((12 + o.itemsize) * o.run.model.embed_dim + 8), "2 ((12 + a) D + 8)", True
    ),
    "attention, transposed": Tensor(lambda o: o.itemsize * o.run.model.head_dim * o.heads, "N H a"),
    "hidden, inside": Tensor(
        lambda o: o.itemsize * o.hidden * (4 if o.run.model.mlp == "swiglu" else 5),
        "4 F a (5 for gelu)",
    ),
}


class Policy(NamedTuple):
    """What a policy means for a block.

    Attributes:
      keeps: names of TENSORS.
      products: products with weights are computed again, up to the hidden activations: nothing but
        the residual stream needs the one after them.
      attention: scores and values are.
      elementwise: norms and activation functions are.
    """

    keeps: tuple[str, ...]
    products: bool
    attention: bool
    elementwise: bool = True


POLICIES: Mapping[str, Policy] = {
    "full": Policy(("input",), products=True, attention=True),
    "save_attention": Policy(("input", "attention"), products=True, attention=False),
    "save_dots": Policy(
        ("input", "queries, keys, values", "attention", "attention's output", "hidden"),
        products=False,
        attention=False,
    ),
    "none": Policy(
        (
            "norms",
            "queries, keys, values",
            "attention",
            "attention, transposed",
            "hidden",
            "hidden, inside",
        ),
        products=False,
        attention=False,
        elementwise=False,
    ),
}
"""Another policy of the model is another row."""


def kept(layout: Layout, policy: str) -> dict[str, tuple[float, str]]:
    """Bytes of what one block keeps of a microbatch, by name, with their formulas."""
    found = {}
    for name in POLICIES[policy].keeps:
        tensor = TENSORS[name]
        length = layout.between if tensor.between else layout.length
        tokens = "B T (between blocks)" if tensor.between else "B T"
        found[name] = layout.rows * length * tensor.a_token(layout), f"{tokens} x {tensor.formula}"
    return found
