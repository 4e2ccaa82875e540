"""The side of `transformers` in the bench of decoding.

    python -m bench.torch_decode float32 8

A line on stdin is one run, a JSON line out. It is called as its users call it, `generate` with its
usual cache.
"""

import json
import sys
import time

import torch
import transformers

from bench import decode_shape as shape


def main() -> None:
    dtype, batch = getattr(torch, sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=shape.VOCAB,
        num_hidden_layers=shape.LAYERS,
        hidden_size=shape.EMBED,
        num_attention_heads=shape.HEADS,
        num_key_value_heads=shape.KV_HEADS,
        intermediate_size=shape.MLP,
        max_position_embeddings=shape.MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": shape.THETA},
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).to(dtype).eval()
    ids = torch.randint(10, 40_000, (batch, shape.PROMPT))
    mask = torch.ones_like(ids)

    def run(tokens: int) -> float:
        began = time.perf_counter()
        with torch.no_grad():
            out = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=2,
            )
        assert out.shape[1] == shape.PROMPT + tokens
        return time.perf_counter() - began

    about = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        first = run(1)
        print(json.dumps({"first_s": first, "s": run(1 + shape.NEW) - first}), flush=True)


if __name__ == "__main__":
    main()
