"""What is learned of a dialogue, beside a reference that is written out turn by turn."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import building
from data.config import DataConfig
from data.examples import chat
from data.examples.chat import Chat, files_of
from data.examples.rendering import Making
from data.preparation import prepare
from data.tasks import chat as task_of_chats
from data.tasks.task import Dialogue
from data.tokenizer import ByteLevelTokenizer, ByteTokenizer, decode, load, train_bpe, train_unigram
from errors import UserError
from tests.data.shards import Records

ASSETS = os.environ.get("PODIUM_ASSETS")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
TURNS = [
    ("user", "What is néw?"),
    ("assistant", "Much, <b>and</b>\n\nmore."),
    ("user", "Say <assistant>\nno"),  # what the template writes is also what people write
    ("assistant", "no"),
    ("user", "And now?"),
    ("assistant", "Bye"),
]


def messages(turns: list[tuple[str, str]] = TURNS) -> tuple[dict[str, str], ...]:
    return tuple({"role": role, "content": text} for role, text in turns)


@pytest.fixture(scope="module")
def tokenizer() -> ByteLevelTokenizer:
    trained = train_bpe(["What is new? Much and more.\n<user>\n<assistant>\n Bye now " * 20], 330)
    return ByteLevelTokenizer(trained.serialized, "here")


def template(tmp_path: Path, source: str = TEMPLATE) -> str:
    (tmp_path / "t.jinja").write_text(source)
    return str(tmp_path / "t.jinja")


def made(tmp_path: Path, tokenizer: ByteLevelTokenizer, source: str = TEMPLATE) -> Chat:
    folder = tmp_path / "chat"
    folder.mkdir(exist_ok=True)
    for name, content in files_of(tokenizer, "bpe", template(tmp_path, source)).items():
        (folder / name).write_bytes(content)
    return Chat(folder)


def reference(tokenizer: ByteLevelTokenizer, ids: list[int]) -> list[bool]:
    """Three turns, written out: which bytes of their text are learned, and so which tokens."""
    bos, eos = (tokenizer.spelling(i).encode() for i in (tokenizer.bos_id, tokenizer.eos_id))
    text, learned = bos, [False] * len(bos)
    for role, content in TURNS:
        head, said = f"<{role}>\n".encode(), content.encode() + eos + b"\n"
        text += head + said
        learned += [False] * len(head) + [role == "assistant"] * len(said)
    special = {tokenizer.bos_id: bos, tokenizer.eos_id: eos}
    pieces = [special.get(i) or tokenizer.token(i) for i in ids]
    assert b"".join(pieces) == text
    starts = np.cumsum([0, *map(len, pieces)])[:-1]
    return [learned[start] for start in starts]


def test_three_turns(tmp_path: Path, tokenizer: ByteLevelTokenizer) -> None:
    ids, learned = made(tmp_path, tokenizer).render(messages())
    assert ids[0] == tokenizer.bos_id and (ids == tokenizer.bos_id).sum() == 1
    assert learned.tolist() == reference(tokenizer, ids.tolist())
    assert (ids[learned] == tokenizer.eos_id).sum() == 3  # all three answers learn to end
    assert not learned[0] and 0 < learned.sum() < learned.size


PLAIN = (Path(chat.__file__).parent / "turns.jinja").read_text()  # of configs/chat.py:tiny


@pytest.mark.parametrize("source", [TEMPLATE, PLAIN])
@pytest.mark.parametrize("train", [train_bpe, train_unigram])
def test_answers_go_on_from_the_tokens_that_ask_for_them(
    tmp_path: Path, train: Callable[..., ByteLevelTokenizer], source: str
) -> None:
    """A model that is asked has before it what was before each answer that it learned, and all of
    the answer is learned: " the", too, which is one token."""
    text = "user: What is it?\nassistant: the moon and the sea\n<user>\n<assistant>\n Bye " * 20
    trained = train([text], 330)
    tokenizer = ByteLevelTokenizer(trained.serialized, "here")
    turns = [*TURNS, ("user", "What is it?"), ("assistant", "the moon")]
    if source == PLAIN:  # the line end of the other would be one token with such white space
        turns += [("user", ""), ("assistant", "  the sea"), ("user", ""), ("assistant", "\n\nBye")]
    dialogue = messages(turns)
    talk = made(tmp_path, tokenizer, source)
    ids, learned = talk.render(dialogue)
    counted = 0
    for n in range(1, len(dialogue), 2):
        _, asked = talk.asked(dialogue[:n])
        _, end = talk.asked(dialogue[: n + 1])  # what follows the answer, and asks for another
        answer = ids[len(asked) :][learned[len(asked) :].cumprod().astype(bool)].tolist()
        assert ids[: len(asked)].tolist() == asked and not learned[len(asked) - 1]
        assert end[: len(asked) + len(answer)] == [*asked, *answer] and tokenizer.eos_id in answer
        said = decode(tokenizer, answer[: answer.index(tokenizer.eos_id)])
        assert said.removeprefix(" " if source == PLAIN else "") == dialogue[n]["content"]
        counted += len(answer)
    assert learned.sum() == counted


@pytest.mark.parametrize(
    ("source", "answer"),
    [(PLAIN.replace("'assistant:'", "'assistant: '"), "the moon"), (TEMPLATE, "\n\nthe moon")],
)
def test_an_answer_that_begins_within_a_token_is_refused(
    tmp_path: Path, source: str, answer: str
) -> None:
    text = "user: What is it?\nassistant: the moon and the sea <assistant>\n\n\nthe "
    trained = train_bpe([text * 20], 330)
    spaced = ByteLevelTokenizer(trained.serialized, "here")
    files = files_of(spaced, "bpe", template(tmp_path, source))
    records = [{"messages": list(messages([("user", "What is it?"), ("assistant", answer)]))}]
    with pytest.raises(UserError) as caught:
        building.build(
            tmp_path / "s", [Records(records)], spaced, {}, making=Making("chat", 99), chat=files
        )
    assert "'r0' is no example of task 'chat' (the beginning of message 2 is one token" in str(
        caught.value
    )


def test_a_store_of_dialogues(tmp_path: Path, tokenizer: ByteLevelTokenizer) -> None:
    files = files_of(tokenizer, "bpe", template(tmp_path))
    making = Making("chat", 500)
    records = [{"messages": list(messages())}, {"messages": list(messages(TURNS[:2]))}]
    path = tmp_path / "store"
    built = building.build(path, [Records(records)], tokenizer, {}, making=making, chat=files)
    assert built.n_documents == 2 and built.unit == 1
    first, end = built.token_offsets[:2].tolist()
    ids = built.read(first, end).tolist()
    assert built.learned(first, end).tolist() == reference(tokenizer, ids)
    said = "".join(f"<{role}>\n{content}\n" for role, content in TURNS)
    assert built.byte_offsets[1] == len(said.encode())


@pytest.mark.parametrize(
    ("source", "says"),
    [
        # Thoughts of answers before the last go.
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content if loop.last else '' }}{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}",
            "of the first 1 messages does not begin what it writes of the first 2",
        ),
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
            "{% if add_generation_prompt %}<assistant>think{% endif %}",
            "of the first 1 messages and what asks for an answer does not begin",
        ),
        (
            "{{ messages | length }}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
            "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
            "of the first 1 messages does not begin",
        ),
        ("{{ raise_exception('no tools here') }}", "the chat template refuses these messages: no"),
        ("{{ messages[9].content.x }}", "the chat template refuses these messages"),
    ],
)
def test_a_template_that_tells_nothing_is_refused(
    tmp_path: Path, tokenizer: ByteLevelTokenizer, source: str, says: str
) -> None:
    files = files_of(tokenizer, "bpe", template(tmp_path, source))
    making, path = Making("chat", 500), tmp_path / "store"
    records = [{"messages": list(messages())}]
    with pytest.raises(UserError) as caught:
        building.build(path, [Records(records)], tokenizer, {}, making=making, chat=files)
    assert str(caught.value).startswith("'r0' is no example of task 'chat' (")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_lost_text_is_refused(tmp_path: Path, tokenizer: ByteLevelTokenizer) -> None:
    """As a tokenizer does that composes characters."""
    made(tmp_path, tokenizer)
    folder = tmp_path / "chat"
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"normalizer": {"type": "NFC"}}))
    talk = Chat(folder)
    composed, apart = (
        messages([("user", "What is n\u00e9w?"), ("assistant", f"{said} Bye")])
        for said in ("\u00e9", "e\u0301")
    )
    assert talk.render(composed)[1].any()
    with pytest.raises(ValueError, match="the tokenizer loses text of it: use a"):
        talk.render(messages([("user", "Who?"), ("assistant", "ne\u0301w")]))
    with pytest.raises(ValueError, match="the tokenizer loses text"):
        talk.render(apart)


def test_nothing_that_is_learned_is_refused(
    tmp_path: Path, tokenizer: ByteLevelTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        task_of_chats, "_fields", lambda record: Dialogue(tuple(record["messages"]))
    )
    files = files_of(tokenizer, "bpe", template(tmp_path))
    records = [{"messages": list(messages(TURNS[:1]))}]
    with pytest.raises(UserError, match="nothing of it is learned: no message of the assistant"):
        building.build(
            tmp_path / "s", [Records(records)], tokenizer, {}, making=Making("chat", 99), chat=files
        )


def test_too_long_dialogues_lose_whole_turns(tmp_path: Path, tokenizer: ByteLevelTokenizer) -> None:
    """What is left is what the template writes of the later turns, after the system's message."""
    files, talk = files_of(tokenizer, "bpe", template(tmp_path)), made(tmp_path, tokenizer)
    system = ("system", "Be kind.")
    records = [{"messages": list(messages([system, *TURNS, ("user", "Ho?")]))}]
    kept = [talk.render(messages([system, *TURNS[n:], ("user", "Ho?")])) for n in (0, 2, 4)]

    def build(length: int) -> tuple[list[int], list[bool]]:
        built = building.build(
            tmp_path / f"{length}",
            [Records(records)],
            tokenizer,
            {},
            making=Making("chat", length, "cut"),
            chat=files,
        )
        assert built.manifest["counts"].get("cut: too long", 0) == (length < kept[0][0].size - 1)
        return built.read(0, built.n_tokens).tolist(), built.learned(0, built.n_tokens).tolist()

    for (ids, learned), before in zip(kept, (None, *kept), strict=False):
        for length in (ids.size - 1, before[0].size - 2 if before else 999):
            assert build(length) == (ids.tolist(), learned.tolist())
    with pytest.raises(UserError, match=r"all 1 are left out \(too long 1\)"):
        build(kept[-1][0].size - 2)


