"""What a run asks of another: found, compared, refused by name."""

import dataclasses
from pathlib import Path

import pytest

from checkpointing import record, starting, teacher
from checkpointing.workdir import Workdir
from configs import door, start_from
from data.config import DataConfig
from data.tokenizer import ByteTokenizer
from errors import UserError
from model import parameters
from model.adapter_config import AdapterConfig
from model.config import Quantization
from tests.training.sharded import MODEL, mesh_of
from training.config import RunConfig, TrainConfig
from training.fields import flat
from training.objectives.config import ObjectiveConfig

BYTES = dataclasses.replace(MODEL, vocab_size=ByteTokenizer().vocab_size, max_length=64)
DISTILL = ObjectiveConfig("distill", teacher="runs/x", top_k=8)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workdir:
    """A workdir with a byte tokenizer, whose model is BYTES."""
    workdir = Workdir(str(tmp_path / "source"))
    workdir.local.mkdir()
    ByteTokenizer().save(workdir.local / "tokenizer.json")
    saved = record.Record(RunConfig(BYTES, DataConfig("python_stdlib", 64)), "none", "none")
    monkeypatch.setattr(starting, "find", lambda *_: starting.Start(workdir, 7, saved))
    return workdir


def run(**changes: object) -> RunConfig:
    config = RunConfig(
        dataclasses.replace(BYTES, embed_dim=16, dtype="bfloat16"),
        DataConfig("python_stdlib", 64),
        objective=DISTILL,
        train=TrainConfig(batch_size=8),
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def test_it_computes_as_the_run_does_with_its_own_shape(source: Workdir) -> None:
    found = teacher.find(run(), mesh_of(data=2, fsdp=2, tensor=2))
    assert found is not None
    model = found.here.outline.config
    assert (model.embed_dim, model.dtype, model.remat) == (BYTES.embed_dim, "bfloat16", "none")
    assert teacher.check_tokenizer(found, ByteTokenizer()) == ""
    assert found.identity == found.here.start.record.identity()
    assert teacher.find(run(objective=ObjectiveConfig()), mesh_of()) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": dataclasses.replace(BYTES, vocab_size=300)}, "--config.model.vocab_size=258"),
        ({"data": DataConfig("python_stdlib", 128)}, "takes 64 tokens"),
        ({"objective": dataclasses.replace(DISTILL, top_k=258)}, "top_k=258 leaves nothing"),
    ],
)
def test_what_does_not_suit_is_one_line(source: Workdir, changes: dict, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        teacher.find(run(**changes), mesh_of())
    assert "\n" not in str(error.value)


def test_another_tokenizer_is_refused_by_its_first_token(source: Workdir) -> None:
    found = teacher.find(run(), mesh_of())
    assert found is not None

    class Other(ByteTokenizer):
        fingerprint = "other"

        def token(self, token_id: int) -> bytes:
            return b"?" if token_id == 65 else super().token(token_id)

    with pytest.raises(UserError, match=r"another tokenizer: id 65 is '\?' here and 'A' there"):
        teacher.check_tokenizer(found, Other())
    (source.local / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        teacher.check_tokenizer(found, ByteTokenizer())


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_reference_is_quantized_as_the_run_is_and_a_teacher_is_not(
    source: Workdir, quantization: Quantization
) -> None:
    model = dataclasses.replace(BYTES, quantization=quantization)
    for how, expected in ((ObjectiveConfig("dpo", teacher="x"), quantization), (DISTILL, "none")):
        asks = run(model=model, objective=how)
        found = teacher.find(asks, mesh_of())
        assert found is not None and found.here.outline.config.quantization == expected
        assert ("quantization" in teacher.computing(asks)) == (expected != "none")


def test_once_begun_it_is_the_same_or_gone(
    source: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is newest in its workdir by now does not matter."""
    start = starting.find("runs/x")
    asked = start.record.identity()
    monkeypatch.setattr(
        starting, "kept", lambda _, identity, key: start if identity == asked else None
    )
    found = teacher.find(run(), mesh_of(), asked)
    assert found is not None and found.here.start == start
    gone = teacher.find(run(), mesh_of(), "f" * 32)
    assert gone is not None and gone.identity == "f" * 32 and gone.found is None
    with pytest.raises(UserError, match="teacher=runs/x: what the run began with is not there"):
        _ = gone.here


def test_a_plan_needs_no_reference() -> None:
    """One that nothing is said of is of the model's shape; without adapters."""
    adapter = AdapterConfig("lora", 4, 8.0, ("query",))
    model = dataclasses.replace(BYTES, adapter=adapter)
    live = run(model=model, objective=ObjectiveConfig("dpo", stored=False))
    found = teacher.in_step(live, mesh_of())
    assert found is not None
    assert flat(parameters.shapes(found)) == flat(parameters.shapes(parameters.outline(BYTES)))
    assert teacher.in_step(run(objective=ObjectiveConfig("dpo")), mesh_of()) is None


def test_a_reference_is_needed_and_pairs() -> None:
    dpo = run(objective=ObjectiveConfig("dpo"))
    with pytest.raises(UserError, match="needs a reference"):
        start_from.check(dpo)
    start_from.check(dataclasses.replace(dpo, train=TrainConfig(start_from="runs/x")))
    with pytest.raises(UserError, match="has no pairs of answers"):
        door.check_pairs(dpo, {"text": False})
    with pytest.raises(UserError, match="is of pairs of answers: use dpo, ipo, simpo"):
        door.check_pairs(run(), {"text": True})
    door.check_pairs(run(), {"text": False})
    simpo = ObjectiveConfig("simpo")
    with pytest.raises(UserError, match="z_loss=0"):
        door._check_objective(run(objective=simpo, train=TrainConfig(z_loss=1e-3)))
