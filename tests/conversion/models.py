"""Small checkpoints of Hugging Face, written by the library of safetensors."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def shapes(hf: dict[str, Any] = LLAMA) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama's weights, written out from its model card."""
    d, f, v = hf["hidden_size"], hf["intermediate_size"], hf["vocab_size"]
    q = hf["num_attention_heads"] * hf["head_dim"]
    kv = hf["num_key_value_heads"] * hf["head_dim"]
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, d)}
    for i in range(hf["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        found |= {
            f"{layer}input_layernorm.weight": (d,),
            f"{layer}post_attention_layernorm.weight": (d,),
            f"{layer}self_attn.q_proj.weight": (q, d),
            f"{layer}self_attn.k_proj.weight": (kv, d),
            f"{layer}self_attn.v_proj.weight": (kv, d),
            f"{layer}self_attn.o_proj.weight": (d, q),
            f"{layer}mlp.gate_proj.weight": (f, d),
            f"{layer}mlp.up_proj.weight": (f, d),
            f"{layer}mlp.down_proj.weight": (d, f),
        }
    found["model.norm.weight"] = (d,)
    if not hf["tie_word_embeddings"]:
        found["lm_head.weight"] = (v, d)
    return found


def weights(
    hf: dict[str, Any] = LLAMA, dtype: Any = ml_dtypes.bfloat16, seed: int = 0
) -> dict[str, np.ndarray]:
    """Noise for all of them."""
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(shape, np.float32) * 0.1).astype(dtype)
        for name, shape in shapes(hf).items()
    }


def write(folder: Path, hf: dict[str, Any], tensors: dict[str, np.ndarray], files: int = 1) -> Path:
    """The folder with config and weights, in one file or in several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf))
    if files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for i in range(files):
        file = f"model-{i + 1:05}-of-{files:05}.safetensors"
        own = {name: tensors[name] for name in names[i::files]}
        save_file(own, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(own, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
