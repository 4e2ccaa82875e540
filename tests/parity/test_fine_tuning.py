"""Fine-tuning beside `transformers`: examples and dialogues one by one there, packed here.

What is learned is found without our code: what asks for an answer is what `transformers` writes
for a model that is to answer (a chat template with its generation prompt), and all that is said
after it is put behind it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from data import rows
from data.config import DataConfig
from data.preparation import prepare
from data.tokenizer import ByteLevelTokenizer, train_bpe
from model import parameters
from model.families import FAMILIES
from sharding import means as computing
from tests.families import SMALL, config_of, drawn, to_params
from tests.parity import theirs
from tests.training.sharded import mesh_of
from training.fields import flat
from training.objectives.objective import likelihoods
from training.step import gradients

ASSETS = os.environ.get("PODIUM_ASSETS", "")
FAMILY, COUNT, TURNS, LENGTH = "llama", 64, 3, 384
MICROBATCHES = 4
LOSSES, GRADIENTS, ACCUMULATED = 1e-4, 1e-5, 1e-6
"""Nats of a token; of gradients, and of those in microbatches, as `largest` and `apart` say."""
OUTSIDE = -100
"""The label of what is not learned."""

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
WORDS = "the sum of 12 and 30 is 42 , né ! it's x = y; <assistant> 漢字 an answer\n\nor two".split(
    " "
)

Record = dict[str, Any]


class Labelled(NamedTuple):
    """Attributes:
    ids: of an example.
    labels: of each the id itself where it is learned, or OUTSIDE.
    """

    ids: list[int]
    labels: list[int]


class Theirs(NamedTuple):
    """Attributes:
    losses: of every token but the first, by the ids of its example.
    learned: of which of them, likewise.
    loss: the mean over what is learned.
    gradients: of that, as our parameters.
    """

    losses: dict[tuple[int, ...], np.ndarray]
    learned: dict[tuple[int, ...], np.ndarray]
    loss: float
    gradients: Any


class Both(NamedTuple):
    """Attributes:
    theirs: what `transformers` computed.
    config, params: ours, of the same weights.
    batch: all examples, packed, in rows that MICROBATCHES divides.
    """

    theirs: Theirs
    config: Any
    params: Any
    batch: rows.Batch


def text(rng: np.random.Generator, most: int) -> str:
    """Of one word at least; the first one begins with a letter or a digit."""
    words = [WORDS[i] for i in rng.integers(len(WORDS), size=rng.integers(most))]
    return " ".join(["So", *words])


def questions() -> list[Record]:
    rng = np.random.default_rng(0)
    return [{"question": text(rng, 30), "answer": text(rng, 20)} for _ in range(COUNT)]


def dialogues() -> list[Record]:
    rng = np.random.default_rng(1)

    def turn() -> list[Record]:
        said = (("user", text(rng, 12)), ("assistant", text(rng, 12)))
        return [{"role": role, "content": content} for role, content in said]

    return [{"messages": [one for _ in range(TURNS) for one in turn()]} for _ in range(COUNT)]


def ids_of(read: Any, words: str) -> list[int]:
    found: list[int] = read(words, add_special_tokens=False)["input_ids"]
    return found


def answered(read: Any, record: Record) -> Labelled:
    """A question between BOS and its answer, which EOS ends."""
    asked = [read.bos_token_id, *ids_of(read, f"Question: {record['question']}\nAnswer:")]
    answer = [*ids_of(read, f" {record['answer']}"), read.eos_token_id]
    return Labelled(asked + answer, [OUTSIDE] * len(asked) + answer)


def talked(read: Any, record: Record) -> Labelled:
    """What asks for each answer, and then the answer, EOS and the end of the line."""
    messages, ids, labels = record["messages"], list[int](), list[int]()
    for n, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = read.apply_chat_template(
            messages[:n], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert asked[: len(ids)] == ids
        answer = [*ids_of(read, message["content"]), read.eos_token_id, *ids_of(read, "\n")]
        labels += [OUTSIDE] * (len(asked) - len(ids)) + answer
        ids = asked + answer
    assert ids == read.apply_chat_template(messages, tokenize=True, return_dict=False)
    return Labelled(ids, labels)


TASKS = {"gsm8k": (questions, answered), "chat": (dialogues, talked)}


def trained_tokenizer(folder: Path) -> Path:
    """A tokenizer of these texts, as it is published: with its specials and a chat template."""
    texts = [one["question"] + one["answer"] for one in questions()]
    trained = train_bpe([*texts, "<user>\n<assistant>\n" * 20], 330)
    assert isinstance(trained, ByteLevelTokenizer)
    named = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": trained.spelling(trained.bos_id),
        "eos_token": trained.spelling(trained.eos_id),
    }
    folder.mkdir()
    (folder / "tokenizer.json").write_text(trained.serialized)
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def computed(model: Any, examples: list[Labelled], folder: Path) -> Any:
    """What `transformers` makes of one example after the other; gradients by the names on disk."""
    total = sum(label != OUTSIDE for one in examples for label in one.labels)
    losses, learned, mean = {}, {}, 0.0
    model.zero_grad()
    for one in examples:
        ids, labels = (torch.tensor([numbers]) for numbers in one)
        of_example = model(input_ids=ids, labels=labels)
        part = of_example.loss * (int((labels != OUTSIDE).sum()) / total)  # itself a mean
        part.backward()
        mean += part.item()
        of_all = torch.nn.functional.cross_entropy(
            of_example.logits[0, :-1], ids[0, 1:], reduction="none"
        )
        losses[tuple(one.ids)] = of_all.detach().numpy()
        learned[tuple(one.ids)] = (labels[0, 1:] != OUTSIDE).numpy()
    assert len(losses) == COUNT  # no two are alike
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    model.save_pretrained(folder)
    return Theirs(losses, learned, mean, load_file(folder / theirs.FILE))


def packed(folder: Path, tokenizer: Path, task: str, records: list[Record]) -> rows.Batch:
    """All records in rows, as a run has them that reads them from a file."""
    for name, some in (("train", records), ("val", records[:1])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in some))
    config = DataConfig(
        source=f"files:{folder}/*.jsonl",
        train_split="train.jsonl",
        eval_split="val.jsonl",
        sequence_length=LENGTH,
        tokenizer=str(tokenizer),
        task=task,
        packing="best_fit",
        processes=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODIUM_CACHE", str(folder / "cache"))
        (corpus,) = prepare(config).corpora
        n = corpus.plan.n_bins
        batch = rows.empty(-(-n // MICROBATCHES) * MICROBATCHES, LENGTH)
        pieces = corpus.plan.pieces(np.arange(n) * LENGTH, LENGTH)
        rows.fill(batch, np.arange(n), pieces, corpus.train)
    assert n < COUNT / 2  # several share a row
    return batch


def made(folder: Path, tokenizer: Path, task: str) -> Both:
    read = transformers.AutoTokenizer.from_pretrained(tokenizer)
    records, labelled = TASKS[task][0](), TASKS[task][1]
    said = {**SMALL[FAMILY], "vocab_size": len(read), "max_position_embeddings": LENGTH}
    architecture = getattr(transformers, FAMILIES[FAMILY].ARCHITECTURE)
    architecture(transformers.AutoConfig.for_model(FAMILY, **said)).save_pretrained(folder)
    shapes = {name: value.shape for name, value in load_file(folder / theirs.FILE).items()}
    tensors = {name: drawn(name, shape, 1) for name, shape in shapes.items()}
    theirs.write(folder, tensors)
    family, config, _ = config_of(json.loads((folder / "config.json").read_text()))
    found = computed(
        theirs.load(FAMILY, folder), [labelled(read, one) for one in records], folder / "gradients"
    )
    return Both(
        found._replace(gradients=to_params(family, config, found.gradients)),
        config,
        to_params(family, config, tensors),
        packed(folder, tokenizer, task, records),
    )


CASES = [
    pytest.param(
        (name, task),
        id=f"{name} {task}",
        marks=pytest.mark.skipif(
            name == "smollm2" and not ASSETS,
            reason="PODIUM_ASSETS is not set: there is no real model",
        ),
    )
    for name in ("trained", "smollm2")
    for task in TASKS
]


@pytest.fixture(scope="module", params=CASES)
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Both:
    name, task = request.param
    folder = tmp_path_factory.mktemp(task)
    if name == "smollm2":
        return made(folder, Path(ASSETS) / "smollm2-135m-instruct", task)
    return made(folder, trained_tokenizer(folder / "tokenizer"), task)


def segments(batch: rows.Batch) -> Iterator[tuple[int, slice]]:
    """Where each example is: its row, and its positions."""
    for row, numbers in enumerate(batch["segments"]):
        for segment in range(1, numbers.max() + 1):
            here = np.flatnonzero(numbers == segment)
            yield row, slice(int(here[0]), int(here[-1]) + 1)


def test_loss_of_every_token(both: Both, record_property: Any) -> None:
    """Of prompts too, which have no weight; and what has, is what they have labels of."""
    mesh = mesh_of()
    outline = parameters.outline(both.config, computing.means(mesh, both.config))

    @jax.jit
    def nats(params: Any, batch: Any) -> Any:
        return -likelihoods(parameters.bind(outline, params), batch, mesh)

    ours_BT = np.asarray(nats(both.params, both.batch))
    left, found = set(both.theirs.losses), 0.0
    for row, here in segments(both.batch):
        tokens, targets = (both.batch[name][row, here] for name in ("tokens", "targets"))
        ids = (*tokens.tolist(), int(targets[-1]))
        left.remove(ids)  # each is there once
        weights = both.batch["weights"][row, here]
        np.testing.assert_array_equal(weights, both.theirs.learned[ids].astype(np.float32))
        assert 0 < weights.sum() < weights.size
        difference = np.abs(ours_BT[row, here] - both.theirs.losses[ids]).max()
        found = max(found, float(difference))
    assert not left
    record_property("nats of a token", float(found))
    assert found < LOSSES


def learned_from(both: Both, accumulation: int) -> tuple[dict[str, np.ndarray], float]:
    """Gradients of the mean loss of what is learned, and that loss."""
    mesh = mesh_of()
    outline = parameters.outline(both.config, computing.means(mesh, both.config))

    @jax.jit
    def run(params: Any, batch: Any) -> Any:
        return gradients(outline, params, batch, accumulation, 0.0, mesh)

    grads, sums = jax.device_get(run(both.params, both.batch))
    assert sums["tokens"] == sum(some.sum() for some in both.theirs.learned.values())
    return flat(grads), float(sums["loss"] / sums["tokens"])


def largest(ours: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest difference: of the largest number in the gradient of a parameter."""
    assert ours.keys() == expected.keys()
    found = []
    for name, grad in expected.items():
        scale = np.abs(grad).max()
        assert scale > 1e-4, name  # it tells something
        found.append(np.abs(ours[name] - grad).max() / scale)
    return float(max(found))


def apart(ours: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest norm of a difference: of that of a parameter's gradient."""
    norm = np.linalg.norm
    return float(max(norm(ours[name] - grad) / norm(grad) for name, grad in expected.items()))


def test_gradients(both: Both, record_property: Any) -> None:
    """All at once, and in microbatches of which one has more to learn from than another."""
    ours, loss = learned_from(both, 1)
    record_property("loss", float(abs(loss / both.theirs.loss - 1)))
    assert loss == pytest.approx(both.theirs.loss, rel=ACCUMULATED)
    found = largest(ours, flat(both.theirs.gradients))
    record_property("gradients", float(found))
    assert found < GRADIENTS
    of_rows = both.batch["weights"].sum(axis=1)
    for accumulation in (2, MICROBATCHES):
        shares = {of_rows[i::accumulation].sum() for i in range(accumulation)}
        assert len(shares) == accumulation
        again, of_parts = learned_from(both, accumulation)
        assert of_parts == pytest.approx(loss, rel=ACCUMULATED)
        found = apart(again, ours)
        record_property(f"in {accumulation} parts", float(found))
        assert found < ACCUMULATED