def test_what_a_template_needs(tmp_path: Path, tokenizer: ByteLevelTokenizer) -> None:
    with pytest.raises(UserError, match=r"data.tokenizer='bpe' has no chat template"):
        files_of(tokenizer, "bpe", "")
    with pytest.raises(UserError, match=r"data.tokenizer='byte' spells no specials"):
        files_of(ByteTokenizer(), "byte", template(tmp_path))
    with pytest.raises(UserError, match=r"data.chat_template='.*none.jinja' cannot be read \(No"):
        files_of(tokenizer, "bpe", str(tmp_path / "none.jinja"))
    with pytest.raises(UserError, match=r"data.chat_template='.*' is not a chat template that Ji"):
        files_of(tokenizer, "bpe", template(tmp_path, "{% if %}"))


def test_a_template_is_found_beside_a_tokenizer(
    tmp_path: Path, tokenizer: ByteLevelTokenizer
) -> None:
    """In its folder, or in that of what was published with it; of another tokenizer it is none."""
    (tmp_path / "tokenizer.json").write_text(tokenizer.serialized)
    path = str(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match="has no chat template"):
        files_of(tokenizer, path, "")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "in the config"}))
    assert b"in the config" in files_of(tokenizer, path, "")["tokenizer_config.json"]
    (tmp_path / "hf").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "hf" / name).write_bytes((tmp_path / name).read_bytes())
    (tmp_path / "hf" / "chat_template.jinja").write_text(TEMPLATE)
    for where in (path, str(tmp_path)):
        assert files_of(tokenizer, where, "")["chat_template.jinja"] == TEMPLATE.encode()
    other = train_bpe(["quite other text, of other letters " * 20], 330)
    with pytest.raises(UserError, match="comes with another tokenizer"):
        files_of(other, path, "")
    swapped = json.loads(tokenizer.serialized)
    for one, i in zip(swapped["added_tokens"], (1, 0), strict=True):
        one["content"] = tokenizer.spelling(i)
        swapped["model"]["vocab"][tokenizer.spelling(i)] = one["id"]
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(swapped))
    with pytest.raises(UserError, match="comes with another tokenizer"):
        files_of(tokenizer, path, "")
    more = train_bpe(["quite other text, " * 20], 400)  # all bytes are in it, and other merges
    (tmp_path / "hf" / "tokenizer.json").write_text(more.serialized)
    with pytest.raises(UserError, match="comes with another tokenizer"):
        files_of(tokenizer, path, "")


