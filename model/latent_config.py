"""The shape of multi-head latent attention."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class LatentConfig:
    """Keys and values are made of a few features that all heads share, and so is, if it is wanted,
    the query (DeepSeek-V2, 2024). Of each head of `head_dim` features the last `rope_dim` have
    rotary positions, and their part of the key is the same for all heads.

    Attributes:
      kv_rank: features that keys and values are made of; 0 is off, and nothing here applies.
      query_rank: features that queries are made of; 0 makes them of the residual stream itself.
      rope_dim: features of a head that are rotated.
      value_dim: features of a head's values.
    """

    kv_rank: int = 0
    query_rank: int = 0
    rope_dim: int = 64
    value_dim: int = 128

    def __post_init__(self) -> None:
        for name, least in (("kv_rank", 0), ("query_rank", 0), ("rope_dim", 2), ("value_dim", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        if self.rope_dim % 2:
            raise ValueError(f"rope_dim={self.rope_dim}: rotary positions need an even number")
