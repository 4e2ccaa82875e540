"""Peak arithmetic rates of devices, for MFU."""

import jax

from planning.chips import chip_of


def peak_flops(device: jax.Device) -> tuple[float, str] | None:
    """The device's dense bf16 FLOP/s and the source of the figure; None where it is not known.

    Of a chip whose cores are devices of their own (`num_cores`), a device has its share.
    """
    chip = chip_of(device.device_kind)
    if chip is None:
        return None
    share = getattr(device, "num_cores", chip.cores) / chip.cores
    return chip.bf16 * min(share, 1), chip.sources["bf16"]
