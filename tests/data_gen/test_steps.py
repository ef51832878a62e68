from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_gen.steps import body_length, decode, header_length, split_sentences, split_steps, step_spans, tail_start

if TYPE_CHECKING:
    from pipelines.models import ResolvedModel

PIECES = [
    "Step 1: ", "Step 2: ", "\n", "\n\n", ". ", "3.5", "e.g. ", "$x = 3$", "\\[ a = b \\]", "$$", "$", "#### 24", " ", "x",
    "So ", "the ", "é", "一共", "🙂", "“", "”", "**", "\\begin{align}", "\\end{align}", "\t", "!", "?", "12 + 4 = 16",
]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" \n", [" \n"]),
        ("She sold 48/2 = 24 clips.\nIn all 72.\n\n#### 72", ["She sold 48/2 = 24 clips.\n", "In all 72.\n\n", "#### 72"]),
        ("\n\n3 + 4 = 7\n#### 7\n", ["\n\n3 + 4 = 7\n", "#### 7\n"]),
        ("Let's see.\nStep 1: a. B.\nc\nStep 2: \\boxed{3}", ["Let's see.\n", "Step 1: a. B.\nc\n", "Step 2: \\boxed{3}"]),
        ("**Step 1:** a\n### Step 2. b", ["**Step 1:** a\n", "### Step 2. b"]),
        ("We step 3 times: done", ["We step 3 times: done"]),
        ("It costs 3.5 dollars. Mr. Ray pays, e.g. Twice. So $x. Y$ is 7. Done.",
         ["It costs 3.5 dollars. ", "Mr. Ray pays, e.g. Twice. ", "So $x. Y$ is 7. ", "Done."]),
        ("We get $x = 3.$ Then $y = 4$. Q", ["We get $x = 3.$ ", "Then $y = 4$. ", "Q"]),
        ("So\n\\[\nx\n= 3\n\\]\nand\n\\begin{align*}\na\n\\end{align*}\nend",
         ["So\n", "\\[\nx\n= 3\n\\]\n", "and\n", "\\begin{align*}\na\n\\end{align*}\n", "end"]),
        ("He pays $5 per apple. He buys 3 for $15. Good.", ["He pays $5 per apple. ", "He buys 3 for $15. ", "Good."]),
        ("She has 3 + 4 = 7. #### 7", ["She has 3 + 4 = 7. ", "#### 7"]),
    ],
)  # fmt: skip
def test_steps_are_headers_else_lines_else_sentences(text: str, steps: list[str]) -> None:
    assert split_steps(text) == steps


@given(TEXTS)
@settings(max_examples=400)
def test_steps_and_sentences_joined_are_the_text(text: str) -> None:
    assert "".join(split_steps(text)) == text
    assert "".join(split_sentences(text)) == text
    assert all(split_steps(text))


def test_the_tail_is_the_last_four_sentences_without_the_header() -> None:
    step = "Step 2: One. Two. Three. Four. Five is 3.5 long."
    assert step[tail_start(step) :] == "Two. Three. Four. Five is 3.5 long."
    assert step[: header_length(step)] == "Step 2: "
    assert tail_start("Step 12: a. B") == len("Step 12: ")
    assert tail_start("a. B. C. D") == 0


@cache
def tokenizer_at(path: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def check_spans(tokenizer: Any, ids: list[int]) -> None:
    """Spans tile the body, decode to their texts, and no token that a step owns begins in another one."""
    spans = step_spans(tokenizer, ids)
    length = body_length(tokenizer, ids)
    text = decode(tokenizer, ids[:length])
    assert "".join(s.text for s in spans) == text
    assert [s.index for s in spans] == list(range(len(spans)))
    assert [s.start for s in spans] == [0, *(s.end for s in spans[:-1])][: len(spans)]
    assert not spans or spans[-1].end == length
    for s in spans:
        assert s.end > s.start
        assert decode(tokenizer, ids[s.start : s.end]) == s.text
    # every step of the text begins in the span of its place or inside the one before
    starts = [sum(map(len, split_steps(text)[:k])) for k in range(len(split_steps(text)))]
    begins = [sum(len(x.text) for x in spans[:k]) for k in range(len(spans))]
    assert len(spans) <= max(1, len(starts))
    for b in begins:
        assert any(0 <= b - s <= 12 for s in starts)


@given(text=TEXTS, end=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spans_are_exact_for_the_bundled_tokenizer(bundled: ResolvedModel, text: str, end: bool) -> None:
    tokenizer = tokenizer_at(str(bundled.path))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    check_spans(tokenizer, [*ids, tokenizer.eos_token_id] if end else ids)


@given(text=TEXTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spans_are_exact_when_every_byte_is_a_token(tiny_model: Any, text: str) -> None:
    tokenizer = tokenizer_at(str(tiny_model))
    check_spans(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])


@given(ids=st.lists(st.integers(0, 49_000), max_size=40))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spans_tile_whatever_a_model_may_emit(bundled: ResolvedModel, ids: list[int]) -> None:
    """Also halves of characters and special tokens in the middle."""
    tokenizer = tokenizer_at(str(bundled.path))
    spans = step_spans(tokenizer, ids)
    assert [s.start for s in spans] == [0, *(s.end for s in spans[:-1])][: len(spans)]
    assert sum(s.end - s.start for s in spans) == body_length(tokenizer, ids)
    assert "".join(s.text for s in spans) == decode(tokenizer, ids[: body_length(tokenizer, ids)])


def test_a_token_that_straddles_two_steps_belongs_to_the_earlier_one(bundled: ResolvedModel) -> None:
    tokenizer = tokenizer_at(str(bundled.path))
    ids = tokenizer("One is here. “Two” is there. Three.", add_special_tokens=False)["input_ids"]
    spans = step_spans(tokenizer, ids)
    assert "".join(s.text for s in spans) == "One is here. “Two” is there. Three."
    assert all("\ufffd" not in s.text for s in spans) and len(spans) == 3
