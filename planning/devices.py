"""Devices to compile for: those of a topology that is not here, or those that are."""

import importlib.util
import os
from typing import Any

import jax
from jax.experimental import topologies

from errors import UserError
from planning.chip import Torus
from planning.chips import chip_of
from planning.topology import Topology

NO_LIBTPU = "libtpu is not installed: `make setup EXTRA=tpu` brings it; it needs no TPU"


def platform(topology: Topology) -> str:
    """What JAX calls the kind of its devices: "tpu", "gpu" or "cpu"."""
    if topology.chip is None:
        return "cpu"
    return "tpu" if isinstance(topology.chip.links, Torus) else "gpu"


def prepare(topology: Topology) -> None:
    """To be called before JAX looks for devices: only those that are asked for are looked for."""
    kind = platform(topology)
    if kind == "cpu":
        jax.config.update("jax_num_cpu_devices", topology.devices)
    if kind != "gpu":
        jax.config.update("jax_platforms", "cpu")
        # libtpu asks the metadata server of Google's cloud what it runs on, and waits for it; and
        # it is alone on a machine, unless it is told that it need not be.
        os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        # Else it complains that nobody tells it. What is compiled depends on neither.
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # What is read from the cache is not compiled, and so says nothing of its memory.
    jax.config.update("jax_enable_compilation_cache", False)


def devices_of(topology: Topology) -> tuple[list[jax.Device], str]:
    """The devices of a topology; none, and the reason, where nothing here compiles for them.

    Raises:
      UserError: libtpu knows no such topology.
    """
    kind = platform(topology)
    if kind == "cpu":
        return jax.devices(), ""
    if kind == "gpu":
        return _gpus(topology)
    if importlib.util.find_spec("libtpu") is None:
        return [], NO_LIBTPU
    try:
        described: Any = topologies.get_topology_desc(**topology.libtpu())
    except Exception as error:  # of XLA, of a kind of its own
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"--topology={topology.name}: libtpu knows none such ({told})") from error
    return list(described.devices), ""


def _gpus(topology: Topology) -> tuple[list[jax.Device], str]:
    assert topology.chip is not None
    name = topology.chip.name
    try:
        here = jax.devices("gpu")
    except RuntimeError:
        return [], f"no GPU is here: XLA compiles for {name} only where one is"
    found = chip_of(here[0].device_kind)
    if found is not topology.chip:
        return [], f"here is {here[0].device_kind}: XLA compiles for {name} only where one is"
    if len(here) < topology.devices:
        return (
            [],
            f"{len(here)} of {topology.devices} {name} are here, and all are needed",
        )
    return here[: topology.devices], ""
