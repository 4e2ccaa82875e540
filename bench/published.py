"""What MaxText's authors published of its speed on TPUs, with the recipe of each result.

Facts alone, to predict and compare with. `of` is where a result is written and `recipe` where its
settings are, both as file and commit of a public repository. Two things make these tables easy to
misread, and every row says how it stands:

- **Attention.** From March 2024 to July 2025, and before 29 November 2023, MaxText counted its
  FLOPs for the whole square of queries and keys ("square"); else, as ModelConfig.flops_per_token
  does, for the half that is visible ("causal"). The same speed has a higher MFU in the first. What
  compares is the time of a step.
- **Shapes.** "16B" and the like are shapes of MaxText's base.yml at the time, scaled; the same file
  gives others today. Those here are of the commit of the result: ReLU without gate (two matrices,
  as our "gelu" has), tied tables, heads of 256.

Names of v5p slices count cores: v5p-128 is 64 chips.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from model.config import ModelConfig
from planning.topology import parse

Attention = Literal["causal", "square", "unknown"]

_MAXTEXT, _RECIPES = "AI-Hypercomputer/maxtext", "AI-Hypercomputer/tpu-recipes"
_NOV_2023, _DEC_2023 = "9bc243c9536b", "76bd53b0f44c"
_NOTHING: Mapping[str, int] = MappingProxyType({})


class Published(NamedTuple):
    """A result.

    Attributes:
      name: of the model.
      topology, slices: as --topology and --slices have them.
      rows, length: sequences on a chip in a step, and their tokens.
      mesh: devices along our mesh axes, but for the one that takes the rest, fsdp.
      remat: MaxText's policy.
      save, offload: what a block keeps for the backward pass beside what comes into it, and what
        waits in the host's memory, by our names (TENSORS in model/config.py).
      attention: how its FLOPs were counted.
      mfu, tflops: published percent, and FLOP/s a chip / 10^12, rounded; 0 if it was not.
      tokens_per_s: published, of a chip; 0 where it was not.
      step_s: published seconds of a step; 0 where they were not.
      of, recipe: where they are written.
      unknown: what the recipe leaves open, or what does not agree; "" if all is said.
      shape: in our terms; None of one that we have no terms for.
      quantization: of products.
    """

    name: str
    topology: str
    rows: float
    length: int
    remat: str
    attention: Attention
    mfu: float
    tflops: float
    of: str
    recipe: str
    shape: ModelConfig | None
    save: tuple[str, ...] = ()
    offload: tuple[str, ...] = ()
    slices: int = 1
    mesh: Mapping[str, int] = _NOTHING
    tokens_per_s: float = 0.0
    step_s: float = 0.0
    unknown: str = ""
    quantization: str = "none"

    @property
    def key(self) -> str:
        """Model and chips: no two results have the same."""
        slices = f" x {self.slices}" if self.slices > 1 else ""
        return f"{self.name} {self.topology}{slices}"

    @property
    def config(self) -> ModelConfig | None:
        """Shape and remat in our terms."""
        if self.shape is None:
            return None
        return dataclasses.replace(
            self.shape, remat="full", remat_save=self.save, remat_offload=self.offload
        )

    @property
    def chips(self) -> int:
        return parse(self.topology, self.slices).chips

    def flops_per_token(self, attention: Attention | None = None) -> float:
        """FLOPs of a step, a token, in the published way of counting or in another."""
        assert self.shape is not None, self.name
        causal = self.shape.flops_per_token(self.length)
        if (attention or self.attention) != "square":
            return causal
        shape = self.shape
        return causal + 6 * shape.num_layers * shape.num_heads * shape.head_dim * self.length

    def seconds(self) -> float:
        """Of a step: as published, else by the published tokens, else by the published FLOP/s."""
        if self.step_s:
            return self.step_s
        if self.tokens_per_s:
            return self.rows * self.length / self.tokens_per_s
        return self.rows * self.length * self.flops_per_token() / (self.mfu / 100 * self._peak)

    @property
    def _peak(self) -> float:
        chip = parse(self.topology).chip
        assert chip is not None
        return chip.bf16

    def causal_mfu(self) -> float:
        """Percent of the peak in bf16, as Podium counts it."""
        done = self.rows * self.length * self.flops_per_token("causal")
        return 100 * done / self.seconds() / self._peak


def _scaled(scale: int) -> ModelConfig:
    """MaxText's base.yml of 2023 by its global_parameter_scale: of the powers of two in it a third
    each goes to layers, to the width, and to heads and MLP, the last first.
    """
    third, rest = divmod(scale.bit_length() - 1, 3)
    wide = third + (rest > 0)
    return ModelConfig(
        vocab_size=32768,
        num_layers=16 << third,
        embed_dim=2560 << third + (rest > 1),
        num_heads=8 << wide,
        num_kv_heads=8 << wide,
        head_dim=256,
        mlp_dim=8192 << wide,
        max_length=2048,
        mlp="gelu",
        dtype="bfloat16",
    )


def _llama(vocab: int, layers: int, width: int, heads: int, hidden: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        num_layers=layers,
        embed_dim=width,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=128,
        mlp_dim=hidden,
        max_length=8192,
        tie_embeddings=False,
        dtype="bfloat16",
    )


_LLAMA2_70B = _llama(32000, 80, 8192, 64, 28672)
_LLAMA3_8B = _llama(128256, 32, 4096, 32, 14336)
_LLAMA3_70B = _llama(128256, 80, 8192, 64, 28672)
_LLAMA3_405B = _llama(128256, 126, 16384, 128, 53248)
_MISTRAL_7B = _llama(32000, 32, 4096, 32, 14336)
_GPT3_175B = dataclasses.replace(
    ModelConfig(50304, 96, 12288, 96, 96, 128, 49152, 2048, mlp="gelu", dtype="bfloat16"),
    norm="layernorm",
    positions="learned",
    bias=True,
)


# What MaxText's "minimal" keeps: every product but those of attention.
_PRODUCTS = ("query", "key", "value", "out", "gate", "up", "down")


def _v5e(scale: int, rows: int, mfu: float, tflops: float, **mesh: int) -> Published:
    """One slice of MaxText/README.md's table of v5e."""
    return Published(
        f"{scale}B",
        "v5e:16x16",
        rows,
        2048,
        remat="full",
        attention="square",
        mfu=mfu,
        tflops=tflops,
        of=f"{_MAXTEXT} README.md at {_NOV_2023}",
        recipe=f"{_MAXTEXT} MaxText/configs/largest_job/{scale}b.sh at {_NOV_2023}",
        shape=_scaled(scale),
        mesh=mesh,
    )


