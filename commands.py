"""What the commands share: flags in, one line and exit code 2 for the user's mistakes."""

import importlib.util
import logging as python_logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
from absl import app, flags, logging
from etils import epath

from cluster.agreement import Disagreement, agree
from cluster.coordination import KeyValues, LostCoordinator, OneProcess, connect
from cluster.interrupts import Interrupted, Interrupts, farewell
from cluster.watch import Watch
from data import cache
from errors import UserError
from reporting.progress import Progress

DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "One of several processes: find the others as the cluster says (TPU pods, SLURM, GKE), or as "
    "--coordinator, --num_processes and --process_id say.",
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
JOIN_TIMEOUT = flags.DEFINE_integer(
    "join_timeout", 300, "Seconds to wait for the other processes at the start.", lower_bound=1
)

T = TypeVar("T")

_TOLD_S = 5.0  # between two words of process 0 to the others about its preparation
_SAID_S = 30.0  # between two lines about it on the others
_PCI_DEVICES = Path("/sys/bus/pci/devices")
_GOOGLE_PCI_VENDOR = "0x1ae0"  # of every TPU chip


class Job(NamedTuple):
    """What a command knows of the processes that run it.

    Attributes:
      others: all processes.
      watch: over them.
      interrupts: SIGTERM and Ctrl-C.
    """

    others: KeyValues
    watch: Watch
    interrupts: Interrupts


def run(
    main: Callable[[Job], None],
    required: Sequence[str],
    check: Callable[[], object] = lambda: None,
    arguments: Callable[[Sequence[str]], object] | None = None,
) -> None:
    """Parses flags, joins the other processes and runs a command.

    Exits with 0; with 2 after a user's mistake, told in one line; with 130 or 143 after Ctrl-C or
    SIGTERM where nothing was to be saved; with 1 after any other error. Of several processes the
    first to end badly ends them all. Until then Ctrl-C is the command's own affair: see the first
    lines of train.py.

    Args:
      main: the command.
      required: flags that must be given.
      check: refuses what can be refused by the flags alone, before JAX starts.
      arguments: is given what stands beside the flags; without it, nothing may.
    """

    def guarded(argv: Sequence[str]) -> None:
        try:
            if arguments is not None:
                arguments(argv[1:])
            elif len(argv) > 1:
                raise UserError(f"unexpected argument {argv[1]!r}: flags start with --")
            for name in required:
                if not flags.FLAGS[name].present and not flags.FLAGS[name].value:
                    raise UserError(f"--{name} is missing: see --help")
            check()
            logging.set_verbosity(logging.ERROR)
            # It logs the traceback of each try at a bucket: our own line says what came of them.
            python_logging.getLogger("gcsfs").setLevel(python_logging.CRITICAL)
            others = start_jax()
        except UserError as error:
            _fail(str(error))
        watch = Watch(others)
        with watch, Interrupts(watch) as interrupts:
            _run(main, Job(others, watch, interrupts))

    app.run(guarded, flags_parser=_parse)


def _run(main: Callable[[Job], None], job: Job) -> None:
    alone = job.others.count == 1
    try:
        main(job)
    except UserError as error:
        if alone:
            _fail(str(error))
        job.watch.end(str(error), 2, everywhere=isinstance(error, Disagreement))
    except Interrupted as error:
        job.watch.end(*farewell(job.watch, error))
    except LostCoordinator as error:
        job.watch.end(f"process 0 has gone ({error}): see what it prints", 1)
    except Exception as error:
        if alone:
            raise
        traceback.print_exc()
        job.watch.end(f"{type(error).__name__}: {str(error).strip() or 'no message'}", 1)


