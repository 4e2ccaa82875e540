"""Hugging Face checkpoints into workdirs, and back: weight by weight, nothing whole but the mesh's.

`model/families/` says which weights are which; here they are read, laid out and written.

- `safetensors_files.py` reads and writes their files; `formats.py` knows the forms in which weights
  are published; `pieces.py` brings a family's names together with what is there.
- `filling.py` makes parameters of pieces, `reading.py` those of a checkpoint.
- `source.py` is a folder or a hub id, and what of it is carried along; `importing.py` makes a
  workdir of one, `exporting.py` a folder of a workdir, `verifying.py` compares with `transformers`.
"""
