from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.errors import InputError
from configs.schema import PromptSection
from data_gen.prompts import PromptEncoder

SHOTS = [("1+1?", "2"), ("2+2?", "4")]


def encoder(model: Path, **section: Any) -> PromptEncoder:
    return PromptEncoder(model, PromptSection(**section))


def test_a_chat_prompt_golden(tiny_model: Path):
    prompt = encoder(tiny_model, system="Be brief.", template="Q: {question}", prefill="It is ")
    assert prompt.text("3+3?", SHOTS[:1]) == (
        "system: Be brief.<end>\nuser: Q: 1+1?<end>\nassistant: 2<end>\nuser: Q: 3+3?<end>\nassistant: It is "
    )


def test_a_plain_prompt_golden(tiny_model: Path):
    prompt = encoder(tiny_model, style="plain", system="Sums.", template="Q: {question}\nA:", prefill=" ")
    assert prompt.text("3+3?", SHOTS) == "Sums.\n\nQ: 1+1?\nA:\n2\n\nQ: 2+2?\nA:\n4\n\nQ: 3+3?\nA:\n "
    assert encoder(tiny_model, style="plain").text("3+3?") == "3+3?\n"


def test_braces_in_a_question_are_text(tiny_model: Path):
    assert "{x} {question}" in encoder(tiny_model, template="Q {question}").text("{x} {question}")


def test_special_tokens_of_a_chat_are_encoded_once(tiny_model: Path):
    prompt = encoder(tiny_model)
    ids = prompt.encode("hi")
    assert prompt.tokenizer.decode(ids) == prompt.text("hi")
    assert ids.count(prompt.tokenizer.eos_token_id) == 1, "the one that the template spells"


def test_a_completion_ends_with_the_end_token(tiny_model: Path):
    prompt = encoder(tiny_model)
    ids = prompt.completion_ids("ab")
    assert prompt.tokenizer.decode(ids[:-1]) == "ab"
    assert ids[-1] == prompt.tokenizer.eos_token_id


def test_generated_ids_become_a_target_that_ends(tiny_model: Path):
    prompt = encoder(tiny_model)
    whole = prompt.completion_ids("4 is it")
    assert prompt.trimmed(whole, "4 is it") == whole
    with_stop = prompt.completion_ids("4 STOP")[:-1]
    assert prompt.trimmed(with_stop, "4 ") == prompt.completion_ids("4 ")
    assert prompt.trimmed([], "") == prompt.completion_ids("")


@pytest.mark.parametrize(
    ("drop", "expected"), [("chat_template", "no chat template: set data.prompt.style=plain"), ("eos_token", "no end")]
)
def test_a_model_that_cannot_be_prompted_is_refused(tiny_model: Path, tmp_path: Path, drop: str, expected: str):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    if drop == "chat_template":
        (folder / "chat_template.jinja").unlink()
        assert encoder(folder, style="plain").text("q") == "q\n"
    else:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        del config["eos_token"]
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=expected) as caught:
        encoder(folder)
    assert str(folder) in str(caught.value)
