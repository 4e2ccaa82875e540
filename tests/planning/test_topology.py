"""--topology: what it means, and what is said of one that means nothing."""

import pytest

from errors import UserError
from planning.topology import parse


@pytest.mark.parametrize(
    ("text", "slices", "chips", "devices", "hosts"),
    [
        ("v5e:16x16", 1, 256, 256, 64),
        ("v5e:4x4", 2, 32, 32, 8),
        ("v5e:1x1", 1, 1, 1, 1),
        ("v5p:4x4x8", 1, 128, 128, 32),
        ("TPU7X:4x4x4", 1, 64, 128, 16),
        ("h100:8", 1, 8, 8, 1),
        ("h100:2", 1, 2, 2, 1),
        ("h100:64", 1, 64, 64, 8),
        ("cpu:8", 1, 8, 8, 1),
    ],
)
def test_sizes(text, slices, chips, devices, hosts):
    found = parse(text, slices)
    assert (found.chips, found.devices, found.hosts) == (chips, devices, hosts)
    assert found.name == text.lower()


def test_hosts_of_gpus_are_slices():
    found = parse("h100:64")
    assert (found.shape, found.slices) == ((8,), 8)


def test_libtpu():
    assert parse("v5e:16x16", 2).libtpu() == {
        "platform": "tpu",
        "topology_name": "v5e:16x16",
        "num_slices": 2,
        "wrap": (True, True, False),
    }
    # A chip of v5p is one device, as on the hardware; those of TPU7x are two.
    assert parse("v5p:4x4x8").libtpu()["chip_config_name"] == "megacore"
    assert "chip_config_name" not in parse("tpu7x:4x4x4").libtpu()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5q:4x4", "no chip v5q; did you mean v5p?"),
        ("h10:8", "did you mean h100?"),
        ("abacus:3", "there are v4, v5e, v5p"),
        ("v5e-256", "Cloud's name for 256 chips: did you mean v5e:16x16?"),
        ("v5litepod-16", "did you mean v5e:4x4?"),
        ("v5p-512", "512 cores, so 256 chips: did you mean v5p:4x8x8?"),
        ("v4-32", "16 chips: did you mean v4:2x2x4?"),
        ("v5e", "v5e:16x16, v5p:4x4x8, h100:64, cpu:8"),
        ("v5e:4by4", "v5e:16x16, v5p:4x4x8"),
        ("v5e:16", "a torus of 2 dimensions: v5e:4x8"),
        ("v5p:4x4", "a torus of 3 dimensions: v5p:4x4x8"),
        ("v5e:3x4", "2 x 2 chips"),
        ("v5e:32x32", "at most 16x16: add --slices"),
        ("v5p:32x32x32", "at most 6,144 chips: add --slices"),
        ("h100:12", "hosts have 8 h100 each"),
        ("h100:2x4", "give the number of devices, h100:8"),
        ("v5e:0x4", "v5e:16x16"),
    ],
)
def test_what_is_said(text, message):
    with pytest.raises(UserError) as error:
        parse(text)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(f"--topology={text}")


def test_slices():
    with pytest.raises(UserError, match="--slices=0: must be at least 1"):
        parse("v5e:4x4", 0)
    with pytest.raises(UserError, match="simulated devices are one slice"):
        parse("cpu:8", 2)
