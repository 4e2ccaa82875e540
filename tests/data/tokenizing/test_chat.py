"""Chat templates: what Jinja makes of them, and what they may not do."""

import json
import os
from pathlib import Path

import pytest
import tokenizers

from data.tokenizer import train_bpe
from data.tokenizing.chat import ChatTemplate
from data.tokenizing.published import Published
from errors import UserError

ASSETS = os.environ.get("PODIUM_ASSETS")
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
PLAIN = (
    "{{ bos_token }}{% for message in messages %}\n"
    "  {% if message.role == 'user' %}\n"
    "[{{ message.content }}]\n"
    "    {% else %}\n"
    "{{ message.content }}{{ eos_token }}\n"
    "  {% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)


def render(source, messages=TURNS, prompt=False, **variables):
    template = ChatTemplate(source, SPECIALS, "here")
    return template.render(messages, add_generation_prompt=prompt, **variables)


def test_blocks_leave_no_white_space():
    assert render(PLAIN) == "<s>[Hi]\nHo</s>\n"
    assert render(PLAIN, prompt=True) == "<s>[Hi]\nHo</s>\n>"


def test_functions_that_templates_use():
    source = "{{ messages | tojson }}|{{ tools | tojson(indent=1) }}|{{ strftime_now('%Y') }}"
    first, second, year = render(source, [{"content": "<é&'"}], tools=[1]).split("|")
    assert first == '[{"content": "<é&\'"}]' and json.loads(second) == [1]
    assert 2020 < int(year) < 2200
    assert (
        render("{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}x{% endfor %}")
        == "x"
    )


def test_marks_of_what_the_model_said_change_no_text():
    said = "{{ message.content }}{{ eos_token }}\n"
    marked = PLAIN.replace(said, f"    {{% generation %}}\n{said}    {{% endgeneration %}}\n")
    assert marked != PLAIN and render(marked) == render(PLAIN)


def test_tools_and_documents_are_none_unless_they_are_given():
    source = "{% if tools is not none %}{{ tools }}{% endif %}{{ documents is none }}"
    assert render(source) == "True"
    assert render(source, tools=[1], documents=[2]) == "[1]False"


def test_a_template_refuses_messages():
    with pytest.raises(UserError, match="here refuses these messages: roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UserError, match="here is not a chat template"):
        render("{% if %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__.os }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
    ],
)
def test_a_template_reaches_nothing(source):
    messages = [dict(one) for one in TURNS]
    with pytest.raises(UserError, match="here refuses these messages"):
        render(source, messages)
    assert messages == TURNS


def folder(tmp_path, **files):
    specials = [
        tokenizers.AddedToken(word, special=True, normalized=False) for word in ("<s>", "</s>")
    ]
    tokenizer = tokenizers.Tokenizer.from_str(_trained())
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name, content in files.items():
        (tmp_path / name.replace("__", ".")).write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
    return tokenizer, Published(tmp_path)


def _trained() -> str:
    tokenizer = train_bpe(["Hi Ho [x] " * 20], 300)
    return tokenizer.serialized


def test_specials_are_known_in_templates_and_prompts(tmp_path):
    tokenizer, published = folder(
        tmp_path, chat_template__jinja=PLAIN, tokenizer_config__json=SPECIALS
    )
    begin, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    ids = published.rendered(published.template.render(TURNS, add_generation_prompt=False))
    assert (ids[0], ids.count(begin), ids.count(end)) == (begin, 1, 1)
    assert published.prompt("Hi")[0] == begin and begin not in published.prompt("Hi")[1:]
    assert tokenizer.decode(published.prompt("Hi Ho")) == "Hi Ho"


@pytest.mark.parametrize(("given", "want"), [(5, {5}), ([5, 7], {5, 7}), (None, set())])
def test_ids_that_end_a_text(tmp_path, given, want):
    _, published = folder(tmp_path, generation_config__json={"eos_token_id": given})
    assert published.stop_ids == want and published.template is None


def test_a_template_in_the_tokenizers_config(tmp_path):
    specials = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": None}
    several = [
        {"name": "tool_use", "template": "no"},
        {"name": "default", "template": "{{ bos_token }}!"},
    ]
    for source in ("{{ bos_token }}!", several):
        _, published = folder(
            tmp_path, tokenizer_config__json={"chat_template": source, **specials}
        )
        assert published.template.render([], add_generation_prompt=False) == "<s>!"


def test_a_model_without_a_tokenizer_json(tmp_path):
    """Such as Llama 2's first form, and runs with a tokenizer of their own: no chats."""
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2}')
    (tmp_path / "chat_template.jinja").write_text(PLAIN)
    published = Published(tmp_path)
    assert published.stop_ids == {2} and published.template is None
    assert published.prompt("Hi") == []


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer.json is not a tokenizer.json: copy it again"):
        Published(tmp_path)
    with pytest.raises(UserError, match=r"generation_config.json is no JSON"):
        folder(tmp_path, generation_config__json="{")


@pytest.mark.skipif(not ASSETS, reason="PODIUM_ASSETS is not set: no published tokenizer here")
def test_smollm2():
    """Against what `transformers` 5.24 gives (apply_chat_template, and the tokenizer itself)."""
    published = Published(Path(ASSETS) / "smollm2-135m-instruct")
    messages = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And of Italy?"},
    ]
    golden = json.loads((Path(__file__).parent / "smollm2_chat.json").read_text())
    assert golden["messages"] == messages
    text = published.template.render(messages, add_generation_prompt=True)
    assert text == golden["text"]
    assert published.rendered(text) == golden["ids"]
    assert published.prompt(golden["prompt"]) == golden["prompt_ids"]
    assert published.stop_ids == {2}
