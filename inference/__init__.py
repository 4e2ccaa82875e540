"""Texts from a trained model: the functions behind `generate.py`, for notebooks and servers too.

- `loading.py` loads a run; `texts.py` continues prompts; `conversation.py` keeps a chat.
- `stops.py` ends texts at strings.

docs/generation.md shows how they are used.
"""
