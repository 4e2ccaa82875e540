"""Published forms of weights against their formulas, written out number by number."""

import json

import ml_dtypes
import numpy as np
import pytest

from conversion import formats, safetensors_files
from errors import UserError

FP8 = {"quant_method": "fp8", "weight_block_size": [4, 8]}
MXFP4 = {"quant_method": "mxfp4"}


@pytest.fixture
def stored(tmp_path):
    """Makes what the files of some tensors hold."""
    names = {np.dtype(np.uint8): "U8"} | {
        dtype: name for name, dtype in safetensors_files.DTYPES.items()
    }

    def make(**tensors):
        entries, content = {}, b""
        for name, tensor in tensors.items():
            end = len(content) + tensor.nbytes
            entries[name] = {
                "dtype": names[tensor.dtype],
                "shape": tensor.shape,
                "data_offsets": [len(content), end],
            }
            content += tensor.tobytes()
        text = json.dumps(entries).encode()
        whole = len(text).to_bytes(8, "little") + text + content
        (tmp_path / "model.safetensors").write_bytes(whole)
        return safetensors_files.find(tmp_path)

    return make


def fp8(random, *shape):
    return random.standard_normal(shape, np.float32).astype(ml_dtypes.float8_e4m3fn)


def test_fp8_with_block_scales(stored):
    random = np.random.default_rng(0)
    values, scales = fp8(random, 10, 20), random.random((3, 3), np.float32)
    plain = random.standard_normal(5, np.float32).astype(ml_dtypes.bfloat16)
    found = formats.weights(stored(w=values, w_scale_inv=scales, norm=plain), FP8)
    assert found.keys() == {"w", "norm"}
    expected = np.zeros((10, 20), np.float32)
    for i in range(10):
        for j in range(20):
            expected[i, j] = np.float32(values[i, j]) * scales[i // 4, j // 8]
    np.testing.assert_array_equal(found["w"].read(), expected)
    np.testing.assert_array_equal(found["w"].read(3, 9), expected[3:9])
    np.testing.assert_array_equal(found["norm"].read(), plain)
    assert (found["w"].shape, found["w"].dtype, found["w"].row_bytes) == ((10, 20), "BF16", 80)


def e2m1(bits: int) -> float:
    """Sign, two bits of exponent with bias 1, one of mantissa (OCP Microscaling Formats 1.0)."""
    sign, exponent, mantissa = bits >> 3, bits >> 1 & 3, bits & 1
    size = mantissa * 0.5 if exponent == 0 else (1 + mantissa / 2) * 2.0 ** (exponent - 1)
    return -size if sign else size


def test_mxfp4(stored):
    random = np.random.default_rng(1)
    experts, out, groups = 3, 6, 2
    blocks = random.integers(0, 256, (experts, out, groups, 16), np.uint8)
    scales = random.integers(110, 140, (experts, out, groups), np.uint8)
    found = formats.weights(stored(up_blocks=blocks, up_scales=scales), MXFP4)
    assert list(found) == ["up"]
    expected = np.zeros((experts, groups * 32, out), np.float32)
    for e in range(experts):
        for o in range(out):
            for i in range(groups * 32):
                packed = int(blocks[e, o, i // 32, i % 32 // 2])
                number = e2m1(packed >> 4 if i % 2 else packed & 15)
                expected[e, i, o] = number * 2.0 ** (int(scales[e, o, i // 32]) - 127)
    np.testing.assert_array_equal(found["up"].read(), expected)
    np.testing.assert_array_equal(found["up"].read(1, 2), expected[1:2])
    assert found["up"].shape == expected.shape


NUMBERS = np.zeros((8, 8), ml_dtypes.float8_e4m3fn)


@pytest.mark.parametrize(
    ("tensors", "quantization", "says"),
    [
        ({}, {"quant_method": "gptq"}, "quantized by 'gptq': Podium reads 'fp8'"),
        ({"w": NUMBERS}, {"quant_method": "fp8"}, "weight_block_size=None"),
        ({"w": NUMBERS}, FP8, "w is FP8 without w_scale_inv"),
        (
            {"w": NUMBERS, "w_scale_inv": np.zeros((8, 8), np.float32)},
            FP8,
            r"w_scale_inv has shape \(8, 8\), not \(2, 1\)",
        ),
        ({"u_blocks": np.zeros((2, 2, 2, 16), np.uint8)}, MXFP4, "do not belong together"),
    ],
)
def test_what_is_not_read(stored, tensors, quantization, says):
    with pytest.raises(UserError, match=says):
        formats.weights(stored(**tensors), quantization)


def test_a_form_that_config_json_does_not_say(stored):
    found = formats.weights(stored(w=NUMBERS), {})
    with pytest.raises(UserError, match="w: F8_E4M3 is none of F32, F16, BF16"):
        formats.unreadable(found)
