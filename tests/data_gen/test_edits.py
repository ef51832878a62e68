from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_gen.arithmetic import Number, equalities
from data_gen.edit_prompts import few_shot, instruction, parse_edit, prompt_section, rejoined
from data_gen.edits import ERRORS, edited_ids, eligible, plausible, programmatic_edits, splice, written
from data_gen.prompts import PromptEncoder
from data_gen.steps import decode

if TYPE_CHECKING:
    from configs.schema import ErrorType
    from pipelines.models import ResolvedModel

CHAIN = "Step 2: She has 3 + 4 + 5 = 12. So 12 * 2 = 24 apples, that is 24."


def edits(step: str, error: ErrorType, context: str = "", consistent: bool = False) -> set[str]:
    return set(programmatic_edits(step, error, context, 1, consistent))


@pytest.mark.parametrize(
    ("step", "errors"),
    [
        ("#### 24", ["change_value"]),
        ("From 3 boxes take 4.", ["change_value", "change_values"]),
        ("Step 3: He buys apples.", ["misread"]),
        ("So x = y.", ["wrong_substitution", "drop_term", "change_operator", "swap_terms"]),
        ("3 + 4 = 7", ["change_value", "change_values", "wrong_substitution", "drop_term", "change_operator", "swap_terms"]),
        ("1 + 1 = 2. One. Two. Three. Four.", ["misread"]),  # the tail alone counts
    ],
)
def test_eligibility_follows_the_tail(step: str, errors: list[str]) -> None:
    assert eligible(step) == errors


def test_a_value_changes_with_its_mentions_and_nowhere_else() -> None:
    found = edits("With 8 more, 3 + 5 = 8. Now 8 are left, 18 gone.", "change_value")
    assert "With 8 more, 3 + 5 = 9. Now 9 are left, 18 gone." in found
    assert all(e.startswith("With 8 more, 3 + 5 = ") and e.endswith("are left, 18 gone.") for e in found)


def test_a_chain_of_values_is_carried_on() -> None:
    assert "Step 2: She has 3 + 4 + 5 = 13. So 13 * 2 = 26 apples, that is 26." in edits(CHAIN, "change_values")
    for e in edits(CHAIN, "change_values"):
        first, *later = equalities(e)
        assert first.status == "false" and all(x.status == "holds" for x in later)
    assert edits("3 + 4 = 7", "change_values") == set()


def test_a_chain_within_one_line() -> None:
    assert r"$2\times 3+1 = 8+1 = 9$" in edits(r"$2\times 3+1 = 6+1 = 7$", "change_values")


@pytest.mark.parametrize(
    ("step", "error", "expected"),
    [
        ("Then 48 - 30 = 18 are left.", "change_operator", "Then 48 + 30 = 18 are left."),
        ("$5 x 3 = $15", "change_operator", "$5 + 3 = $15"),
        ("5 + 3 = 8 and $6 x 2 = $12", "change_operator", "5 x 3 = 8 and $6 x 2 = $12"),
        (r"$6 \times 2 = 12$", "change_operator", r"$6 \div 2 = 12$"),
        (r"$6+2 = \frac{16}{2}$", "change_operator", r"$6\times 2 = \frac{16}{2}$"),
        ("3 + 4 + 5 = 12", "drop_term", "3 + 5 = 12"),
        ("3 + 4 + 5 = 12", "drop_term", "4 + 5 = 12"),
        ("$3 + $4 + $5 = $12", "drop_term", "$3 + $5 = $12"),
        ("12 - 5 = 7", "swap_terms", "5 - 12 = 7"),
        ("12 - 5 = 7", "swap_terms", "12 - 7 = 5"),
        ("1,200 / 4 = 300", "swap_terms", "300 / 4 = 1,200"),
        ("3 * 4 = 12", "wrong_substitution", "3 * 9 = 12"),
        ("He buys more apples.", "misread", "He buys fewer apples."),
        ("$1,000 * 3 = $3,000", "change_value", "$1,000 * 3 = $3,001"),
        ("17 + 25 = 42", "change_value", "17 + 25 = 32"),  # the carry forgotten
        ("#### 24", "change_value", "#### 42"),
    ],
)
def test_edits_by_position(step: str, error: ErrorType, expected: str) -> None:
    assert expected in edits(step, error, context="There are 9 boxes.")


def test_consistent_edits_come_only_when_asked_for() -> None:
    assert "5 - 3 = 2" not in edits("5 + 3 = 8", "change_operator")
    assert "5 - 3 = 2" in edits("5 + 3 = 8", "change_operator", consistent=True)
    assert "5 / 3 = 1" not in edits("5 + 3 = 8", "change_operator", consistent=True)


def test_calculator_marks_are_left_alone() -> None:
    assert edits("48/2 = <<48/2=24>>24", "change_value") == set()


def test_the_choice_is_seeded() -> None:
    for error in ERRORS:
        assert list(programmatic_edits(CHAIN, error, "7 9", 5)) == list(programmatic_edits(CHAIN, error, "7 9", 5))
    assert list(programmatic_edits(CHAIN, "change_value", "", 5)) != list(programmatic_edits(CHAIN, "change_value", "", 6))


