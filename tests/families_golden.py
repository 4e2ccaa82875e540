"""Golden files of the families: logits of a small decoder of each, computed by `transformers`.

    .venv-reference/bin/python -m tests.families_golden [FAMILY ...]

writes tests/golden/families/. The weights are those of tests/families.py, so that no file has to
hold them; the config.json and the names are those that `transformers` saves.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from model.families import FAMILIES
from tests.families import GOLDENS, SMALL, documents, drawn

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def save_fresh(name: str, folder: Path) -> None:
    """A checkpoint as `transformers` saves one, with its own random weights."""
    config = transformers.AutoConfig.for_model(name, **SMALL[name])
    getattr(transformers, FAMILIES[name].ARCHITECTURE)(config).save_pretrained(folder)


def save_drawn(name: str, folder: Path) -> dict[str, tuple[int, ...]]:
    """The same with ours; returns their names and shapes."""
    save_fresh(name, folder)
    file = folder / "model.safetensors"
    shapes = {key: value.shape for key, value in load_file(file).items()}
    save_file({k: drawn(k, v) for k, v in shapes.items()}, file, metadata={"format": "pt"})
    return shapes


def load(name: str, folder: Path) -> Any:
    model = getattr(transformers, FAMILIES[name].ARCHITECTURE)
    return model.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def logits(model: Any, document: np.ndarray) -> torch.Tensor:
    """Of a document alone: [T, V]."""
    return model(input_ids=torch.from_numpy(document[None]).long()).logits[0]


def write(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shapes = save_drawn(name, Path(folder))
        config = json.loads((Path(folder) / "config.json").read_text())
        model = load(name, Path(folder))
        with torch.no_grad():
            found = [logits(model, document).numpy() for document in documents()]
    lines = [f'{{"config": {json.dumps(config)},', '"tensors": {']
    lines += [f"{json.dumps(key)}: {list(shape)}," for key, shape in sorted(shapes.items())]
    lines[-1] = lines[-1].rstrip(",") + "},"
    lines.append('"logits": [')
    for values in found:
        rows = [json.dumps([round(float(x), 5) for x in row]) for row in values]
        lines.append("[" + ",\n".join(rows) + "],")
    lines[-1] = lines[-1].rstrip(",") + "]}"
    file = GOLDENS / f"{name}.json"
    file.write_text("\n".join(lines) + "\n")
    spread = float(np.std(np.concatenate(found)))
    print(
        f"{name}: {file.stat().st_size:,} bytes, logits with a standard deviation of {spread:.2f}"
    )


def main() -> None:
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or FAMILIES:
        write(name)


if __name__ == "__main__":
    main()