def _v5p(
    scale: int,
    topology: str,
    rows: int,
    tensor: int,
    mfu: float,
    tflops: float,
    remat: Literal["minimal", "full"] = "minimal",
) -> Published:
    """One slice of MaxText's table of v5p, December 2023."""
    return Published(
        f"{scale}B",
        topology,
        rows,
        2048,
        remat=remat,
        attention="causal",
        mfu=mfu,
        tflops=tflops,
        of=f"{_MAXTEXT} MaxText/configs/v5p/README.md at {_DEC_2023}",
        recipe=f"{_MAXTEXT} MaxText/configs/v5p/{scale}b.sh at {_DEC_2023}",
        shape=_scaled(scale),
        save=() if remat == "full" else _PRODUCTS,
        mesh={"tensor": tensor},
        unknown="causal by the code of this commit; if the runs are older, the time of a step is "
        "longer by what the other half of attention adds to the FLOPs; the arrangement of the "
        "chips is the usual one",
    )


def _trillium(
    name: str,
    shape: ModelConfig,
    topology: str,
    rows: int,
    logged: tuple[float, float, float],
    folder: str,
    offload: tuple[str, ...] = ("block", "query", "key", "value", "out"),
    length: int = 8192,
    commit: str = "7e88b6d",
) -> Published:
    """A README of tpu-recipes for v6e: its recipe, and a line of its log.

    Args:
      logged: TFLOP/s and tokens/s of a chip, seconds of a step.
    """
    tflops, tokens_per_s, step_s = logged
    return Published(
        name,
        topology,
        rows,
        length,
        remat="custom" if offload else "full",
        attention="square",
        mfu=round(tflops / 9.18, 2),
        tflops=tflops,
        of=f"{_RECIPES} training/trillium/{folder}/README.md at {commit}",
        recipe="the same",
        shape=shape,
        offload=offload,
        tokens_per_s=tokens_per_s,
        step_s=step_s,
    )