def start_jax() -> KeyValues:
    """Sets up JAX, and joins the other processes, if there are any."""
    # Compiled programs are kept, so that a second start does not compile again.
    jax.config.update("jax_compilation_cache_dir", str(cache.root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    _leave_out_missing_tpu()
    if COORDINATOR.value is None and (NUM_PROCESSES.value, PROCESS_ID.value) != (None, None):
        raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT")
    if not (DISTRIBUTED.value or COORDINATOR.value):
        return OneProcess()
    return connect(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, JOIN_TIMEOUT.value)


def share_compilation_cache(job: Job, workdir: epath.Path) -> None:
    """Keeps the compiled programs of several processes where all of them can read.

    JAX writes them on process 0 alone.
    """
    if job.others.count > 1:
        jax.config.update("jax_compilation_cache_dir", str(workdir / "xla"))


def compare(job: Job, what: str, facts: Mapping[str, str]) -> None:
    """Ends all processes if `facts` are not the same on all of them."""
    bound = job.watch.bounds.start
    job.watch.at(f"comparing {what}", 1.2 * bound)  # who has not come is named before that
    agree(job.others, what, facts, bound)


def given_flags() -> dict[str, str]:
    """The flags of the command, but for those that differ between processes."""
    values = flags.FLAGS.flag_values_dict()
    return {
        f"--{name}": repr(value)
        for name, value in values.items()
        # A config's values are compared one by one, with what the command line left as it was.
        if name != "process_id" and not name.startswith("config")
    }


def in_turn(job: Job, prepare: Callable[[Callable[[str, int, int], None]], T]) -> T:
    """Prepares data on process 0, then on the others, which find it done.

    (Or build their own, on a file system of their own.) While they wait they say what process 0 is
    at, and whether it goes on.

    Args:
      prepare: is given the function to report progress to (data/preparation.py).
    """
    watch, others = job.watch, job.others
    watch.at("preparing the data", watch.bounds.prepare)
    if others.index:
        _wait_for(job, 0)
    told = 0.0
    with PreparationProgress() as show:

        def progress(what: str, done: int, total: int) -> None:
            nonlocal told
            watch.still()
            if others.index == 0:
                show(what, done, total)
            if others.count > 1 and time.monotonic() - told > _TOLD_S:
                told = time.monotonic()
                others.put(f"preparing/{others.index}", f"{what} {done} of {total}")

        prepared = prepare(progress)
    others.put(f"prepared/{others.index}", "")
    if others.index == 0:
        for index in range(1, others.count):
            _wait_for(job, index)
        others.put("prepared", "")
    else:
        while others.wait("prepared", _TOLD_S) is None:
            watch.still()  # process 0 sees to it that all go on
    return prepared


def _wait_for(job: Job, index: int) -> None:
    """Waits until a process has prepared the data, for as long as it goes on."""
    before: str | None = None
    said = time.monotonic()
    while job.others.wait(f"prepared/{index}", _TOLD_S) is None:
        now = job.others.look(f"preparing/{index}")
        if now != before:
            job.watch.still()
            before = now
        if time.monotonic() - said > _SAID_S:
            said = time.monotonic()
            at = now or "no progress yet"
            print(f"process {index} prepares the data: {at}", file=sys.stderr, flush=True)


def _leave_out_missing_tpu() -> None:
    """Keeps an installed libtpu on a machine without a TPU from printing warnings."""
    if os.environ.get("JAX_PLATFORMS") or importlib.util.find_spec("libtpu") is None:
        return
    vendors = _PCI_DEVICES.glob("*/vendor")
    if any(vendor.read_text().strip() == _GOOGLE_PCI_VENDOR for vendor in vendors):
        return
    gpu = any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13))
    jax.config.update("jax_platforms", "cuda,cpu" if gpu else "cpu")


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.stderr.flush()
    sys.exit(2)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return list(flags.FLAGS(argv))
    except UserError as error:
        _fail(str(error))
    except flags.Error as error:
        _fail(str(error).splitlines()[0])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _fail(str(error).strip().splitlines()[-1])
    raise AssertionError("unreachable")


class PreparationProgress:
    """Shows the stages of data preparation, each with its own progress line."""

    def __init__(self) -> None:
        self._what = ""
        self._progress: Progress | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self.close()
            self._what, self._progress = what, Progress(total, unit=what)
        assert self._progress is not None
        self._progress.update(done)

    def close(self) -> None:
        """Ends the line of the stage under way."""
        if self._progress is not None:
            self._progress.close()

    def __enter__(self) -> "PreparationProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