def test_the_date_in_a_template_is_fixed(tmp_path: Path, tokenizer: ByteLevelTokenizer) -> None:
    text, _ = made(tmp_path, tokenizer, "{{ strftime_now('%d %b %Y') }}" + TEMPLATE).spans(
        messages(TURNS[:2])
    )
    assert text.startswith("26 Jul 2024")
    assert chat.identity({"a": b"1"}) != chat.identity({"a": b"2"})


def test_a_trained_tokenizer_with_a_template_prepares_dialogues(tmp_path: Path) -> None:
    for name in ("train", "val"):
        lines = (json.dumps({"messages": messages(TURNS[: 2 + 2 * (i % 3)])}) for i in range(6))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    config: dict[str, Any] = {
        "source": f"files:{tmp_path}/*.jsonl",
        "train_split": "train.jsonl",
        "eval_split": "val.jsonl",
        "task": "chat",
        "packing": "best_fit",
        "chat_template": template(tmp_path),
    }
    data = prepare(DataConfig(sequence_length=256, tokenizer_vocab_size=300, **config))
    (corpus,) = data.corpora
    assert corpus.train.n_documents == 6 and corpus.train.is_examples and corpus.gzip is None
    again = prepare(DataConfig(sequence_length=256, tokenizer_vocab_size=300, **config))
    assert again.corpora[0].train.path == corpus.train.path
    config["chat_template"] = template(tmp_path, " " + TEMPLATE)
    other = prepare(DataConfig(sequence_length=256, tokenizer_vocab_size=300, **config))
    assert other.corpora[0].train.path != corpus.train.path


