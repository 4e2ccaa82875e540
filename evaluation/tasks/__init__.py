"""What a model answers to the examples of a task, and how good that is.

    records of a source -> cases (prompt, answer) -> likelihood of labels | drawn texts -> metrics

- `cases.py` reads a task's examples; `likelihood.py` weighs its labels, `trie.py` lays them out;
  `answers.py` draws texts; `judge.py` puts them together. The metrics are in
  evaluation/metrics.py.
"""
