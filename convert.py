"""Models of Hugging Face to workdirs, and checkpoints of Podium to models of Hugging Face.

    python convert.py from-hf PATH_OR_ID --workdir=runs/NAME
    python convert.py to-hf --workdir=runs/NAME --out=FOLDER
    python convert.py from-hf FOLDER --base=runs/NAME --workdir=runs/ADAPTED    # of `peft`

What the first makes is an ordinary workdir: eval.py and generate.py read it, and train.py starts
from it with --config.train.start_from=runs/NAME.
"""

import signal

if __name__ == "__main__":
    # Before libraries are read: Python's own handler raises an exception, which gets lost in JAX.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

import commands
from checkpointing.workdir import CONVERTING, Workdir
from conversion import adapters, exporting, importing, source, verifying
from conversion.formats import NUMPY
from errors import UserError
from evaluation.trained import load, merged, parse_mesh, resolve
from model.decoder import Decoder
from model.parameters import Params

WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the model, or gs://BUCKET/FOLDER.")
MESH = flags.DEFINE_string(
    "mesh", "fsdp=-1", "Devices along each mesh axis, such as data=2,fsdp=4; -1 is the rest."
)
FAMILY = flags.DEFINE_string(
    "family", "", "Of model/families/. Default: what config.json, or the checkpoint, says."
)
VERIFY = flags.DEFINE_bool("verify", False, "Compare logits with those of transformers.")
OUT = flags.DEFINE_string("out", "", "to-hf: the folder to make.")
STEP = flags.DEFINE_integer("step", None, "to-hf: the checkpoint. Default: the newest.")
DTYPE = flags.DEFINE_enum(
    "dtype", None, list(NUMPY), "to-hf: of the weights. Default: as imported, else float32."
)
MAX_SHARD_GB = flags.DEFINE_float(
    "max_shard_gb", 5.0, "to-hf: of one file of weights, at most.", lower_bound=1e-6
)

ADAPTER = flags.DEFINE_bool(
    "adapter", False, "to-hf: adapters alone, for peft. Default: merged into the weights."
)
BASE = flags.DEFINE_string(
    "base",
    "",
    "from-hf of adapters that peft saved: the workdir of the model that they are for. to-hf: where "
    "what a run began with is now, if part of it moved. Default: where it was.",
)

_DIFFERS = 1
_ONE_WAY = {"from-hf": ("out", "step", "dtype", "adapter"), "to-hf": ()}
"""The flags that a direction has no use for."""

_arguments: list[str] = []


def check() -> None:
    """Refuses what the arguments alone show to be wrong."""
    ways = " or ".join(_ONE_WAY)
    way, *rest = _arguments or [""]
    if way not in _ONE_WAY:
        raise UserError(f"say {ways} first{f', not {way!r}' if way else ''}: see --help")
    wanted = 1 if way == "from-hf" else 0
    if len(rest) != wanted:
        need = "one folder or id of the hub" if wanted else "no argument but flags"
        raise UserError(f"{way} takes {need}: {' '.join(rest) or 'none was given'}")
    for name in _ONE_WAY[way]:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} is for {'to-hf' if way == 'from-hf' else 'from-hf'}")
    if not WORKDIR.value:
        raise UserError("--workdir is missing: see --help")
    if way == "to-hf" and not OUT.value:
        raise UserError("--out is missing: the folder to make")
    if "://" in OUT.value:
        raise UserError(f"--out={OUT.value}: give a folder of this machine, and copy it from there")
    Workdir(WORKDIR.value)
    if VERIFY.value:
        if ADAPTER.value or (way == "from-hf" and BASE.value):
            raise UserError("--verify compares whole models: leave it out with adapters")
        verifying.require()


def main(job: commands.Job) -> None:
    if _arguments[0] == "from-hf":
        from_hf(job)
    else:
        to_hf(job)


def from_hf(job: commands.Job) -> None:
    """Makes a workdir."""
    if VERIFY.value and job.others.count > 1:
        raise UserError("--verify runs as one process: compare in a command of its own")
    folder = Path(_arguments[1]).expanduser()
    if (folder / adapters.CONFIG).is_file() and not (folder / "config.json").exists():
        from_peft(job, folder)
        return
    if BASE.value:
        raise UserError(f"--base: {folder} has no {adapters.CONFIG}, and so no adapters")
    job.watch.at("looking for the model", job.watch.bounds.prepare)
    found = source.find(_arguments[1])
    workdir, mesh = Workdir(WORKDIR.value), parse_mesh(MESH.value)
    lock = workdir.hold() if job.others.index == 0 else None
    try:
        made = importing.convert(job, found, workdir, mesh, FAMILY.value)
    finally:
        if lock is not None:
            lock.release()
    if job.others.index == 0:
        print(
            f"{workdir}: {made.outline.config.num_params():,} parameters of {found.name}",
            flush=True,
        )
    if VERIFY.value:
        verify(found.folder, made.outline, made.params)


def from_peft(job: commands.Job, folder: Path) -> None:
    """Makes a workdir of adapters."""
    if not BASE.value:
        raise UserError(f"{folder} has adapters: say beside which model by --base=WORKDIR")
    if job.others.count > 1:
        raise UserError("adapters are converted by one process: leave --distributed out")
    workdir = Workdir(WORKDIR.value)
    lock = workdir.hold()
    try:
        made = importing.convert_adapters(job, folder, workdir, BASE.value)
    finally:
        lock.release()
    print(
        f"{workdir}: {made.kind} of rank {made.rank} beside {', '.join(made.targets)} of "
        f"{BASE.value}",
        flush=True,
    )


def to_hf(job: commands.Job) -> None:
    """Makes a folder for transformers."""
    if job.others.count > 1:
        raise UserError("to-hf runs as one process: leave --distributed and --coordinator out")
    workdir, out = Workdir(WORKDIR.value), Path(OUT.value).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out={out} is there already: choose another")
    if CONVERTING in workdir.names():
        raise UserError(f"a conversion to {workdir} was interrupted: give its command again first")
    step = resolve(workdir, STEP.value)
    job.watch.at("loading the checkpoint", job.watch.bounds.start)
    trained = load(workdir, step, parse_mesh(MESH.value), rows=None, base=BASE.value)
    family = exporting.family_of(trained.record, FAMILY.value)
    if ADAPTER.value:
        exporting.export_adapters(trained, out, family, DTYPE.value or "")
        print(f"{out}: adapters of step {step} of {workdir} for peft", flush=True)
        return
    trained = merged(trained)
    shard_bytes = MAX_SHARD_GB.value * 1e9
    exporting.export(job, trained, workdir, out, family, DTYPE.value or "", shard_bytes)
    print(f"{out}: step {step} of {workdir} as {family.ARCHITECTURE}", flush=True)
    if VERIFY.value:
        verify(out, trained.outline, trained.params)


def verify(folder: Path, outline: Decoder, params: Params) -> None:
    """Says how far logits are from those of transformers; exits where that is too far."""
    largest = verifying.difference(folder, outline, params)
    print(f"logits differ from those of transformers by at most {largest:.2e}", flush=True)
    if not largest <= verifying.TOLERANCE:
        print(f"error: that is more than {verifying.TOLERANCE:g}", file=sys.stderr, flush=True)
        sys.exit(_DIFFERS)


def _take(arguments: Sequence[str]) -> None:
    _arguments[:] = arguments


if __name__ == "__main__":
    commands.run(main, required=(), check=check, arguments=_take)
