"""Peak arithmetic rates of devices, for MFU."""

import jax

# Dense bf16 FLOP/s a chip, from the makers' data sheets; the first prefix of device_kind wins.
_PEAKS: tuple[tuple[str, float, str], ...] = (
    ("TPU v4", 275e12, "Google Cloud TPU v4 system architecture"),
    ("TPU v5 lite", 197e12, "Google Cloud TPU v5e system architecture"),
    ("TPU v5e", 197e12, "Google Cloud TPU v5e system architecture"),
    ("TPU v5", 459e12, "Google Cloud TPU v5p system architecture"),
    ("TPU v6", 918e12, "Google Cloud TPU v6e system architecture"),
    ("TPU7x", 2307e12, "Google Cloud TPU7x system architecture"),
    ("NVIDIA A100", 312e12, "NVIDIA A100 data sheet"),
    ("NVIDIA H100 PCIe", 756e12, "NVIDIA H100 data sheet"),
    ("NVIDIA H100", 989e12, "NVIDIA H100 data sheet (SXM)"),
    ("NVIDIA H200", 989e12, "NVIDIA H200 data sheet (SXM)"),
    ("NVIDIA B200", 2250e12, "NVIDIA HGX B200 data sheet"),
)


def peak_flops(device: jax.Device) -> tuple[float, str] | None:
    """The device's dense bf16 FLOP/s and the source of the figure; None where it is not known."""
    for prefix, peak, source in _PEAKS:
        if device.device_kind.startswith(prefix):
            return peak, source
    return None