@given(st.integers(0, 10**6), st.integers(0, 3), st.booleans())
def test_plausible_values_differ_and_keep_the_form(whole: int, places: int, grouped: bool) -> None:
    from fractions import Fraction

    value = Fraction(whole, 10**places)
    number = Number(0, 1, value, places, grouped)
    texts = plausible(number, None)
    assert texts and len(set(texts)) == len(texts)
    for text in texts:
        assert Fraction(text.replace(",", "")) != value and "-" not in text
        assert len(text.partition(".")[2]) == places
        assert ("," in text) == (grouped and Fraction(text.replace(",", "")) >= 1000)


def test_written_keeps_decimals_or_refuses() -> None:
    from fractions import Fraction

    price = Number(0, 4, Fraction(5, 2), 2, False)
    assert written(Fraction(7, 2), price) == "3.50"
    assert written(Fraction(1, 3), price) is None
    assert written(Fraction(-1), price) is None


def test_splice_replaces_by_position() -> None:
    assert splice("3 + 3 = 6", [(4, 5, "33"), (8, 9, "7")]) == "3 + 33 = 7"


@cache
def tokenizer_at(path: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


STEPS = ["Then 48 - 30 = 18 rolls are left.\n", "So “é” costs $1,200 / 4 = $300.\n\n", CHAIN, "#### 24", "一共 3 + 4 = 7 🙂"]


@given(step=st.sampled_from(STEPS), error=st.sampled_from(ERRORS), seed=st.integers(0, 99), tiny=st.booleans())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_edited_ids_keep_the_head_and_say_the_edit(
    bundled: ResolvedModel, tiny_model: Any, step: str, error: ErrorType, seed: int, tiny: bool
) -> None:
    tokenizer = tokenizer_at(str(tiny_model if tiny else bundled.path))
    ids = tokenizer(step, add_special_tokens=False)["input_ids"]
    assert edited_ids(tokenizer, ids, step, step) == ids
    for edited in list(programmatic_edits(step, error, "9 8", seed))[:3]:
        out = edited_ids(tokenizer, ids, step, edited)
        assert decode(tokenizer, out) == edited
        # of a canonical original, the edit is canonical too
        assert out == tokenizer(edited, add_special_tokens=False)["input_ids"]


def test_an_odd_tokenisation_of_the_head_is_kept(bundled: ResolvedModel) -> None:
    """A sample's own ids need not be those that encoding gives."""
    tokenizer = tokenizer_at(str(bundled.path))
    odd = [tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "Then"]
    ids = [*odd, *tokenizer(" 3 + 4 = 7 apples", add_special_tokens=False)["input_ids"]]
    out = edited_ids(tokenizer, ids, "Then 3 + 4 = 7 apples", "Then 3 + 4 = 8 apples")
    assert out[: len(odd)] == odd and decode(tokenizer, out) == "Then 3 + 4 = 8 apples"
    assert edited_ids(tokenizer, ids, "Then 3 + 4 = 7 apples", "Then 3 + 4 = 7 apples") == ids


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("3 + 4 = 8\n```", "3 + 4 = 8"),
        ("3 + 4 = 8\n```\n\nStep:\n```\n1 + 1 = 2\n```", "3 + 4 = 8"),
        ("```\n3 + 4 = 8\n```", "3 + 4 = 8"),
        ("a\nb```", "a\nb"),
        ("3 + 4 = 8", None),
        ("\n```", None),
        ("", None),
    ],
)
def test_edits_are_parsed_out_of_the_fence(completion: str, expected: str | None) -> None:
    assert parse_edit(completion) == expected


def test_a_self_edit_takes_the_place_of_the_tail() -> None:
    step = "Step 2: One. Two. Three. Four. 3 + 4 = 7.\n\n"
    start = step.index("Two")
    assert rejoined(step, start, "Two. Three. Four. 3 + 4 = 8.") == "Step 2: One. Two. Three. Four. 3 + 4 = 8.\n\n"
    short = "Step 2: 3 + 4 = 7.\n"
    assert rejoined(short, len("Step 2: "), "Step 2: 3 + 4 = 8.") == "Step 2: 3 + 4 = 8.\n"


@pytest.mark.parametrize("error", ERRORS)
def test_prompts_end_in_an_open_fence_and_show_what_is_needed(error: ErrorType, bundled: ResolvedModel) -> None:
    examples = few_shot(error, " 3 + 4 = 7\n")
    assert examples.endswith("Step:\n```\n3 + 4 = 7\n```\nWith the slip:\n```\n")
    assert "prose" not in examples and examples.count("```") % 2 == 1
    asked = instruction(error, "QUESTION", "BEFORE", "TAIL")
    assert [asked.count(x) for x in ("QUESTION", "BEFORE", "TAIL")] == [1, 1, 1] and asked.count("```") == 6
    from configs.schema import PromptSection

    text = PromptEncoder(bundled.path, prompt_section("instruction", PromptSection())).text(asked)
    assert text.endswith("```\n") and "assistant" in text


@pytest.mark.parametrize("error", [e for e in ERRORS if e != "misread"])
def test_the_worked_examples_are_what_they_should_be(error: ErrorType) -> None:
    """Right before, certified after: by the rules that edits of the model are held to."""
    from data_gen.certify import KEPT, Place, judge_edit, sound
    from data_gen.edit_prompts import _EXAMPLES

    for before, after in _EXAMPLES[error]:
        assert sound(before)
        place = Place("", before.startswith("####"), "72")
        assert judge_edit(before, after, place, 0.5).outcome == KEPT, (before, after)
