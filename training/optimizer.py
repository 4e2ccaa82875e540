"""Optimizers: one row of a table each, with clipping, weight decay and the learning rate around.

Each row makes what turns gradients into a direction of about the size that Adam's has, so that a
learning rate means the same to all of them (Lion's wants to be a fifth to a tenth of that).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from model import parameters
from model.decoder import Decoder
from sharding.placement import spreader
from training import muon
from training.config import OptimizerConfig
from training.schedule import learning_rate
from training.tuning import ALL, Moving


def make_optimizer(
    config: OptimizerConfig, steps: int, model: Decoder, mesh: Mesh, moves: Moving = ALL
) -> optax.GradientTransformationExtraArgs:
    """Clipping, a direction, weight decay on all but norm scales and their like, the rate.

    Args:
      config: the optimizer.
      steps: of the whole run, for the schedule.
      model: whose parameters are optimized; an outline will do.
      mesh: of all arrays.
      moves: what of them.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.chain(
            _DIRECTIONS[config.name](config, model, mesh, moves),
            optax.add_decayed_weights(config.weight_decay, mask=_decayed),
            optax.scale_by_learning_rate(learning_rate(config, steps)),
        ),
    )


_PLAIN = ("scale", "bias", "sinks", "magnitude")


def _decayed(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not path[-1].key.endswith(_PLAIN), params
    )


def _adamw(
    config: OptimizerConfig, model: Decoder, mesh: Mesh, moves: Moving
) -> optax.GradientTransformation:
    """Loshchilov & Hutter 2019."""
    del model, mesh, moves
    return optax.scale_by_adam(config.beta1, config.beta2, config.eps)


def _lion(
    config: OptimizerConfig, model: Decoder, mesh: Mesh, moves: Moving
) -> optax.GradientTransformation:
    """Chen et al. 2023: the sign of a momentum; half of Adam's state."""
    del model, mesh, moves
    return optax.scale_by_lion(config.beta1, config.beta2)


def _adafactor(
    config: OptimizerConfig, model: Decoder, mesh: Mesh, moves: Moving
) -> optax.GradientTransformation:
    """Shazeer & Stern 2018, without momentum and without scaling by the parameters: of a matrix
    it keeps a row and a column of second moments.
    """
    del config, model, mesh, moves
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))


def _muon(
    config: OptimizerConfig, model: Decoder, mesh: Mesh, moves: Moving
) -> optax.GradientTransformation:
    """Muon on the matrices of the blocks, Adam on tables, norms and biases."""
    matrices = muon.matrices(moves.of(parameters.logical_axes(model)))

    def labels(params: Any) -> Any:
        del params
        return jax.tree.map(
            lambda matrix: "adam" if matrix is None else "muon", matrices, is_leaf=muon.is_leaf
        )

    return optax.partition(
        {
            "muon": muon.scale_by_muon(config.momentum, matrices, model.config, spreader(mesh)),
            "adam": _adamw(config, model, mesh, moves),
        },
        labels,
    )


Direction = Callable[[OptimizerConfig, Decoder, Mesh, Moving], optax.GradientTransformation]
_DIRECTIONS: Mapping[str, Direction] = {
    "adamw": _adamw,
    "muon": _muon,
    "adafactor": _adafactor,
    "lion": _lion,
}
