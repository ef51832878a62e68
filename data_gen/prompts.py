"""From a question to prompt ids: the one place where text becomes a prompt."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.schema import PromptSection

Shot = tuple[str, str]


@functools.lru_cache(maxsize=4)
def _tokenizer(model: Path) -> Any:
    """The tokenizer in a model's folder: many stages of a run ask for the same one, and loading it takes a while."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model, trust_remote_code=False)


class PromptEncoder:
    """Encodes questions for one model. `tokenizer` is the model's own, from its folder."""

    def __init__(self, model: Path, section: PromptSection) -> None:
        self.tokenizer = _tokenizer(model)
        self.section = section
        if section.style == "chat" and not self.tokenizer.chat_template:
            raise InputError(f"{model} has no chat template: set data.prompt.style=plain")
        if self.tokenizer.eos_token_id is None:
            raise InputError(f"the tokenizer of {model} has no end token")

    def text(self, question: str, shots: Sequence[Shot] = ()) -> str:
        """The prompt as text, special tokens spelled out."""
        section = self.section
        ask = [(section.template.replace("{question}", q), answer) for q, answer in shots]
        last = section.template.replace("{question}", question)
        if section.style == "chat":
            messages = [{"role": "system", "content": section.system}] if section.system is not None else []
            for q, answer in ask:
                messages += [{"role": "user", "content": q}, {"role": "assistant", "content": answer}]
            messages.append({"role": "user", "content": last})
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        else:
            parts = [section.system] if section.system is not None else []
            parts += [f"{q}\n{answer}" for q, answer in ask]
            text = "\n\n".join([*parts, last]) + "\n"
        return str(text) + section.prefill

    def encode(self, question: str, shots: Sequence[Shot] = ()) -> list[int]:
        """The prompt's token ids. A chat template spells its special tokens; a plain prompt gets the model's own."""
        special = self.section.style == "plain"
        return self.tokenizer(self.text(question, shots), add_special_tokens=special)["input_ids"]

    def completion_ids(self, text: str) -> list[int]:
        """Ids of a solution written by someone else, end token included."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]

    def trimmed(self, token_ids: Sequence[int], text: str) -> list[int]:
        """Generated ids as a training target: cut where `text` ends (before a stop string), end token last."""
        end = self.tokenizer.eos_token_id
        if token_ids and token_ids[-1] == end:
            return list(token_ids)
        ids = list(token_ids)
        while ids and len(self.tokenizer.decode(ids, skip_special_tokens=True)) > len(text):
            ids.pop()
        return [*ids, end]
