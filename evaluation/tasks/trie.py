"""Labels as a tree of tokens: what several of them begin with is computed once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from errors import UserError


class Trie(NamedTuple):
    """The tree. Its root is the prompt; a node is a token that a label goes on after.

    A branch is a token that may follow the root or a node: that of a label's likelihood. A label
    that another one begins with ends with EOS: without, it would always be the likelier of the two.

    Attributes:
      tokens_M: int32, of the nodes, which have to be fed; a node comes after the one above it.
      depth_M: int32, how far below the prompt's last token, 1 at least.
      sees_MM: bool, whether the second node is the first, or above it.
      next_JK: int32, tokens that may follow the root (0) and the nodes (from 1 on), filled with 0.
      branch_E: int32, of each branch its place in `next_JK`, counted through its rows.
      paths: of each label its branches, from the root on.
    """

    tokens_M: np.ndarray
    depth_M: np.ndarray
    sees_MM: np.ndarray
    next_JK: np.ndarray
    branch_E: np.ndarray
    paths: tuple[np.ndarray, ...]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each label that count, int64."""
        return np.array([len(path) for path in self.paths])

    @property
    def depth(self) -> int:
        """Tokens that are fed after a prompt, one after the other."""
        return int(max(self.depth_M, default=0))

    def sums(self, branches_BE: np.ndarray) -> np.ndarray:
        """Log-likelihoods of labels [B, labels], float64, of those of the branches [B, E]."""
        branches_BE = branches_BE.astype(np.float64)
        return np.stack([branches_BE[:, path].sum(axis=1) for path in self.paths], axis=1)


def plant(names: Sequence[str], labels: Sequence[Sequence[int]], eos_id: int) -> Trie:
    """The tree of labels.

    Args:
      names: of the labels, for messages.
      labels: their tokens.
      eos_id: what ends an answer.

    Raises:
      UserError: a label has no token, or two have the same.
    """
    known: dict[tuple[int, ...], str] = {}
    for name, ids in zip(names, labels, strict=True):
        if not len(ids):
            raise UserError(f"the label {name!r} has no token: a label cannot be empty")
        if (other := known.setdefault(tuple(ids), name)) != name:
            raise UserError(
                f"the labels {other!r} and {name!r} have the same tokens: make them differ"
            )
    begun = {tuple(ids[:end]) for ids in labels for end in range(1, len(ids))}
    ended = [(*ids, eos_id) if tuple(ids) in begun else tuple(ids) for ids in labels]

    nodes: dict[tuple[int, ...], int] = {(): 0}
    for end in range(1, max(map(len, ended), default=0)):  # breadth first: above before below
        for ids in ended:
            if len(ids) > end:
                nodes.setdefault(ids[:end], len(nodes))
    branches: dict[tuple[int, ...], int] = {}
    for ids in ended:
        for end in range(1, len(ids) + 1):
            branches.setdefault(ids[:end], len(branches))
    below: list[list[int]] = [[] for _ in nodes]
    at = []
    for ids in branches:
        row = nodes[ids[:-1]]
        at.append((row, len(below[row])))
        below[row].append(ids[-1])
    width = max(map(len, below))
    next_JK = np.zeros((len(nodes), width), np.int32)
    for row, tokens in enumerate(below):
        next_JK[row, : len(tokens)] = tokens

    fed = list(nodes)[1:]
    sees_MM = np.zeros((len(fed), len(fed)), bool)
    for row, ids in enumerate(fed):
        sees_MM[row, [nodes[ids[:end]] - 1 for end in range(1, len(ids) + 1)]] = True
    return Trie(
        tokens_M=np.array([ids[-1] for ids in fed], np.int32),
        depth_M=np.array([len(ids) for ids in fed], np.int32),
        sees_MM=sees_MM,
        next_JK=next_JK,
        branch_E=np.array([row * width + place for row, place in at], np.int32),
        paths=tuple(
            np.array([branches[ids[:end]] for end in range(1, len(ids) + 1)]) for ids in ended
        ),
    )
