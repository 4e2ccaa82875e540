"""Accelerators by their published constants: the one table, with the source of every number.

All rates are peaks, dense, of one chip; bytes are bytes, GB is 10^9 and GiB 2^30. Where a maker's
pages disagree, the table has the lower rate and says so beside it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from planning.chip import Chip, Host, Switch, Torus

# Where the numbers are from. Google's pages were read as they stood in 2025 and 2026.
V4 = "Google Cloud, TPU v4 (docs.cloud.google.com/tpu/docs/v4)"
V5E = "Google Cloud, TPU v5e (docs.cloud.google.com/tpu/docs/v5e)"
V5P = "Google Cloud, TPU v5p (docs.cloud.google.com/tpu/docs/v5p)"
V6E = "Google Cloud, TPU v6e (docs.cloud.google.com/tpu/docs/v6e)"
TPU7X = "Google Cloud, TPU7x (docs.cloud.google.com/tpu/docs/tpu7x)"
JOUPPI = "Jouppi et al. 2023, TPU v4 (arXiv 2304.01433), table 4"
BOOK = "Austin et al. 2025, How to Scale Your Model, part 2 (jax-ml.github.io/scaling-book/tpus)"
PALLAS = (
    "JAX's documentation, Pallas, matrix multiplication (docs/pallas/tpu/matmul.ipynb at 1082251): "
    "XLA's product of 8,192^3, less the time of one of 1,024^3, which is that of the call"
)
PEDIA = (
    "github.com/yangwhale/gpu-tpu-pedia at 6744fee, tpu/v7_perf/chay_gemm_benchmark_simple/"
    "results_trace_test.csv: XLA's product of 8,192^3 by the device's clock"
)
JAX = "jax/_src/tpu_info.py of JAX 0.12"
LIBTPU = "libtpu 0.0.52: `python -m bench chips`, bench/results/chips_tpu_aot.json"
GKE = "Google Cloud, machine types of GKE: ct5lp-hightpu-4t"
A100 = "NVIDIA A100 data sheet (SXM)"
H100 = "NVIDIA H100 data sheet (SXM)"
H100_PCIE = "NVIDIA H100 data sheet (PCIe)"
H200 = "NVIDIA H200 data sheet (SXM)"
B200 = "NVIDIA HGX B200 and DGX B200 data sheets"
DGX = "data sheets of NVIDIA's DGX A100, H100, H200 and B200: eight GPUs, a network port for each"
MAMF = (
    "Bekman, Machine Learning Engineering (github.com/stas00/ml-engineering at 744d01e, "
    "compute/accelerator): the best bf16 product that was measured"
)
FRACTION = "JAX's documentation, GPU memory allocation: 75 % unless XLA_PYTHON_CLIENT_MEM_FRACTION"

GiB = 1 << 30


def _of(**sources: str) -> Mapping[str, str]:
    """The sources by attribute, of "a_and_b" that of both."""
    found = {
        name: source for names, source in sources.items() for name in names.split("_and_") if name
    }
    return MappingProxyType(found)


_TPUS = (
    Chip(
        "v4",
        ("TPU v4",),
        bf16=275e12,
        int8=275e12,  # "bf16 or int8"
        fp8=0,
        product=0.927,
        estimated=0.927,
        hbm=32 * GiB,
        usable=30.75 * GiB,
        hbm_rate=1200e9,
        cores=2,
        units=8,
        side=128,
        # Six links of 50 GB/s each way; rings where every dimension is a multiple of 4 (`V4`).
        links=Torus(3, 50e9, wraps_at=4, cubes=True, largest=4096),
        host=Host(4, ram=0, network=25e9, link=16e9),  # `BOOK`: about 25 GB/s a host
        sources=_of(
            bf16_and_int8_and_hbm_and_hbm_rate=V4,
            product_and_estimated_and_usable=LIBTPU,
            units_and_side_and_cores=JAX,
            links=f"{JOUPPI}; rings: {V4}",
            host=BOOK,
        ),
    ),
    Chip(
        "v5e",
        ("TPU v5 lite", "TPU v5e"),
        bf16=197e12,
        int8=393e12,
        fp8=0,
        product=0.940,  # 1.0974 TFLOP in 5.928 ms
        estimated=0.878,
        hbm=16 * GiB,
        usable=15.75 * GiB,
        hbm_rate=819e9,  # a later version of the page: 800 GiB/s, which is more
        units=4,
        side=128,
        # 400 GB/s of four links in both directions; a row of 16 is a ring (`BOOK`).
        links=Torus(2, 50e9, wraps_at=16, cubes=False, largest=256),
        # 6.4 Tb/s for a pod of 256 chips; 192 GB in a machine of four chips.
        host=Host(4, ram=192e9, network=12.5e9, link=15e9),
        sources=_of(
            bf16_and_int8_and_hbm_and_hbm_rate=V5E,
            product=PALLAS,
            estimated_and_usable=LIBTPU,
            units_and_side_and_cores=JAX,
            links=f"{V5E}; rings: {BOOK}",
            host=f"{V5E}; RAM: {GKE}; link to the chips: {BOOK}",
        ),
    ),
    Chip(
        "v5p",
        ("TPU v5p", "TPU v5"),
        bf16=459e12,
        int8=918e12,
        fp8=459e12,
        product=0.902,
        estimated=0.902,
        hbm=95 * GiB,
        usable=95 * GiB,  # libtpu: 95.73 GiB
        hbm_rate=2765e9,  # JAX's table: 2.46e12
        cores=2,
        units=8,
        side=128,
        # 1200 GB/s of six links in both directions; rings as v4's.
        links=Torus(3, 100e9, wraps_at=4, cubes=True, largest=6144),
        host=Host(4, ram=448e9, network=25e9, link=15e9),  # 50 Gb/s a chip
        sources=_of(
            bf16_and_fp8_and_hbm_and_usable_and_hbm_rate=V5P,
            host=f"{V5P}; link to the chips: {BOOK}",
            int8=BOOK,
            product_and_estimated=LIBTPU,
            units_and_side_and_cores=JAX,
            links=f"{V5P}; rings: {BOOK}",
        ),
    ),
    Chip(
        "v6e",
        ("TPU v6 lite", "TPU v6e"),
        bf16=918e12,
        int8=1836e12,
        fp8=918e12,
        product=0.793,  # 1.0995 TFLOP in 1.511 ms
        estimated=0.704,
        hbm=32 * GiB,
        usable=31.24 * GiB,
        hbm_rate=1600e9,  # other versions of the page: 1638 and 1640 GB/s
        # Pages of Google and JAX's table count two matrix units of 256 x 256, older pages four.
        # libtpu's cycles for a large product are those of four: 1.56 times what two could do.
        units=4,
        side=256,
        # 800 GB/s of four links in both directions (older versions of the page: 896).
        links=Torus(2, 100e9, wraps_at=16, cubes=False, largest=256),
        host=Host(4, ram=720e9, network=50e9, link=32e9),  # 100 Gb/s a chip
        sources=_of(
            bf16_and_int8_and_hbm_and_hbm_rate=V6E,
            fp8=TPU7X,
            host=f"{TPU7X}; link to the chips: {BOOK}",
            product=PEDIA,
            estimated_and_usable=LIBTPU,
            units_and_side_and_cores=LIBTPU,
            links=f"{V6E}; rings: {BOOK}",
        ),
    ),
    Chip(
        "tpu7x",
        ("TPU7x",),
        bf16=2307e12,
        int8=0,
        fp8=4614e12,
        product=0.805,  # two that measured it do not agree: 0.82 of 16,384^3, 0.94 of 8,192^3
        estimated=0.805,
        hbm=192 * GiB,
        usable=2 * 94.74 * GiB,
        hbm_rate=7380e9,
        cores=2,
        devices=2,  # each chiplet is a device, with half of everything
        units=8,  # two of four, as v6e's: libtpu's cycles are 1.70 times what JAX's two could do
        side=256,
        # 1200 GB/s of six links in both directions; rings as v4's.
        links=Torus(3, 100e9, wraps_at=4, cubes=True, largest=9216),
        host=Host(4, ram=960e9, network=50e9, link=0),  # 100 Gb/s a chip
        sources=_of(
            bf16_and_fp8_and_hbm_and_hbm_rate_and_cores_and_devices_and_host=TPU7X,
            product_and_estimated_and_usable_and_units_and_side=LIBTPU,
            links=f"{TPU7X}; rings: as v5p's, of which TPU7X says that it is like it",
        ),
    ),
)


def _gpu(
    name: str,
    kinds: tuple[str, ...],
    sheet: str,
    *,
    nvlink: float,
    port: float,
    ram: float,
    pcie: float,
    product: float,
    hbm: float,
    **rates: Any,
) -> Chip:
    """An NVIDIA GPU in a host of eight.

    Args:
      sheet: its data sheet. Sheets of Hopper and Blackwell give twice the dense rates, "with
        sparsity".
      nvlink: bytes/s in both directions, as the sheets have it.
      port: bytes/s of its own port to the network, in one direction.
      ram: bytes of the host.
      pcie: bytes/s of its connection to the host, in both directions.
    """
    sources = _of(
        bf16_and_int8_and_fp8_and_hbm_and_hbm_rate_and_links=sheet,
        product=MAMF,
        usable=FRACTION,
        host=DGX,
    )
    links = Switch(nvlink / 2)
    host = Host(8, ram=ram, network=8 * port, link=pcie / 2)
    usable = 0.75 * hbm
    return Chip(
        name,
        kinds,
        product=product,
        hbm=hbm,
        usable=usable,
        links=links,
        host=host,
        sources=sources,
        **rates,
    )


_AMPERE: dict[str, Any] = dict(bf16=312e12, int8=624e12, fp8=0, product=0.869, nvlink=600e9)
_HOPPER: dict[str, Any] = dict(bf16=989e12, int8=1979e12, fp8=1979e12, product=0.803, nvlink=900e9)
_HDR: dict[str, Any] = dict(port=25e9, ram=1e12, pcie=64e9)  # DGX A100: 200 Gb/s, 1 TB, Gen4
_NDR: dict[str, Any] = dict(port=50e9, ram=2e12, pcie=128e9)  # DGX H100 on: 400 Gb/s, 2 TB, Gen5

_GPUS = (
    _gpu(
        "a100-80gb",
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB"),
        A100,
        hbm=80e9,
        hbm_rate=2039e9,
        **_AMPERE,
        **_HDR,
    ),
    _gpu("a100", ("NVIDIA A100",), A100, hbm=40e9, hbm_rate=1555e9, **_AMPERE, **_HDR),
    _gpu(
        "h100-pcie",
        ("NVIDIA H100 PCIe",),
        H100_PCIE,
        bf16=756e12,
        int8=1513e12,
        fp8=1513e12,
        product=0.803,
        nvlink=128e9,  # pairs have NVLink; hosts of eight have PCIe, 64 GB/s each way
        hbm=80e9,
        hbm_rate=2000e9,
        **_NDR,
    ),
    _gpu("h100", ("NVIDIA H100",), H100, hbm=80e9, hbm_rate=3350e9, **_HOPPER, **_NDR),
    _gpu("h200", ("NVIDIA H200",), H200, hbm=141e9, hbm_rate=4800e9, **_HOPPER, **_NDR),
    _gpu(
        "b200",
        ("NVIDIA B200",),
        B200,
        bf16=2250e12,
        int8=4500e12,
        fp8=4500e12,
        product=0.776,
        nvlink=1800e9,
        hbm=180e9,
        hbm_rate=8000e9,
        **_NDR,
    ),
)

CHIPS: Mapping[str, Chip] = MappingProxyType({chip.name: chip for chip in (*_TPUS, *_GPUS)})


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls so: of all that fit, the one with the longest name; None if none."""
    fitting = [
        (len(kind), chip)
        for chip in CHIPS.values()
        for kind in chip.kinds
        if device_kind.startswith(kind)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None
