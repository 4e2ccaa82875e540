"""What a run ran on: versions, devices, the commit of the code."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "tokenizers",
    "numpy",
)


def describe() -> dict[str, str]:
    """Name -> value, for reports and benchmarks.

    Of the moment of the call: a run calls it when it begins.
    """
    devices, found = jax.devices(), versions()
    return {
        "devices": f"{len(devices)} x {found.pop('the kind of device')}",
        "processes": str(jax.process_count()),
        "machine": f"{platform.machine()}{_processor()}, {platform.system()} {platform.release()}",
        "commit": commit(),
    } | found


def _processor() -> str:
    """The processor's name in brackets, after a space; nothing where Linux does not say it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((f" ({ln.partition(': ')[2]})" for ln in lines if ln.startswith("model name")), "")


def versions() -> dict[str, str]:
    """Versions that a step's numbers may depend on, and what drives the devices."""
    found = {"python": platform.python_version()}
    for package in importlib.metadata.distributions():
        name = package.metadata["Name"] or ""
        if name in (*_PACKAGES, "libtpu") or name.startswith(("nvidia-", "jax-cuda")):
            found[name] = package.version
    for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS"):
        if value := os.environ.get(name):
            found[name] = value
    return dict(sorted(found.items())) | {"the kind of device": jax.devices()[0].device_kind}


def commit(folder: Path = Path(__file__).parent) -> str:
    """The commit of the code in `folder`: "0123456789ab".

    "0123456789ab and changes" where files of the checkout differ from it, new ones that Git does
    not ignore included; "unknown" where the code is not from a checkout, or there is no Git.
    """

    def git(*command: str) -> str:
        # Without locks: a run that is killed meanwhile would leave one in the checkout.
        run = ["git", "--no-optional-locks", *command]
        done = subprocess.run(
            run, cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        # A copy of the code may lie in the checkout of something else.
        git("ls-files", "--error-unmatch", ".")
        return git("rev-parse", "--short=12", "HEAD") + (
            " and changes" if git("status", "--porcelain", ":/") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
