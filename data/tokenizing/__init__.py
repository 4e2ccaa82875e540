"""The kinds of tokenizer that `data.tokenizer` offers, one file each.

- `byte.py`, `byte_level.py`, `sentence_piece.py` and `rank_file.py` are the kinds; `gpt2.py` makes
  a byte-level one of GPT-2's pair of files; `lossless.py` is the test that each has to pass.
- `specials.py` finds BOS and EOS in what is published beside a tokenizer.
- `training.py` trains byte-level BPE and Unigram; `loading.py` reads whatever a path holds.
- `long.py` cuts documents of any size where their ids allow it.
"""
