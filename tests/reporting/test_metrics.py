"""The files of a run: their formats, and that a resumed run leaves an uninterrupted one's."""

import json
import math
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import UserError
from reporting.metrics import EVENTS, LINES, MetricsFiles, read_metrics

WALL_TIME = slice(13, 21)  # of a framed event: its first field, after 12 bytes of frame and a tag

Run = list[tuple[int, dict[str, Any]]]  # (step, values) of its lines

finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.dictionaries(
    st.sampled_from(["loss", "grad_norm", "time/step_s", "eval/loss", "näme"]),
    st.one_of(st.none(), st.integers(0, 2**40), st.floats(), finite),
)
# Steps of one, two (training and evaluation) or no lines, as a run writes them.
runs = st.lists(st.lists(values, max_size=2), max_size=8).map(
    lambda steps: [(i + 1, line) for i, lines in enumerate(steps) for line in lines]
)


def write(workdir: Path, lines: Run, resume_step: int | None = None) -> None:
    files = MetricsFiles(workdir, resume_step, print)
    for step, line in lines:
        files.write(step, line)
    files.close()


def records(data: bytes) -> list[bytes]:
    """The framed records of an event file, which must be whole."""
    out = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert len(data) >= 16 + length
        assert struct.unpack("<I", data[8:12])[0] == masked_crc(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc(
            data[12 : 12 + length]
        )
        out.append(data[: 16 + length])
        data = data[16 + length :]
    return out


def masked_crc(data: bytes) -> int:
    """CRC-32C bit by bit, masked as TFRecord does."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def untimed(events: Path) -> list[bytes]:
    """The events of a file without what depends on the clock: the wall time and the checksum."""
    return [r[: WALL_TIME.start] + r[WALL_TIME.stop : -4] for r in records(events.read_bytes())]


def fields(message: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer message by number, by its wire format."""
    out: dict[int, list[Any]] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    value: Any
    while at < len(message):
        key = varint()
        match key & 7:
            case 0:
                value = varint()
            case 1 | 5 as wire:
                size, form = (8, "<d") if wire == 1 else (4, "<f")
                (value,) = struct.unpack(form, message[at : at + size])
                at += size
            case 2:
                length = varint()
                value = message[at : at + length]
                at += length
        out.setdefault(key >> 3, []).append(value)
    return out


@settings(max_examples=60, deadline=None)
@given(run=runs, data=st.data())
def test_a_resumed_run_leaves_the_files_of_an_uninterrupted_one(
    run: Run, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as tmp:
        whole, killed = Path(tmp, "whole"), Path(tmp, "killed")
        write(whole, run)
        write(killed, run)
        last = run[-1][0] if run else 0
        step = data.draw(st.integers(0, last), label="checkpoint")
        durable = [line for line in run if line[0] <= step]
        reference = Path(tmp, "reference")
        write(reference, durable)

        # The kill leaves all that was flushed before the checkpoint and any part of the rest.
        for name in (LINES, EVENTS):
            bytes_ = (whole / name).read_bytes()
            kept = len((reference / name).read_bytes())
            end = data.draw(st.integers(kept, len(bytes_)), label=f"bytes of {name}")
            tail = data.draw(st.sampled_from([b"", b"\0" * 40, b"\xff" * 9]), label="after them")
            (killed / name).write_bytes(bytes_[:end] + tail)

        write(killed, [], resume_step=step)
        assert (killed / LINES).read_bytes() == (reference / LINES).read_bytes()
        assert untimed(killed / EVENTS) == untimed(reference / EVENTS)
        write(killed, run[len(durable) :], resume_step=step)
        assert (killed / LINES).read_bytes() == (whole / LINES).read_bytes()
        assert untimed(killed / EVENTS) == untimed(whole / EVENTS)


def test_the_kill_may_come_before_anything_was_written(tmp_path: Path) -> None:
    (tmp_path / EVENTS).parent.mkdir()
    (tmp_path / LINES).touch()
    (tmp_path / EVENTS).touch()
    write(tmp_path, [(1, {"loss": 2.0})], resume_step=0)
    assert (tmp_path / LINES).read_text() == '{"step": 1, "loss": 2.0}\n'
    assert len(records((tmp_path / EVENTS).read_bytes())) == 2


def test_lines_are_strict_json_with_exact_floats(tmp_path: Path) -> None:
    line = {"loss": 0.1 + 0.2, "tokens": 2**40, "time/mfu": None, "norm": np.float32(0.1)}
    bad = {"a": math.nan, "b": math.inf, "c": -math.inf}
    write(tmp_path, [(1, line), (2, bad)])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / LINES).read_text(encoding="utf-8")
    first, second = (json.loads(line, parse_constant=refuse) for line in text.splitlines())
    assert list(first) == ["step", *line]
    assert first == {"step": 1, **line, "norm": float(np.float32(0.1))}
    assert second == {"step": 2, "a": "NaN", "b": "Infinity", "c": "-Infinity"}
    (_, _), (step, read) = read_metrics(tmp_path)
    assert (
        step == 2 and math.isnan(read["a"] or 0) and (read["b"], read["c"]) == (math.inf, -math.inf)
    )


def test_events_hold_the_scalars_of_their_step(tmp_path: Path) -> None:
    write(tmp_path, [(7, {"loss": 1.5, "mfu": None, "big": 1e300, "bad": math.nan, "tokens": 300})])
    version, event = (fields(r[12:-4]) for r in records((tmp_path / EVENTS).read_bytes()))
    assert version[3] == [b"brain.Event:2"]
    assert event[1][0] > 1.7e9 and event[2] == [7]
    scalars = [fields(value) for value in fields(event[5][0])[1]]
    read = {scalar[1][0].decode(): scalar[2][0] for scalar in scalars}
    assert list(read) == ["loss", "big", "bad", "tokens"]
    assert (read["loss"], read["big"], read["tokens"]) == (1.5, math.inf, 300.0)
    assert math.isnan(read["bad"])


def test_what_is_written_is_in_the_files_without_a_flush(tmp_path: Path) -> None:
    files = MetricsFiles(tmp_path, None, print)
    files.write(1, {"loss": 2.0})
    assert (tmp_path / LINES).read_text() == '{"step": 1, "loss": 2.0}\n'
    assert len(records((tmp_path / EVENTS).read_bytes())) == 2
    files.close()


def test_has_looks_for_a_step_and_a_name(tmp_path: Path) -> None:
    write(tmp_path, [(1, {"loss": 1.0}), (2, {"loss": 1.0}), (2, {"eval/loss": 1.0})])
    files = MetricsFiles(tmp_path, 2, print)
    files.write(3, {"loss": 1.0})
    assert files.has(2, "eval/loss") and files.has(2, "loss") and files.has(3, "loss")
    assert not files.has(1, "eval/loss") and not files.has(3, "eval/loss")
    assert not files.has(4, "loss") and not files.has(0, "loss")
    files.close()


def test_a_workdir_of_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path, [(1, {"loss": 1.0})])
    before = (tmp_path / LINES).read_bytes()
    with pytest.raises(UserError, match="another --workdir"):
        MetricsFiles(tmp_path, None, print)
    assert (tmp_path / LINES).read_bytes() == before


