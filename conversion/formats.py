"""The forms in which weights are published: as they are, FP8 with block scales, MXFP4."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import ml_dtypes
import numpy as np

from conversion.safetensors_files import Stored, listed
from errors import UserError

_PLAIN = ("F32", "F16", "BF16")
_SCALE, _BLOCKS, _SCALES = "_scale_inv", "_blocks", "_scales"

# The numbers of E2M1, the 4-bit float of MXFP4 (OCP Microscaling Formats, 2023), by their bits.
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_E2M1 = np.concatenate([_E2M1, -_E2M1])
_E8M0_BIAS = 127


class Tensor(Protocol):
    """A weight of a checkpoint, whatever its form.

    Attributes:
      shape: of the weight.
      dtype: that it has, or that what is quantized came from: "F32", "F16" or "BF16".
      row_bytes: in memory, of an entry of the first dimension while it is read.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def row_bytes(self) -> int: ...

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The entries [start, stop) of the first dimension, in a dtype that holds them exactly."""


class BlockScaled(NamedTuple):
    """FP8 with a factor for each block (DeepSeek-V3, 2024): weight x factor.

    Attributes:
      values: float8_e4m3fn [M, N].
      factors: float32 [ceil(M / block 0), ceil(N / block 1)].
      block: its sides.
    """

    values: Stored
    factors: Stored
    block: tuple[int, int]
    dtype: str = "BF16"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * 4

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        rows = np.arange(*slice(start, stop).indices(self.shape[0])) // self.block[0]
        factors = self.factors.read().astype(np.float32)
        columns = np.arange(self.shape[1]) // self.block[1]
        values = self.values.read(start, stop).astype(np.float32)
        values *= factors[rows][:, columns]
        return values


class Mxfp4(NamedTuple):
    """4-bit floats, 32 of which share an exponent, as gpt-oss has its experts: [E, out, in] in
    their file, and [E, in, out] where the model has it.

    Attributes:
      blocks: uint8 [E, out, in / 32, 16]: two numbers each, the first in the lower half.
      scales: uint8 [E, out, in / 32]: the exponent, and 127.
    """

    blocks: Stored
    scales: Stored
    dtype: str = "BF16"

    @property
    def shape(self) -> tuple[int, ...]:
        experts, out, groups, size = self.blocks.shape
        return experts, groups * size * 2, out

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * self.shape[2] * 4

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        packed = self.blocks.read(start, stop)
        exponents = self.scales.read(start, stop).astype(np.int32) - _E8M0_BIAS
        values = np.stack([_E2M1[packed & 15], _E2M1[packed >> 4]], axis=-1)
        values = values.reshape(*packed.shape[:-1], -1)
        values = np.ldexp(values, exponents[..., None])
        return values.reshape(*packed.shape[:2], -1).swapaxes(1, 2)


def weights(found: Mapping[str, Stored], quantization: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint by name; what belongs to the form of another has none.

    Args:
      found: every tensor.
      quantization: `quantization_config` of config.json; empty without one.

    Raises:
      UserError: a form, or a tensor, that Podium does not read.
    """
    method = quantization.get("quant_method", "")
    if method not in ("", "fp8", "mxfp4"):
        raise UserError(
            f"the weights are quantized by {method!r}: Podium reads 'fp8' with block scales and "
            "'mxfp4'; give the checkpoint that these were made from"
        )
    made: dict[str, Tensor] = {}
    used: set[str] = set()
    if method == "fp8":
        made, used = _block_scaled(found, quantization)
    elif method == "mxfp4":
        made, used = _mxfp4(found)
    others = {name: tensor for name, tensor in found.items() if name not in used}
    return made | others


def unreadable(tensors: Mapping[str, Tensor]) -> None:
    """Refuses weights whose form is none of those that are read.

    Raises:
      UserError: naming them.
    """
    if odd := [name for name, tensor in tensors.items() if tensor.dtype not in _PLAIN]:
        raise UserError(
            f"{listed(odd)}: {tensors[odd[0]].dtype} is none of {', '.join(_PLAIN)}, and no "
            "quantization_config of config.json says how to read it"
        )


def _block_scaled(
    found: Mapping[str, Stored], quantization: Mapping[str, Any]
) -> tuple[dict[str, Tensor], set[str]]:
    block = quantization.get("weight_block_size")
    scaled = [name for name, tensor in found.items() if tensor.dtype == "F8_E4M3"]
    if not isinstance(block, list | tuple) or len(block) != 2:
        raise UserError(
            f"the weights are FP8 with weight_block_size={block!r}: Podium reads those with a "
            "factor for each block, as in [128, 128]"
        )
    sides = (int(block[0]), int(block[1]))
    made: dict[str, Tensor] = {}
    for name in scaled:
        factors, shape = found.get(name + _SCALE), found[name].shape
        if factors is None or len(shape) != 2:
            raise UserError(f"{name} is FP8 without {name + _SCALE}: the checkpoint is incomplete")
        wanted = tuple(-(-n // side) for n, side in zip(shape, sides, strict=True))
        if factors.shape != wanted:
            raise UserError(f"{name + _SCALE} has shape {factors.shape}, not {wanted}")
        made[name] = BlockScaled(found[name], factors, sides)
    return made, set(scaled) | {name + _SCALE for name in scaled}


def _mxfp4(found: Mapping[str, Stored]) -> tuple[dict[str, Tensor], set[str]]:
    made: dict[str, Tensor] = {}
    used: set[str] = set()
    for packed in [name for name in found if name.endswith(_BLOCKS)]:
        name = packed.removesuffix(_BLOCKS)
        blocks, scales = found[packed], found.get(name + _SCALES)
        if scales is None or len(blocks.shape) != 4 or blocks.shape[:-1] != scales.shape:
            raise UserError(
                f"{packed} {blocks.shape} and {name + _SCALES} do not belong together: the "
                "checkpoint is damaged"
            )
        made[name] = Mxfp4(blocks, scales)
        used |= {packed, name + _SCALES}
    return made, used


NUMPY: Mapping[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""What weights can be written in, by the names of `transformers`."""

NAMES: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Those names, by the names of safetensors."""
