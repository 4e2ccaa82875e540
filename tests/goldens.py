"""Golden files: how every shipped run is split over the hardware that its layouts are for.

    python -m tests.goldens

writes tests/golden/ anew and prints what changed. A test compares the files with what the table
says, so that no change of it passes unseen.
"""

import difflib
import importlib
import sys
from pathlib import Path

from ml_collections import ConfigDict

from configs import door, flags, layouts
from planning.hardware import devices_of
from planning.layout import abstract_mesh
from planning.tensors import state_tensors, total
from training.config import RunConfig

FOLDER = Path(__file__).parent / "golden"


def places() -> list[tuple[str, str]]:
    """Every run with every hardware that it has a layout for."""
    return [(name, one) for name in flags.runs() for one in layouts.layouts_of(name)]


def run_on(name: str, hardware: str) -> RunConfig:
    """A shipped run, as some hardware trains it."""
    config = _config(name)
    if config.data.tokenizer is None:
        config.data.tokenizer = "tokenizer.json"
    if config.train.start_from is None:  # whose shape the config has
        config.train.start_from = ""
    made, _ = layouts.applied(config, hardware)
    return door.with_vocabulary(door.read(made, "tpu"), config.data.tokenizer_vocab_size)


def text(name: str, hardware: str) -> str:
    """A line a tensor: dtype, shape, what splits each dimension, bytes on a device.

    Of the optimizer those alone that do not lie as their parameters do.
    """
    run = run_on(name, hardware)
    mesh = abstract_mesh(run, devices_of(hardware))
    tensors = state_tensors(run, mesh)
    sizes = mesh.shape
    split = " x ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1) or "one device"
    lines = [f"{name} on {hardware}: {split}, accumulation {run.train.accumulation}"]
    alike: dict[str, tuple[tuple[str, ...], ...]] = {}
    for kind in ("parameters", "optimizer", "fixed"):
        if kind == "fixed" and not total(tensors, kind):
            continue  # all move
        lines.append(f"{kind}: {total(tensors, kind):,} bytes a device")
        for one in (tensor for tensor in tensors if tensor.kind == kind):
            if kind != "optimizer":
                alike[one.name] = one.mesh_axes
            elif any(one.name.endswith(k) and v == one.mesh_axes for k, v in alike.items()):
                continue  # it lies as its parameter does
            names = one.axes or ("?",) * len(one.shape)
            dims = ", ".join(
                f"{axis} {size}" + (f" / {' '.join(by)}" if by else "")
                for axis, size, by in zip(names, one.shape, one.mesh_axes, strict=True)
            )
            lines.append(f"  {one.name} {one.dtype} [{dims}] {one.bytes:,}")
    return "\n".join(lines) + "\n"


def file(name: str, hardware: str) -> Path:
    return FOLDER / f"{name}.{hardware}.txt"


def _config(name: str) -> ConfigDict:
    made: ConfigDict = importlib.import_module(f"configs.{name}").get_config()
    return made


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    wanted = {file(*place): text(*place) for place in places()}
    for path in FOLDER.glob("*.txt"):
        if path not in wanted:
            print(f"removed: {path.name}")
            path.unlink()
    for path, new in sorted(wanted.items()):
        old = path.read_text() if path.exists() else ""
        sys.stdout.writelines(
            difflib.unified_diff(
                old.splitlines(True), new.splitlines(True), f"{path.name} (old)", path.name, n=0
            )
        )
        path.write_text(new)


if __name__ == "__main__":
    main()