@pytest.mark.skipif(not ASSETS, reason="PODIUM_ASSETS is not set: no published tokenizer here")
def test_smollm2(tmp_path: Path) -> None:
    """The ids are those of tests/data/tokenizing/smollm2_chat.json, which `transformers` gave."""
    folder = Path(str(ASSETS)) / "smollm2-135m-instruct"
    tokenizer = load(folder)
    for name, content in files_of(tokenizer, str(folder), "").items():
        (tmp_path / name).write_bytes(content)
    golden = json.loads(
        (Path(__file__).parents[1] / "tokenizing" / "smollm2_chat.json").read_text()
    )
    asked = golden["messages"]
    turns = (*asked, {"role": "assistant", "content": "Rome, ö."})
    ids, learned = Chat(tmp_path).render(turns)
    assert ids[: len(golden["ids"])].tolist() == golden["ids"]  # with what asks for the answer
    assert isinstance(tokenizer, ByteLevelTokenizer)
    end = [tokenizer.eos_id, *map(int, tokenizer.encode_inner(["\n"])[0])]
    answers = [[*map(int, tokenizer.encode_inner([t])[0]), *end] for t in ("Paris.", "Rome, ö.")]
    assert ids[learned].tolist() == [i for answer in answers for i in answer]
    with pytest.raises(ValueError, match="the beginning of message 2 is one token with the end"):
        Chat(tmp_path).render(messages([("user", "What?"), ("assistant", "\n\nRome.")]))
    runs = np.flatnonzero(np.diff(learned.astype(int)) == 1) + 1
    assert [ids[r : r + len(a)].tolist() for r, a in zip(runs, answers, strict=True)] == answers
