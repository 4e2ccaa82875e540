"""Data: documents -> tokens -> store -> packed rows -> batch(step).

- `sources/` finds a dataset and names its content by a fingerprint, without opening it: one file a
  source, and a table of them.
- `documents.py` is what a source gives: splits that are random-access sequences of {"id", "text"}.
- `tokenizer.py` turns text into token ids and back; every id knows how many bytes it stands for.
- `store.py` holds the tokens of a split on disk, memory-mapped, addressed by content.
- `packing.py` cuts the store's tokens into rows of one length; `permute.py` orders those rows.
- `stream.py` is the pure function `batch(step)`; `windows.py` is its counterpart for evaluation.
- `prepare.py` walks the whole way, and does nothing that was done before.

Shapes: B rows of a batch, T tokens of a row, V vocabulary. Everything here is NumPy: no module of
this package knows the model, the mesh or JAX.
"""
