"""What the commands share: flags in, one line and exit code 2 for the user's mistakes."""

import difflib
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import config_flags

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


def define_config() -> flags.FlagHolder[Any]:
    """--config=configs/NAME.py, and --config.key=value for each of its keys."""
    return config_flags.DEFINE_config_file(
        "config", None, "The run: a file in configs/. Change a key by --config.section.key=value."
    )


def run(main: Callable[[], None], required: Sequence[str]) -> None:
    """Parses flags and runs a command.

    Exits with 0; with 2 after a user's mistake, told in one line; with 130 after Ctrl-C.
    """

    def guarded(argv: Sequence[str]) -> None:
        try:
            if len(argv) > 1:
                raise UserError(f"unexpected argument {argv[1]!r}: flags start with --")
            for name in required:
                if not flags.FLAGS[name].present and not flags.FLAGS[name].value:
                    raise UserError(f"--{name} is missing: see --help")
            logging.set_verbosity(logging.ERROR)
            main()
        except UserError as error:
            _fail(str(error))
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            sys.exit(130)

    app.run(guarded, flags_parser=_parse)


def start_jax() -> None:
    """Joins the other processes, if there are any, and sets up the compilation cache."""
    # Compiled programs are kept, so that a second start does not compile again.
    jax.config.update("jax_compilation_cache_dir", str(cache.root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    if COORDINATOR.value is None and (NUM_PROCESSES.value, PROCESS_ID.value) != (None, None):
        raise UserError("--num_processes and --process_id need --coordinator=HOST:PORT")
    if DISTRIBUTED.value or COORDINATOR.value:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.stderr.flush()
    sys.exit(2)


def _parse(argv: Sequence[str]) -> list[str]:
    _check_config_file(argv)
    try:
        return list(flags.FLAGS(argv))
    except flags.Error as error:
        _fail(str(error).splitlines()[0])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _fail(_unknown_key(argv) or str(error).strip().splitlines()[-1])
    raise AssertionError("unreachable")


def _check_config_file(argv: Sequence[str]) -> None:
    for argument in argv[1:]:
        name, equals, path = argument.partition("=")
        if (
            name in ("--config", "-config")
            and equals
            and not Path(path.partition(":")[0]).is_file()
        ):
            folder = Path(__file__).parent / "configs"
            known = sorted(
                f.stem for f in folder.glob("*.py") if f.stem not in ("__init__", "base", "door")
            )
            near = difflib.get_close_matches(Path(path).stem, known, n=1)
            hint = (
                f"did you mean configs/{near[0]}.py?" if near else f"there are {', '.join(known)}"
            )
            _fail(f"no config file {path}: {hint}")


def _unknown_key(argv: Sequence[str]) -> str | None:
    """The message for the first --config.key of argv that the config does not have."""
    # FLAGS holds no config when its overrides could not be parsed: the file makes it again.
    files = [a.partition("=")[2] for a in argv[1:] if a.lstrip("-").startswith("config=")]
    if not files:
        return None
    config = runpy.run_path(files[-1].partition(":")[0])["get_config"]().to_dict()
    for argument in argv[1:]:
        if argument.startswith("--config."):
            path = argument[len("--config.") :].partition("=")[0]
            level: Any = config
            for key in path.split("."):
                if not isinstance(level, Mapping):
                    return f"unknown config key {path}: {key!r} lies below a plain value"
                if key not in level:
                    near = difflib.get_close_matches(key, list(level), n=1)
                    where = path.rpartition(".")[0]
                    prefix = f"{where}." if where else ""
                    return f"unknown config key {path}: " + (
                        f"did you mean {prefix}{near[0]}?"
                        if near
                        else f"{where or 'the config'} has {', '.join(sorted(level))}"
                    )
                level = level[key]
    return None


class PreparationProgress:
    """Shows the stages of data preparation, each with its own progress line."""

    def __init__(self) -> None:
        self._what = ""
        self._progress: Progress | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self.close()
            self._what, self._progress = what, Progress(total, unit=f"{what}: document")
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
