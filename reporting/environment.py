"""What a run ran on: versions, devices, the commit of the code."""

import contextlib
import importlib.metadata
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
    """Name -> value, for reports and benchmarks."""
    devices = jax.devices()
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": str(jax.process_count()),
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": commit(),
    } | {name: importlib.metadata.version(name) for name in _PACKAGES}


def versions() -> dict[str, str]:
    """Versions that a step's numbers may depend on, and what drives the devices."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, "libtpu", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found | {"the kind of device": jax.devices()[0].device_kind}


def commit() -> str:
    """The commit of the code, with a mark if files differ from it; empty outside a checkout."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
