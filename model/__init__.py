"""The decoder: tokens in, logits out.

Nothing here knows a mesh or imports another room of the project. Parameters carry the names of
their logical axes (`embed`, `heads`, `mlp`, ...) as metadata; activations are passed through a
`constrain` callable that the caller may supply. `sharding/table.py` gives those names a meaning.

Shape suffixes, used in every file:

    B  batch (rows)          T  sequence, of queries     S  sequence, of keys
    D  embedding             N  query heads              K  key-value heads
    H  head size             F  hidden size of the MLP   V  vocabulary (padded)
    L  layers                G  query heads a key-value head serves (N = K * G)
    E  experts               A  experts that a token is given to
    M  rows of a matrix: tokens, once for each of their experts
"""
