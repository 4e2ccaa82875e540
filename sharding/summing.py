"""Products that devices along `tensor` sum up, each for a part of a row that `context` splits, too.

Back to the width of the residual stream each device along `tensor` has a part of what is summed
over, and is to have a part of the length of the sum. (Of itself the compiler scatters a sum along a
dimension that is split once. Along one that is split along two mesh axes it computes the product of
the whole row on every device, and gathers the whole gradient. Quantized products are left to it:
each row that is summed over has one scale, which devices would have to agree on.)
"""

from typing import Any

import jax
from jax.sharding import Mesh

from model.layers import Multiply
from sharding import collectives
from sharding.table import mesh_axes, sharding

_SUMMED = {"N": "heads", "F": "mlp"}
"""Of an equation's letters (model/__init__.py) those that `tensor` splits."""


def summing(mesh: Mesh, multiply: Multiply, keeps: bool) -> Multiply:
    """The `multiply` that the model is handed.

    Args:
      mesh: the mesh.
      multiply: of what a device has.
      keeps: the backward pass finds all that the forward pass made (remat "none").
    """
    tensor, embed = mesh_axes(mesh, "mlp", None), mesh_axes(mesh, "embed", None)
    if not tensor or not mesh_axes(mesh, "length", None):
        return multiply

    def product(equation: str, x: jax.Array, w: jax.Array) -> jax.Array:
        of_x, of_w = equation.partition("->")[0].split(",")
        first, *others = (letter for letter in of_x if letter in of_w)
        if first not in _SUMMED:
            return multiply(equation, x, w)
        summed = (_SUMMED[first], *("whole",) * len(others))
        between = mesh_axes(mesh, "act_length", x.shape[1])

        def on_device(x: jax.Array, w: jax.Array) -> jax.Array:
            y_BTD = multiply(equation, x, collectives.gathered(w, embed, w.ndim - 1))
            if set(tensor) <= set(between):
                return collectives.scattered(y_BTD, tensor, 1)
            return collectives.total(y_BTD, tensor)

        given = ("batch", "length", *summed), (*summed, "embed")
        result = ("batch", "act_length", "act_embed")
        specs: Any = [sharding(mesh, a, of.shape).spec for a, of in zip(given, (x, w), strict=True)]
        to: Any = sharding(mesh, result, (*x.shape[:2], w.shape[-1])).spec
        return jax.shard_map(
            collectives.gathering_again(on_device) if keeps else on_device,
            mesh=mesh,
            in_specs=tuple(specs),
            out_specs=to,
            check_vma=False,
        )(x, w)

    return product
