"""Layouts: what some hardware changes in a config."""

import pytest
from ml_collections import ConfigDict

from configs import door, layouts
from configs.base import base
from errors import UserError


def config(**more: object) -> ConfigDict:
    made = base()
    made.layouts = {
        "v5e-256": {"mesh": {"data": 1, "fsdp": -1, "tensor": 8}, "model": {"remat": "full"}},
        "h100x8": {"mesh": {"data": 1, "fsdp": 8}},
    }
    made.update(more)
    return made


def test_that_of_the_hardware():
    made, said = layouts.applied(config(), "v5e-256")
    assert said == "layout v5e-256: mesh.data=1, mesh.fsdp=-1, mesh.tensor=8, model.remat=full"
    run = door.read(made, "tpu")
    assert (run.mesh.fsdp, run.mesh.tensor, run.model.remat) == (-1, 8, "full")


def test_hardware_that_has_none():
    made, said = layouts.applied(config(), "cpux1")
    assert said is None
    assert door.read(made, "cpu") == door.read(base(), "cpu")


def test_one_by_name():
    made, said = layouts.applied(config(layout="h100x8"), "v5e-256")
    assert said == "layout h100x8: mesh.data=1, mesh.fsdp=8"
    assert door.read(made, "gpu").mesh.fsdp == 8


def test_none():
    assert layouts.applied(config(layout="none"), "v5e-256")[1] is None


def test_what_the_command_line_gives_stays():
    asked = config()
    asked.mesh.tensor = 4
    made, said = layouts.applied(asked, "v5e-256", ["mesh.tensor"])
    assert door.read(made, "tpu").mesh.tensor == 4
    assert said == "layout v5e-256: mesh.data=1, mesh.fsdp=-1, model.remat=full"


@pytest.mark.parametrize(
    ("changes", "asked", "says"),
    [
        ({}, "v5e-4", r"config\.layout='v5e-4': this config has auto, none, h100x8, v5e-256"),
        ({"train": {"batch_size": 8}}, "mine", r"layouts\.mine: train\.batch_size would make it"),
        ({"mesh": {"fdsp": 8}}, "mine", r"layouts\.mine: unknown config key mesh\.fdsp: did you"),
    ],
)
def test_refusals(changes, asked, says):
    made = config(layout=asked)
    if changes:
        made.layouts = {"mine": changes}
    with pytest.raises(UserError, match=says):
        layouts.applied(made, "v5e-256")


def test_a_config_that_no_layout_was_applied_to_is_read_as_it_stands():
    assert door.read(config(), "cpu") == door.read(base(), "cpu")
