"""From records to tokens of which some are learned: what a task (data/tasks/) makes of a corpus.

- `rendering.py` makes sequences of a document's record, and says of one that cannot be which it is;
- `chat.py` renders dialogues with a tokenizer's own template, and tells what of them is learned;
- `sequences.py` is what is made: ids, and which of them are learned; too long ones are shortened;
- `limits.py` chooses examples where a corpus is to give only so many;
- `rates.py` mixes corpora by how many examples they have.
"""