def test_steps_do_not_go_back(tmp_path: Path) -> None:
    write(tmp_path, [(5, {"loss": 1.0})])
    files = MetricsFiles(tmp_path, 5, print)
    with pytest.raises(ValueError, match="step 4"):
        files.write(4, {"loss": 1.0})
    files.close()


def test_missing_files_are_said_aloud(tmp_path: Path) -> None:
    said: list[str] = []
    MetricsFiles(tmp_path, 5, said.append).close()
    assert said == [
        f"{tmp_path / name} is missing: it starts anew after step 5" for name in (LINES, EVENTS)
    ]
    MetricsFiles(tmp_path, 5, said.append).close()
    assert len(said) == 2


def test_the_cut_parses_little_of_a_long_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 2000
    write(tmp_path, [(step, {"loss": 1.0}) for step in range(1, steps + 1)])
    parsed = []
    loads = json.loads

    def counted(text: bytes) -> Any:
        parsed.append(text)
        return loads(text)

    monkeypatch.setattr(json, "loads", counted)
    write(tmp_path, [], resume_step=steps - 10)
    assert len(parsed) == 11
    assert len((tmp_path / LINES).read_bytes().splitlines()) == steps - 10
    assert len(records((tmp_path / EVENTS).read_bytes())) == steps - 10 + 1
