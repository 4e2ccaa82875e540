"""A decoder's forward pass in NumPy, one token and one head at a time; no code of Podium's."""

import math

import numpy as np


def _norm(x, p, config):
    if config.norm == "layernorm":
        x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * p["scale"]
    return y + p["bias"] if config.norm == "layernorm" else y


def _rotate(x_TNH, positions, theta):
    half = x_TNH.shape[-1] // 2
    out = x_TNH.copy()
    for t, position in enumerate(positions):
        for i in range(half):
            angle = position / theta ** (2 * i / (2 * half))
            turn = complex(math.cos(angle), math.sin(angle))
            for n in range(x_TNH.shape[1]):
                z = complex(x_TNH[t, n, i], x_TNH[t, n, i + half]) * turn
                out[t, n, i], out[t, n, i + half] = z.real, z.imag
    return out


def _attention(x, p, config, positions, segments):
    bias = (lambda name: p[f"{name}_bias"]) if config.bias else (lambda name: 0.0)
    q = np.einsum("td,dnh->tnh", x, p["query"]) + bias("query")
    k = np.einsum("td,dnh->tnh", x, p["key"]) + bias("key")
    v = np.einsum("td,dnh->tnh", x, p["value"]) + bias("value")
    if config.qk_norm:
        q, k = _norm(q, p["query_norm"], config), _norm(k, p["key_norm"], config)
    if config.positions == "rope":
        q = _rotate(q, positions, config.rope_theta)
        k = _rotate(k, positions, config.rope_theta)
    group = config.num_heads // config.num_kv_heads
    mixed = np.zeros_like(q)
    for t in range(len(x)):
        first = max(0, t + 1 - config.sliding_window) if config.sliding_window else 0
        seen = [s for s in range(first, t + 1) if segments[s] == segments[t]]
        for n in range(config.num_heads):
            scores = k[seen, n // group] @ q[t, n] / math.sqrt(config.head_dim)
            if config.attention_softcap:
                scores = np.tanh(scores / config.attention_softcap) * config.attention_softcap
            weights = np.exp(scores - scores.max())
            mixed[t, n] = weights @ v[seen, n // group] / weights.sum()
    return np.einsum("tnh,nhd->td", mixed, p["out"]) + bias("out")


def _mlp(x, p, config):
    bias = (lambda name: p[f"{name}_bias"]) if config.bias else (lambda name: 0.0)
    up = x @ p["up"] + bias("up")
    if config.mlp == "swiglu":
        gate = x @ p["gate"] + bias("gate")
        hidden = gate / (1 + np.exp(-gate)) * up
    else:
        hidden = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    return hidden @ p["down"] + bias("down")


def _route(x, p, moe):
    """Of one token: its experts, and the weight of each."""
    logits = x @ p["router"]
    if moe.scoring == "sigmoid":
        scores = 1 / (1 + np.exp(-logits))
    else:
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
    ranked = scores + p["balance_bias"] if moe.balance == "bias" else scores
    chosen = sorted(range(moe.num_experts), key=lambda e: -ranked[e])[: moe.experts_per_token]
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
            logits = x[t] @ p["router"]
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
            one = {name: p[name][e] for name in ("up", "gate") if name in p}
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
    x = params["embedding"][tokens]
    if config.positions == "learned":
        x = x + params["position_embedding"][positions]
    dense, routing = config.moe.first_dense if config.moe.num_experts else 0, []
    for i in range(config.num_layers):
        p = layer(params["dense_blocks"], i) if i < dense else layer(params["blocks"], i - dense)
        normed = _norm(x, p["attention_norm"], config)
        x = x + _attention(normed, p["attention"], config, positions, segments)
        normed = _norm(x, p["mlp_norm"], config)
        if "router" in p["mlp"]:
            routing.append(_routing(normed, p["mlp"], config, segments))
            x = x + _experts(normed, p["mlp"], config, segments)
        else:
            x = x + _mlp(normed, p["mlp"], config)
    table = params["embedding"] if config.tie_embeddings else params["unembedding"]
    logits = _norm(x, params["final_norm"], config) @ table.T
    if config.logit_softcap:
        logits = np.tanh(logits / config.logit_softcap) * config.logit_softcap
    return logits, routing
