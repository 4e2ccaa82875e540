"""Reinforcement with a checkable reward (GRPO), by Tunix, from a workdir into a workdir.

Tunix has the algorithm; here is the bridge. Nothing else in Podium imports this package, and all
of it but `policy.py` needs Tunix, which has an environment of its own (docs/reinforcement.md).

- `policy.py` is the decoder as Tunix calls a model; `rollout.py` draws the answers for it.
- `grpo.py` puts both into Tunix's learner; `saving.py` writes what came of it.
- `example.py` is a command with a reward: `python -m reinforcement.example`.
"""
