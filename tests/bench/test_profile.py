"""What an operation of a step is for, by its name."""
# ruff: noqa: E501

import pytest

from bench.profile import kind_of

BLOCK = "jit(step)/jvp()/while/body/closed_call"


@pytest.mark.parametrize(
    ("shape", "name", "kind"),
    [
        ("f32[2048,768]{1,0}", f"{BLOCK}/dot_general", "blocks, products"),
        ("f32[2,1024,3072]{2,1,0}", f"{BLOCK}/tanh", "blocks, the rest"),
        ("f32[512,384]{1,0}", f"{BLOCK}/MV,VD->MD/dot_general", "head, products"),
        ("f32[512,384]{1,0}", f"{BLOCK}/exp", "head, the rest"),
        ("f32[2,12,256,64]", f"{BLOCK}/while/body/BKGQS,BKSH->BKGQH/dot_general", "attention, products"),
        ("f32[2,12,256]", f"{BLOCK}/while/body/exp", "attention, the rest"),
        ("f32[12,2,8]", "jit(step)/jvp()/broadcast_in_dim", "zeros that the scan over layers begins with"),
        (
            "f32[12,2,8]",
            f"{BLOCK}/jit(dynamic_update_index_in_dim)/dynamic_update_slice",
            "what the scan over layers stacks, and reads again",
        ),
        ("f32[8]", "jit(step)/mul", "optimizer"),
    ],
)  # fmt: skip
def test_kinds(shape: str, name: str, kind: str) -> None:
    assert kind_of(shape, name, 384) == kind
