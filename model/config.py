"""The shape of a decoder, and what follows from the shape alone: parameters and FLOPs."""

import dataclasses
from typing import Literal

from model.adapter_config import AdapterConfig
from model.latent_config import LatentConfig
from model.moe_config import MoeConfig
from model.rope_scaling import RopeScaling

Norm = Literal["rmsnorm", "layernorm"]
Positions = Literal["rope", "learned"]
Norms = Literal["pre", "post", "both"]
Mlp = Literal["swiglu", "geglu", "clamped_swiglu", "gelu"]
NormOver = Literal["head", "heads"]
Layers = Literal["local", "global"]
Dtype = Literal["float32", "bfloat16"]
Quantization = Literal["none", "int8", "fp8"]
Remat = Literal["none", "full", "save_dots", "save_attention"]

PRODUCTS = ("query", "key", "value", "out", "gate", "up", "down")
"""Products of a block's activations with weights: [B, T, heads, H], [B, T, F] or [B, T, D]."""

OF_ATTENTION, OF_MLPS = PRODUCTS[:4], PRODUCTS[4:]
"""Those of attention, and of the other half of a block."""

TENSORS = ("block", *PRODUCTS, "attention")
"""What of a block can be kept for the backward pass. Beside the products: what comes into it,
[B, T, D], and what attention gives, with what its own backward pass needs."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer.

    Attributes:
      vocab_size: ids the tokenizer can produce; 0 until it is known.
      spare_vocab: vocab_size is meant to be far more than the tokenizer's ids.
      vocab_multiple: the embedding table is padded to a multiple of this. It is a constant of the
        model, never of the mesh, so that every mesh reads the same checkpoint.
      num_layers: blocks; stacked along a leading axis and scanned over.
      embed_dim: width of the residual stream.
      num_heads: query heads.
      num_kv_heads: key-value heads: equal to num_heads for multi-head attention, 1 for
        multi-query, a divisor in between for grouped-query.
      head_dim: size of one head; rotary positions need it even.
      mlp_dim: hidden width of the MLP.
      max_length: longest sequence. With learned positions, the rows of their table.
      norm, norm_eps: RMSNorm or LayerNorm, of sub-layers and of the output.
      norms: of each sub-layer what comes in ("pre"), what goes out, before it is added ("post",
        OLMo 2), or "both" (Gemma 2).
      norm_offset: is added to the scales of norms, which start at 1 less (Gemma has 1).
      positions, rope_theta: rotary (Su et al. 2021, half-split form) or a learned table.
      rope_scaling: for longer rows (model/rope_scaling.py).
      rope_local_theta: in local layers rotary positions have this theta, and no scaling; 0: they
        are the same everywhere (Gemma 3).
      mlp: SwiGLU, GeGLU (Shazeer 2020; GELU in its tanh form), SwiGLU with bounds as gpt-oss has
        it (model/mlp.py), or GELU in its tanh form without a gate, as GPT-2 has it.
      bias: biases on every projection, as GPT-2 has them; those of experts and routers, too.
      qkv_bias: biases on queries, keys and values alone (Qwen 2).
      qk_norm: normalise queries and keys before rotation (Dehghani et al. 2023).
      qk_norm_over: each head for itself ("head"), or all of them together ("heads", OLMo 2).
      attention_scale: scores are products of queries and keys times this; 0 is head_dim^-1/2.
      attention_softcap: scores become cap * tanh(scores / cap); 0 is off (Gemma 2).
      attention_sinks: a logit for each head takes part in the softmax and has no value (gpt-oss).
      logit_softcap: the same on the output logits; 0 is off.
      sliding_window: a token sees this many tokens, itself included; 0 sees all before it.
      layer_pattern: kinds of layers, in turns from the first on: those that are "local" have the
        window, those that are "global" none. Empty: all have it.
      embed_scale: embeddings are multiplied by it (Gemma: the square root of embed_dim).
      latent: queries, keys and values by way of fewer features (model/latent_config.py).
      tie_embeddings: the output projection is the embedding table.
      init_std: standard deviation of all projections and embeddings. Projections that write to
        the residual stream have init_std / sqrt(2 * num_layers) (Radford et al. 2019). Norm
        scales start at 1, biases at 0.
      dtype: what matrices are multiplied in. Parameters, norms, softmax and loss are float32.
      quantization: what the products with weights of the blocks are computed in instead, forward
        and backward (`make setup QUANTIZATION=1`): "int8", or "fp8" for hardware that has it.
      remat: what the backward pass recomputes: nothing ("none"), the whole block ("full"), all
        but matrix products ("save_dots"), all but attention ("save_attention").
      remat_save: tensors of a block that are kept beside those, by their names in TENSORS.
      remat_offload: tensors of a block that wait for the backward pass in the host's memory.
      scan_unroll: layers per iteration of the scan over layers. Changes speed, not results.
      logits_mb: memory for float32 logits on a device: so many MB of them exist at a time in the
        loss, and half as much of their gradient. Larger parts of the sequence read the table, and
        add to its gradient, less often. (Where `tensor` or `pipeline` leave a device fewer logits
        of a token than it has features, it is the features that have so much. Parts of the table's
        gradient that cross the devices at a time are no larger either.)
      moe: mixtures of experts in the place of MLPs (model/moe_config.py).
      adapter: what lies beside weights that stay as they are (model/adapter_config.py). Not a key
        of a config: config.tuning says it (training/tuning.py).
    """

    vocab_size: int
    num_layers: int
    embed_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    max_length: int
    vocab_multiple: int = 128
    spare_vocab: bool = False
    norm: Norm = "rmsnorm"
    norm_eps: float = 1e-5
    norms: Norms = "pre"
    norm_offset: float = 0.0
    positions: Positions = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling = RopeScaling()
    rope_local_theta: float = 0.0
    mlp: Mlp = "swiglu"
    bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    qk_norm_over: NormOver = "head"
    attention_scale: float = 0.0
    attention_softcap: float = 0.0
    attention_sinks: bool = False
    logit_softcap: float = 0.0
    sliding_window: int = 0
    layer_pattern: tuple[Layers, ...] = ()
    embed_scale: float = 1.0
    latent: LatentConfig = LatentConfig()
    tie_embeddings: bool = True
    init_std: float = 0.02
    dtype: Dtype = "float32"
    quantization: Quantization = "none"
    remat: Remat = "none"
    remat_save: tuple[str, ...] = ()
    remat_offload: tuple[str, ...] = ()
    scan_unroll: int = 1
    logits_mb: int = 128
    moe: MoeConfig = MoeConfig()
    adapter: AdapterConfig = AdapterConfig()

    def __post_init__(self) -> None:
        for name in (
            "num_layers embed_dim num_heads num_kv_heads head_dim mlp_dim max_length "
            "vocab_multiple scan_unroll logits_mb"
        ).split():
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in (
            "vocab_size attention_scale attention_softcap logit_softcap sliding_window "
            "rope_local_theta"
        ).split():
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim}: rotary positions need an even head size")
        if self.layer_pattern and not self.sliding_window:
            raise ValueError(
                f"layer_pattern={list(self.layer_pattern)}: without sliding_window all layers are "
                "alike; set that, or leave the pattern empty"
            )
        if self.rope_local_theta and "local" not in self.layer_pattern:
            raise ValueError(f"rope_local_theta={self.rope_local_theta}: no layer is local")
        if self.latent.kv_rank:
            self._check_latent()
        for key in ("remat_save", "remat_offload"):
            for name in (names := getattr(self, key)):
                if name not in TENSORS:
                    raise ValueError(f"{key}={list(names)}: choose of {', '.join(TENSORS)}")
            if names and self.remat == "none":
                raise ValueError(f"{key}={list(names)}: with remat='none' everything is kept")
        if self.moe.num_experts:
            self._check_experts()
        if self.adapter.kind != "none":
            self._check_adapter()
        scanned = self.stacks[-1]
        if scanned % self.scan_unroll:
            of = "num_layers" if scanned == self.num_layers else "num_layers - moe.first_dense"
            raise ValueError(f"scan_unroll={self.scan_unroll} does not divide {of}={scanned}")

    def _check_latent(self) -> None:
        if self.latent.rope_dim >= self.head_dim:
            raise ValueError(
                f"latent.rope_dim={self.latent.rope_dim}: must be less than "
                f"head_dim={self.head_dim}, of which it is a part"
            )
        if self.num_kv_heads != self.num_heads:
            raise ValueError(
                f"num_kv_heads={self.num_kv_heads}: with latent.kv_rank every head has its own "
                f"keys; set it to num_heads={self.num_heads}"
            )
        if self.positions != "rope":
            raise ValueError(f"positions={self.positions!r}: latent.kv_rank goes with 'rope'")
        for name in ("bias", "qkv_bias", "qk_norm"):
            if getattr(self, name):
                raise ValueError(f"{name}=True: latent.kv_rank has none; set it to False")

    def _check_experts(self) -> None:
        if self.moe.first_dense >= self.num_layers:
            raise ValueError(
                f"moe.first_dense={self.moe.first_dense} leaves no layer of "
                f"num_layers={self.num_layers} to experts: set moe.num_experts=0 for a dense model"
            )
        if self.quantization != "none":
            raise ValueError(
                f"quantization={self.quantization!r}: products with experts cannot be quantized; "
                "set it to 'none'"
            )

    def _check_adapter(self) -> None:
        targets, told = self.adapter.targets, f"adapter.targets={list(self.adapter.targets)}"
        for name in targets:
            if name not in PRODUCTS:
                raise ValueError(f"{told}: choose of {', '.join(PRODUCTS)}")
        if not targets:
            raise ValueError(f"{told}: adapter.kind={self.adapter.kind!r} needs some")
        without = () if self.gated else ("gate",)
        if self.latent.kv_rank:
            without = (*without, *OF_ATTENTION)
        if self.moe.num_experts:
            without = (*without, *OF_MLPS)
        if found := [name for name in targets if name in without]:
            raise ValueError(
                f"{told}: {', '.join(found)} can have no adapter here, for latent attention and "
                "experts have none, and an MLP without a gate has no product of that name"
            )

    @property
    def plain(self) -> "ModelConfig":
        """The decoder without adapters."""
        return dataclasses.replace(self, adapter=AdapterConfig())

    @property
    def gated(self) -> bool:
        """Whether MLPs have a gate."""
        return self.mlp != "gelu"

    @property
    def local_layers(self) -> tuple[bool, ...] | None:
        """Of each layer in the order of depth whether it is local; None: all are of one kind."""
        if not self.layer_pattern:
            return None
        kinds = self.layer_pattern
        return tuple(kinds[i % len(kinds)] == "local" for i in range(self.num_layers))

    @property
    def value_dim(self) -> int:
        """Features of a head's values."""
        return self.latent.value_dim if self.latent.kv_rank else self.head_dim

    @property
    def score_scale(self) -> float:
        """What products of queries and keys are multiplied by, as a config may leave it open."""
        return self.attention_scale or self.head_dim**-0.5

    @property
    def cached(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """What is kept of a token to decode with, in a layer: heads and size of keys, of values."""
        if self.latent.kv_rank:  # values are a part of the keys
            return (1, self.latent.kv_rank + self.latent.rope_dim), (1, 0)
        return (self.num_kv_heads, self.head_dim), (self.num_kv_heads, self.head_dim)

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table: vocab_size rounded up to vocab_multiple."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    @property
    def dense_layers(self) -> int:
        """The layers, first in depth, whose MLP is dense."""
        return self.moe.first_dense if self.moe.num_experts else self.num_layers

    @property
    def stacks(self) -> tuple[int, ...]:
        """Layers of each kind in the order of depth; those of a kind are stacked."""
        dense = self.dense_layers
        return tuple(layers for layers in (dense, self.num_layers - dense) if layers)

    @property
    def mlp_widths(self) -> tuple[int, ...]:
        """Hidden widths of all MLPs of the model, those of experts too."""
        moe, widths = self.moe, [self.mlp_dim] if self.dense_layers else []
        if moe.num_experts:
            widths.append(moe.expert_mlp_dim)
            if moe.shared_experts:
                widths.append(moe.shared_experts * moe.expert_mlp_dim)
        return tuple(widths)

    @property
    def _attention_weights(self) -> int:
        """Those that multiply a token, of a layer."""
        if not (latent := self.latent).kv_rank:
            return self.embed_dim * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        query = self.num_heads * self.head_dim
        if latent.query_rank:
            query = latent.query_rank * (self.embed_dim + query)
        else:
            query *= self.embed_dim
        down = self.embed_dim * (latent.kv_rank + latent.rope_dim)
        key = self.head_dim - latent.rope_dim
        up = latent.kv_rank * self.num_heads * (key + latent.value_dim)
        return query + down + up + self.num_heads * latent.value_dim * self.embed_dim

    def _mlp_weights(self, width: int) -> int:
        return (3 if self.gated else 2) * self.embed_dim * width

    def _mlp_biases(self, width: int) -> int:
        return (2 if self.gated else 1) * width + self.embed_dim

    def _expert_layer_weights(self, experts: int) -> int:
        """Of the MLP's place in a layer of experts: the router, so many experts, and the shared."""
        moe = self.moe
        widths = (experts + moe.shared_experts) * moe.expert_mlp_dim
        return self.embed_dim * moe.num_experts + self._mlp_weights(widths)

    def _adapter_weights(self, magnitudes: bool) -> int:
        """Those that multiply a token, of a layer; with the lengths that DoRA has, if asked."""
        if (adapter := self.adapter).kind == "none":
            return 0
        of_heads, of_keys = (n * self.head_dim for n in (self.num_heads, self.num_kv_heads))
        embed, width = self.embed_dim, self.mlp_dim
        sides = {
            "query": (embed, of_heads),
            "key": (embed, of_keys),
            "value": (embed, of_keys),
            "out": (of_heads, embed),
            "gate": (embed, width),
            "up": (embed, width),
            "down": (width, embed),
        }
        total = adapter.rank * sum(sum(sides[name]) for name in adapter.targets)
        if magnitudes and adapter.kind == "dora":
            total += sum(sides[name][1] for name in adapter.targets)
        return total

    def num_params(self) -> int:
        """Parameters, padding of the vocabulary included.

        V D  (+ V D unless tied)  (+ max_length D if positions are learned)
        + L (2 D H (N + K)  +  2 or 3 D F  +  norms, biases and sinks)  +  final norm,

        (and what lies beside weights: rank x (inputs + outputs) each),

        where latent attention has others in the place of 2 D H (N + K), and a layer of E experts
        of width F and S shared ones has D E + (E + S) x 2 or 3 D F in the place of 2 or 3 D F, and
        E more if it is balanced by a bias.
        """
        a_feature = 2 if self.norm == "layernorm" else 1
        norm = self.embed_dim * a_feature
        block = self._attention_weights + (4 if self.norms == "both" else 2) * norm
        block += a_feature * (self.latent.kv_rank and self.latent.kv_rank + self.latent.query_rank)
        if self.bias or self.qkv_bias:
            block += self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
        if self.bias:
            block += self.embed_dim
        if self.qk_norm:
            all_heads = self.num_heads + self.num_kv_heads
            heads = 2 if self.qk_norm_over == "head" else all_heads
            block += heads * self.head_dim * a_feature
        if self.attention_sinks:
            block += self.num_heads
        tables = self.padded_vocab_size * self.embed_dim * (1 if self.tie_embeddings else 2)
        if self.positions == "learned":
            tables += self.max_length * self.embed_dim
        dense = self._mlp_weights(self.mlp_dim)
        if self.bias:
            dense += self._mlp_biases(self.mlp_dim)
        of_experts = self._expert_layer_weights(self.moe.num_experts)
        if self.bias:
            moe = self.moe
            of_experts += moe.num_experts * (1 + self._mlp_biases(moe.expert_mlp_dim))
            if moe.shared_experts:
                of_experts += self._mlp_biases(moe.shared_experts * moe.expert_mlp_dim)
        if self.moe.balance == "bias":
            of_experts += self.moe.num_experts
        mlps = self.dense_layers * dense + (self.num_layers - self.dense_layers) * of_experts
        block += self._adapter_weights(magnitudes=True)
        return tables + self.num_layers * block + mlps + norm

    def flops_per_token(self, length: int) -> float:
        """Floating-point operations of one training step, a token, at sequences of `length`.

        6 x (weights that multiply a token: attention, MLP and output projection; not the
        embedding look-up; of experts those that it chooses, the shared ones and the router)
        +  6 L N H x (keys a token sees, twice: scores and values; values may have another size),

        where a token sees length / 2 keys on average (causal), or in local layers about the window
        if that is shorter. The convention of PaLM (Chowdhery et al. 2022, appendix B) but with the
        causal half counted once; recomputation by remat is not counted, as usual for MFU. With
        adapters it is 4 in the place of the first 6, for no gradient of the weights is asked for,
        and 6 x (weights of the adapters) more.
        """
        matmul = self.num_layers * self._attention_weights
        matmul += self.dense_layers * self._mlp_weights(self.mlp_dim)
        chosen = self._expert_layer_weights(self.moe.experts_per_token)
        matmul += (self.num_layers - self.dense_layers) * chosen
        matmul += self.padded_vocab_size * self.embed_dim
        size = self.head_dim + self.value_dim
        frozen = self.adapter.kind != "none"
        products = (4 if frozen else 6) * matmul
        products += 6 * self.num_layers * self._adapter_weights(magnitudes=False)
        return products + 6 * self.num_layers * self.num_heads * size * self.keys_seen(length)

    def keys_seen(self, length: int) -> float:
        """How many keys a token sees on average in rows of `length`, over tokens and layers."""
        every = length / 2
        if not 0 < self.sliding_window < length:
            return every
        near = self.sliding_window * (1 - self.sliding_window / (2 * length))
        if (local := self.local_layers) is None:
            return near
        return every + sum(local) / self.num_layers * (near - every)
