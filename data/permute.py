"""A random-access permutation of range(n), in integer arithmetic of our own.

Where the shuffled order puts index i is computed from i alone, so that any batch of any step can
be made anywhere without a shuffled list. An alternating Feistel network over Z_a x Z_b with
a * b >= n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002); the few results
outside range(n) go through it again. Its values are part of every run's identity: they must never
change, and tests/data/test_permute.py pins them.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

_ROUNDS = 8
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: SplitMix64's increment
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_FACTORS = np.uint64(_MIX_1), np.uint64(_MIX_2)


def derive_key(*parts: int) -> int:
    """A 64-bit key that depends on every bit and on the order of `parts` (taken modulo 2**64)."""
    key = 0
    for part in parts:
        key = (key ^ (part & _MASK)) + _GOLDEN & _MASK
        key = (key ^ key >> 30) * _MIX_1 & _MASK
        key = (key ^ key >> 27) * _MIX_2 & _MASK
        key ^= key >> 31
    return key


DOCUMENTS = derive_key(0x706F6469756D)
"""The key (any constant) of the order in which documents are packed and evaluated, which is
unrelated to that of their source."""


def permute(index: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where the permutation of range(n) with this key sends each index.

    Args:
      index: integers in range(n), any shape.
      n: 1 <= n <= 2**48.
      key: 64 bits; other keys give permutations that look unrelated.

    Returns:
      int64, the shape of `index`: a bijection of range(n).

    Raises:
      ValueError: n or an index is out of range.
    """
    return _walk(_network, index, n, key)


def inverse(index: np.ndarray, n: int, key: int) -> np.ndarray:
    """What `permute` sends to each index; otherwise as of `permute`."""
    return _walk(_network_back, index, n, key)


def _walk(
    network: Callable[[np.ndarray, int, int, int], np.ndarray],
    index: np.ndarray,
    n: int,
    key: int,
) -> np.ndarray:
    """Sends each index through a bijection of a larger range, until it is in range(n) again."""
    if not 1 <= n <= 1 << 48:
        raise ValueError(f"cannot permute {n} indices: 1 <= n <= 2**48")
    index = np.asarray(index)
    if index.size and not (index.min() >= 0 and index.max() < n):
        raise ValueError(f"an index is outside range({n})")
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    result = index.astype(np.uint64).reshape(-1)
    outside = np.arange(result.size)
    while outside.size:
        result[outside] = network(result[outside], a, b, key)
        outside = outside[result[outside] >= n]
    return result.astype(np.int64).reshape(index.shape)


def _network(x: np.ndarray, a: int, b: int, key: int) -> np.ndarray:
    """A keyed bijection of range(a * b): uint64 [n] -> uint64 [n]."""
    modulus_a, modulus_b = np.uint64(a), np.uint64(b)
    left, right = np.divmod(x, modulus_b)  # left < a, right < b
    for i, round_key in enumerate(_round_keys(key)):
        if i % 2:
            right = (right + _mix(left + round_key) % modulus_b) % modulus_b
        else:
            left = (left + _mix(right + round_key) % modulus_a) % modulus_a
    return left * modulus_b + right


def _network_back(x: np.ndarray, a: int, b: int, key: int) -> np.ndarray:
    """The inverse of `_network`."""
    modulus_a, modulus_b = np.uint64(a), np.uint64(b)
    left, right = np.divmod(x, modulus_b)
    for i, round_key in reversed(list(enumerate(_round_keys(key)))):
        if i % 2:
            right = (right + modulus_b - _mix(left + round_key) % modulus_b) % modulus_b
        else:
            left = (left + modulus_a - _mix(right + round_key) % modulus_a) % modulus_a
    return left * modulus_b + right


@functools.lru_cache(maxsize=8)  # a run uses the same key for a whole epoch
def _round_keys(key: int) -> list[np.uint64]:
    return [np.uint64(derive_key(key, i)) for i in range(_ROUNDS)]


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea and Flood, 2014): uint64 -> uint64, modulo 2**64."""
    x = (x ^ x >> _SHIFTS[0]) * _FACTORS[0]
    x = (x ^ x >> _SHIFTS[1]) * _FACTORS[1]
    return x ^ x >> _SHIFTS[2]