ROWS: tuple[Published, ...] = (
    Published(
        "Llama2-70B",
        "v5p:8x8x8",
        4,
        4096,
        remat="save_dot_except_mlpwi",
        attention="unknown",
        mfu=65.4,
        tflops=0,
        of=f"{_MAXTEXT} docs/reference/models/tiering.md at e591f30cbbf2",
        recipe=f"{_MAXTEXT} benchmarks/maxtext_v5p_model_configs.py, llama2_70b_v5p_128, at "
        "92e59fdf5474",
        shape=_LLAMA2_70B,
        save=("query", "key", "value", "out", "down"),
        tokens_per_s=692,  # "approx"
        unknown="512 chips, in an arrangement that is not said; the recipe's name is of v5p-128. "
        "65.4 % and 692 tokens/s do not agree: with causal attention 692 are 64.6 %, with the "
        "square 67.0 %",
    ),
    _v5e(16, 6, 61.10, 120),
    _v5e(32, 4, 66.86, 132),
    _v5e(64, 2, 59.90, 118),
    _v5e(128, 1, 56.06, 110, tensor=16),
    _v5p(32, "v5p:4x4x4", 8, 4, 71.47, 328),
    _v5p(64, "v5p:4x4x4", 4, 4, 70.31, 323),
    _v5p(128, "v5p:4x4x8", 2, 8, 68.68, 315),
    _v5p(256, "v5p:8x8x8", 2, 8, 67.09, 308),
    _v5p(512, "v5p:8x8x8", 2, 16, 63.99, 294, "full"),
    _v5p(1024, "v5p:8x16x16", 2, 16, 64.80, 297, "full"),
    *(
        _trillium(
            "Llama3.1-8B",
            _LLAMA3_8B,
            topology,
            rows,
            logged,
            f"Llama3.1-8B-MaxText/{folder}",
            commit="ac200eb",
        )
        for folder, topology, rows, logged in (
            ("v6e-256", "v6e:16x16", 4, (417.397, 7207.336, 4.546)),
            ("v6e-128", "v6e:8x16", 4, (412.319, 7119.648, 4.602)),
            ("v6e-64", "v6e:8x8", 5, (419.701, 7247.111, 5.652)),
            ("v6e-32", "v6e:4x8", 3, (407.225, 7031.689, 3.495)),
            ("v6e-16", "v6e:4x4", 3, (419.485, 7243.378, 3.393)),
            ("v6e-8", "v6e:2x4", 3, (413.433, 7138.890, 3.443)),
        )
    ),
    *(
        _trillium(
            "Llama3.1-70B",
            _LLAMA3_70B,
            topology,
            rows,
            logged,
            f"Llama3.1-70B-MaxText/{folder}",
            ("block", "query", "key", "value"),
        )
        for folder, topology, rows, logged in (
            ("v6e-256", "v6e:16x16", 5, (462.297, 960.248, 42.656)),
            ("v6e-128", "v6e:8x16", 4, (453.500, 941.976, 34.786)),
            ("v6e-64", "v6e:8x8", 2, (422.091, 876.736, 18.688)),
            ("v6e-32", "v6e:4x8", 2, (443.385, 920.965, 17.790)),
        )
    ),
    _trillium(
        "Mistral-7B", _MISTRAL_7B, "v6e:2x4", 6, (431.981, 7776.813, 6.320), "Mistral-7B-MaxText"
    ),
    _trillium(
        "Llama2-70B",
        _LLAMA2_70B,
        "v6e:16x16",
        2,
        (402.274, 905.021, 9.052),
        "Llama2-70B-MaxText",
        ("query", "key", "value"),
        length=4096,
    )._replace(
        remat="qkv_proj_offloaded",
        unknown="9.052 s are of 2 rows a chip, as the log's 2,097,152 tokens are; the recipe "
        "beside it has 3. Weights are split along the MLP's width (fsdp_transpose)",
    ),
    _trillium(
        "Llama3.1-405B",
        _LLAMA3_405B,
        "v6e:16x16",
        1,
        (392.454, 149.482, 54.803),
        "Llama3.1-405B-MaxText",
        ("block",),
    )._replace(slices=2),
    _trillium(
        "GPT3-175B",
        _GPT3_175B,
        "v6e:16x16",
        3,
        (384.891, 357.580, 17.182),
        "GPT3-175B-MaxText/bf16",
        (),
        length=2048,
    ),
    Published(
        "Llama3.1-405B",
        "v5p:8x8x8",
        2,
        8192,
        remat="custom",
        attention="causal",
        mfu=68.5,  # 314.53 of 459
        tflops=314.530,
        of=f"{_RECIPES} training/v5p/Llama3.1-405B-MaxText/README.md at c8cfe2f689081",
        recipe=f"{_MAXTEXT} benchmarks/maxtext_v5p_model_configs.py, "
        "llama3_1_405b_8192_v5p_1024, at 3eb77db3c945",
        shape=_LLAMA3_405B,
        offload=("attention", "down"),
        tokens_per_s=124.618,
        step_s=131.474,
        unknown="the arrangement of the 512 chips is not said",
    ),
    Published(
        "Llama3.1-70B",
        "tpu7x:4x4x4",
        4,  # 2 on each of a chip's two devices
        8192,
        remat="custom",
        attention="causal",
        mfu=52.3,  # 1207.05 of 2307
        tflops=1207.05,
        of=f"{_RECIPES} training/ironwood/README.md at d25b533",
        recipe=f"{_RECIPES} training/ironwood/llama3.1-70b/8k-bf16-tpu7x-4x4x4/xpk/run_recipe.sh "
        "at edf6fa7",
        shape=_LLAMA3_70B,
        save=("query", "key", "value", "attention"),
        tokens_per_s=2686.98,
        step_s=12.20,
        unknown="Adam's first moment is bfloat16",
    ),
    Published(
        "Mixtral-8x7B",
        "v6e:16x16",
        12,
        4096,
        remat="custom",
        attention="square",
        mfu=32.93,
        tflops=302.311,
        of=f"{_RECIPES} training/trillium/Mixtral-8x7B-MaxText/README.md at 7e88b6d",
        recipe="the same: tokens are dropped, capacity factor 1.25, no expert axis",
        shape=None,
        offload=("block", "query", "key", "value", "out"),
        tokens_per_s=3645.203,
        step_s=13.484,
        unknown="MaxText's docs/reference/models/tiering.md has 35.23 % and 3,899 tokens/s",
    ),
    Published(
        "Mixtral-8x7B",
        "v5p:4x8x8",
        36,
        4096,
        remat="full",
        attention="unknown",
        mfu=52.56,
        tflops=0,
        of=f"{_MAXTEXT} docs/reference/models/tiering.md at e591f30cbbf2",
        recipe=f"{_RECIPES} training/v5p/Mixtral-8X7B-Maxtext/scripts/run_mixtral-8x7b.sh at "
        "c8cfe2f689081: parameters in bfloat16, dropless",
        shape=None,
        tokens_per_s=2909,
        unknown='"256 Chips(8x4x4)": 8x4x4 are 128 chips with 256 cores; remat is base.yml\'s '
        "default",
    ),
)
