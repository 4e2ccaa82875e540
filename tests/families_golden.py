"""Golden files of the families: logits of a small decoder of each, computed by `transformers`.

    .venv-reference/bin/python -m tests.families_golden [FAMILY ...]

writes tests/golden/families/ (`make parity` makes the environment). The weights are those of
tests/families.py, so that no file has to hold them; the config.json and the names of the tensors
are those that `transformers` saves.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from model.families import FAMILIES
from tests.families import GOLDENS, documents
from tests.parity import theirs


def write(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tensors = theirs.save(name, Path(folder))
        config = json.loads((Path(folder) / "config.json").read_text())
        model = theirs.load(name, Path(folder))
        found = [theirs.logits(model, one).detach().numpy() for one in documents()]
    lines = [f'{{"config": {json.dumps(config)},', '"tensors": {']
    lines += [f"{json.dumps(key)}: {list(tensors[key].shape)}," for key in sorted(tensors)]
    lines[-1] = lines[-1].rstrip(",") + "},"
    lines.append('"logits": [')
    for values in found:
        rows = [json.dumps([round(float(x), 6) for x in row]) for row in values]
        lines.append("[" + ",\n".join(rows) + "],")
    lines[-1] = lines[-1].rstrip(",") + "]}"
    file = GOLDENS / f"{name}.json"
    file.write_text("\n".join(lines) + "\n")
    spread = float(np.std(np.concatenate(found)))
    print(f"{name}: {file.stat().st_size:,} bytes; standard deviation of logits {spread:.2f}")


def main() -> None:
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or FAMILIES:
        write(name)


if __name__ == "__main__":
    main()
