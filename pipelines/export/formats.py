"""Prompts and solutions in the two formats of TRL: conversational (messages) and standard (text).

Both are encoded again by whoever trains on them. `ids` does that as TRL 1.16 does, so that an export can count the rows
that come back as the token ids of the run; see `trl.data_utils` and the trainers' `tokenize_fn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from configs.errors import ConfigError
from data_gen.prompts import PromptEncoder

Style = Literal["conversational", "standard"]
Part = list[dict[str, str]] | str  # messages, or text


class Form:
    """One style for the prompts of one run. In conversational rows the prefill belongs to the answer, not to the prompt."""

    def __init__(self, encoder: PromptEncoder, style: Literal["auto", "conversational", "standard"]) -> None:
        chat = encoder.section.style == "chat"
        if style == "conversational" and not chat:
            raise ConfigError("--style conversational: the run's prompts are plain text (data.prompt.style), not messages")
        self.encoder, self.tokenizer = encoder, encoder.tokenizer
        self.style: Style = ("conversational" if chat else "standard") if style == "auto" else style
        bos = self.tokenizer.bos_token
        doubled = chat and bos and self.tokenizer("")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        self._added: str = bos if doubled else ""  # text that the tokenizer will put in front once more

    def prompt(self, question: str, steps: str = "") -> Part:
        """A question, and in standard rows the steps after it."""
        if self.style == "conversational":
            return self.encoder.messages(question)
        return self.encoder.text(question).removeprefix(self._added) + steps

    def completion(self, text: str, steps: str = "") -> Part:
        """An answer, in conversational rows together with the steps before it."""
        if self.style == "conversational":
            return [{"role": "assistant", "content": self.encoder.section.prefill + steps + text}]
        return text

    def ids(self, prompt: Part, completion: Part) -> list[int]:
        """Token ids of prompt and completion together as a trainer makes them, end token included."""
        if isinstance(prompt, str) or isinstance(completion, str):
            end = self.tokenizer.eos_token
            text = f"{prompt}{completion}"
            return self.tokenizer(text if text.endswith(end) else text + end)["input_ids"]
        text = self.tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
        return self.tokenizer(str(text), add_special_tokens=False)["input_ids"]

    def keeps(self, prompt: Part, completion: Part, ids: Sequence[int]) -> bool:
        """Whether these token ids of the run are what a trainer will see, but for what it adds at the end."""
        return self.ids(prompt, completion)[: len(ids)] == list(ids)


def without_empty(rows: list[dict[str, Any]], optional: Sequence[str]) -> list[dict[str, Any]]:
    """The rows without those optional columns that none of them fills."""
    dropped = [name for name in optional if all(r[name] is None for r in rows)]
    return [{k: v for k, v in r.items() if k not in dropped} for r in rows]
