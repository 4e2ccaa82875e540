"""Data: documents -> filters -> tokens -> store -> plan -> rows -> batch(step).

- `sources/` finds a corpus, names its content by a fingerprint, and reads it in shards
  (`documents.py`): one file a source, and a table of them.
- `tasks/` says what of a corpus's records is asked and what is learned, a file each; `examples/`
  makes tokens of them, with a bit for each that is learned.
- `tokenizer.py` and `tokenizing/` turn text into token ids and back; every id knows how many bytes
  it stands for. Documents of any size are cut where the ids stay the same.
- `chunks.py`, `worker.py`, `workers.py` and `building.py` tokenize in parallel processes, and go on
  where a killed build stopped; `store.py` holds the tokens of a split, addressed by content.
- `plan.py` and `packers.py` lay a store's documents into bins; `permute.py` orders those.
- `mixture.py` deals rows to corpora; `stages.py` says how rows change in the course of a run.
- `stream.py` is the pure function `batch(step)`; `windows.py` is its counterpart for evaluation.
- `preparation.py` walks the whole way, and does nothing that was done before.
- `prepare.py` and `inspect.py` are commands: `python -m data.prepare`, `python -m data.inspect`.

Shapes: B rows of a batch, T tokens of a row, V vocabulary. Everything here is NumPy: no module of
this package but the two commands knows the model, the mesh or JAX.
"""
