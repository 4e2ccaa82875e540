"""A decoder's forward pass in NumPy, one token and one head at a time; no code of Podium's."""

import math

import numpy as np


def _norm(x, p, config):
    over = tuple(range(-p["scale"].ndim, 0))
    if config.norm == "layernorm":
        x = x - x.mean(over, keepdims=True)
    y = x / np.sqrt((x * x).mean(over, keepdims=True) + config.norm_eps)
    y = y * (p["scale"] + config.norm_offset)
    return y + p["bias"] if config.norm == "layernorm" else y


def _frequency(i, size, config, local):
    """Radians a token of pair i."""
    scaling = config.rope_scaling
    if local and config.rope_local_theta:
        return config.rope_local_theta ** (-2 * i / size)
    plain = config.rope_theta ** (-2 * i / size)
    if scaling.kind == "none":
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    if scaling.kind == "llama3":
        wave = 2 * math.pi / plain
        if wave < scaling.original_length / scaling.high_freq_factor:
            return plain
        if wave > scaling.original_length / scaling.low_freq_factor:
            return plain / scaling.factor
        smooth = scaling.original_length / wave - scaling.low_freq_factor
        smooth /= scaling.high_freq_factor - scaling.low_freq_factor
        return (1 - smooth) * plain / scaling.factor + smooth * plain

    def at(turns):
        length = scaling.original_length
        return size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = at(scaling.beta_fast), at(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = min(max((i - low) / (high - low if high != low else 0.001), 0), 1)
    return plain / scaling.factor * ramp + plain * (1 - ramp)


def _rotate(x_TNH, positions, config, local):
    half = x_TNH.shape[-1] // 2
    out = x_TNH.copy()
    longer = 1.0
    if config.rope_scaling.kind == "yarn":
        longer = 0.1 * math.log(config.rope_scaling.factor) + 1
    for t, position in enumerate(positions):
        for i in range(half):
            angle = position * _frequency(i, 2 * half, config, local)
            turn = complex(math.cos(angle), math.sin(angle)) * longer
            for n in range(x_TNH.shape[1]):
                z = complex(x_TNH[t, n, i], x_TNH[t, n, i + half]) * turn
                out[t, n, i], out[t, n, i + half] = z.real, z.imag
    return out


def _latent(x, p, config, positions, local):
    """Queries, keys and values of every head."""
    latent = config.latent
    q = np.einsum(
        "tq,qnh->tnh", _norm(x @ p["query_down"], p["query_down_norm"], config), p["query_up"]
    )
    down = x @ p["kv_down"]
    c = _norm(down[:, : latent.kv_rank], p["kv_down_norm"], config)
    turned = _rotate(down[:, None, latent.kv_rank :], positions, config, local)
    plain = config.head_dim - latent.rope_dim
    q = np.concatenate([q[..., :plain], _rotate(q[..., plain:], positions, config, local)], -1)
    k = np.einsum("tr,rnh->tnh", c, p["key_up"])
    k = np.concatenate([k, np.repeat(turned, config.num_heads, 1)], -1)
    return q, k, np.einsum("tr,rnh->tnh", c, p["value_up"])


def _attention(x, p, config, positions, segments, local):
    if config.latent.kv_rank:
        q, k, v = _latent(x, p, config, positions, local)
    else:
        q, k, v = _heads(x, p, config, positions, local)
    group = config.num_heads // config.num_kv_heads
    mixed = np.zeros((*q.shape[:2], v.shape[-1]))
    window = config.sliding_window if local else 0
    for t in range(len(x)):
        first = max(0, t + 1 - window) if window else 0
        seen = [s for s in range(first, t + 1) if segments[s] == segments[t]]
        for n in range(config.num_heads):
            scores = k[seen, n // group] @ q[t, n]
            scores = scores * (config.attention_scale or 1 / math.sqrt(config.head_dim))
            if config.attention_softcap:
                scores = np.tanh(scores / config.attention_softcap) * config.attention_softcap
            weights = np.exp(scores)
            total = weights.sum()
            if config.attention_sinks:
                total += math.exp(p["sinks"][n])
            mixed[t, n] = weights @ v[seen, n // group] / total
    return np.einsum("tnh,nhd->td", mixed, p["out"]) + (p["out_bias"] if config.bias else 0.0)


def _heads(x, p, config, positions, local):
    has_bias = config.bias or config.qkv_bias
    bias = (lambda name: p[f"{name}_bias"]) if has_bias else (lambda name: 0.0)
    q = np.einsum("td,dnh->tnh", x, p["query"]) + bias("query")
    k = np.einsum("td,dnh->tnh", x, p["key"]) + bias("key")
    v = np.einsum("td,dnh->tnh", x, p["value"]) + bias("value")
    if config.qk_norm:
        q, k = _norm(q, p["query_norm"], config), _norm(k, p["key_norm"], config)
    if config.positions == "rope":
        q = _rotate(q, positions, config, local)
        k = _rotate(k, positions, config, local)
    return q, k, v


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mlp(x, p, config):
    bias = (lambda name: p[f"{name}_bias"]) if config.bias else (lambda name: 0.0)
    up = x @ p["up"] + bias("up")
    if config.mlp == "gelu":
        return _gelu(up) @ p["down"] + bias("down")
    gate = x @ p["gate"] + bias("gate")
    if config.mlp == "swiglu":
        hidden = gate / (1 + np.exp(-gate)) * up
    elif config.mlp == "geglu":
        hidden = _gelu(gate) * up
    else:
        gate, up = np.minimum(gate, 7), np.maximum(np.minimum(up, 7), -7)
        hidden = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
    return hidden @ p["down"] + bias("down")


def _route(x, p, moe):
    """Of one token: its experts, and the weight of each."""
    logits = x @ p["router"] + p.get("router_bias", 0.0)
    if moe.scoring == "sigmoid":
        scores = 1 / (1 + np.exp(-logits))
    else:
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
    ranked = scores + p["balance_bias"] if moe.balance == "bias" else scores
    size = moe.num_experts // moe.groups
    of_groups = [sum(sorted(ranked[g * size : (g + 1) * size])[-2:]) for g in range(moe.groups)]
    best = sorted(range(moe.groups), key=lambda g: -of_groups[g])[: moe.groups_per_token]
    allowed = [e for e in range(moe.num_experts) if moe.groups == 1 or e // size in best]
    chosen = sorted(allowed, key=lambda e: -ranked[e])[: moe.experts_per_token]
    weights = scores[chosen]
    if moe.renormalise:
        weights = weights / weights.sum()
    return chosen, weights * moe.route_scale


def _routing(x, p, config, segments):
    """Of a row: tokens an expert, sums of normalized scores, and the sum of log(Z)^2."""
    chosen, scores, z = np.zeros(config.moe.num_experts), 0.0, 0.0
    for t in range(len(x)):
        if segments[t]:
            chosen[_route(x[t], p, config.moe)[0]] += 1
            logits = x[t] @ p["router"] + p.get("router_bias", 0.0)
            sigmoid = config.moe.scoring == "sigmoid"
            raw = 1 / (1 + np.exp(-logits)) if sigmoid else np.exp(logits)
            scores = scores + raw / raw.sum()
            z += np.log(np.exp(logits).sum()) ** 2
    return chosen, scores, z


def _experts(x, p, config, segments):
    y = _mlp(x, p["shared"], config) if config.moe.shared_experts else np.zeros_like(x)
    for t in range(len(x)):
        if segments[t] == 0:
            continue
        for e, weight in zip(*_route(x[t], p, config.moe), strict=True):
            names = "up gate up_bias gate_bias down_bias".split()
            one = {name: p[name][e] for name in names if name in p}
            one["down"] = p["down"][e].T
            y[t] += weight * _mlp(x[t], one, config)
    return y


def reference_logits(config, params, tokens, positions, segments):
    """Logits [T, V] of one row, float64. params: nested dict of arrays, blocks stacked."""
    return _forward(config, params, tokens, positions, segments)[0]


def reference_routing(config, params, tokens, positions, segments):
    """Of one row and all layers with experts: [L, E] chosen, [L, E] scores and [L] z."""
    found = _forward(config, params, tokens, positions, segments)[1]
    return tuple(np.stack(each) for each in zip(*found, strict=True))


def _forward(config, params, tokens, positions, segments):

    def f64(tree):
        if isinstance(tree, dict):
            return {k: f64(v) for k, v in tree.items()}
        return np.asarray(tree, np.float64)

    def layer(tree, i):
        return {k: layer(v, i) for k, v in tree.items()} if isinstance(tree, dict) else tree[i]

    params = f64(params)
    x = params["embedding"][tokens] * config.embed_scale
    if config.positions == "learned":
        x = x + params["position_embedding"][positions]
    dense, routing = config.moe.first_dense if config.moe.num_experts else 0, []
    for i in range(config.num_layers):
        p = layer(params["dense_blocks"], i) if i < dense else layer(params["blocks"], i - dense)
        kinds = config.layer_pattern
        local = kinds[i % len(kinds)] == "local" if kinds else bool(config.sliding_window)
        normed = _norm(x, p["attention_norm"], config) if config.norms != "post" else x
        y = _attention(normed, p["attention"], config, positions, segments, local)
        x = x + (_norm(y, p["attention_post_norm"], config) if config.norms != "pre" else y)
        normed = _norm(x, p["mlp_norm"], config) if config.norms != "post" else x
        if "router" in p["mlp"]:
            routing.append(_routing(normed, p["mlp"], config, segments))
            y = _experts(normed, p["mlp"], config, segments)
        else:
            y = _mlp(normed, p["mlp"], config)
        x = x + (_norm(y, p["mlp_post_norm"], config) if config.norms != "pre" else y)
    table = params["embedding"] if config.tie_embeddings else params["unembedding"]
    logits = _norm(x, params["final_norm"], config) @ table.T
    if config.logit_softcap:
        logits = np.tanh(logits / config.logit_softcap) * config.logit_softcap
    return logits, routing
