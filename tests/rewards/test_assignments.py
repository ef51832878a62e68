"""Answers that give each of several names a word, as "Ann: knight, Bob: knave"."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import verify
from rewards.assignments import closing, read, read_gold
from rewards.verdict import Mode

GOLD = "Ann: knight, Bob: knave"
BOTH: tuple[Mode, Mode] = ("strict", "lenient")
WORDS = {"so", "thus", "hence", "then", "finally", "and", "is", "an", "the", "answer", "answers", "my", "final",
         "that", "therefore"}
name = st.from_regex(r"[A-Z][a-z]{1,8}", fullmatch=True).filter(lambda n: n.lower() not in WORDS)
names = st.lists(name, min_size=2, max_size=8, unique_by=str.lower)


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize(
    "answer",
    [
        "#### Ann: knight, Bob: knave", "#### Bob: knave, Ann: knight", "#### ann: Knight, BOB: KNAVE.",
        r"\boxed{Ann: knight, Bob: knave}", r"\boxed{\text{Bob: knave, Ann: knight}}",
        r"\boxed{\text{Ann: knight},\ \text{Bob: knave}}", r"$\boxed{Ann = knight; Bob = knave}$",
        "#### Ann is a knight and Bob is a knave", "#### Ann: knight, and Bob: knave", "#### **Ann: knight, Bob: knave**",
        "#### Ann: knight, Bob: knave, Ann: knight", r"\boxed{Ann: knight} and \boxed{Bob: knave}",
        "Suppose Ann is a knave.\n#### Ann: knave, Bob: knave\nNo:\n#### Ann: knight, Bob: knave",
    ],
)
def test_right(answer: str, mode: Mode) -> None:
    assert verify(answer, GOLD, mode).outcome == "correct"


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize(
    "answer",
    [
        "#### Ann: knave, Bob: knight", "#### Ann: knave, Bob: knave", "#### Ann: knight", "#### Bob: knave",
        "#### Ann: knight, Bob: knave, Cy: knave", "#### Ann: knight, Bob: knave or knight", "#### knight, knave",
        "#### Ann: knight, Bob: knave, Bob: knight", "#### Anna: knight, Bob: knave", "#### Nan: knight, Bob: knave",
        "#### Ann: ROLE, Bob: ROLE", "#### Ann is not a knave, Bob is a knave", "#### 5", "#### knight: Ann, knave: Bob",
        r"\boxed{Ann: knight}", "#### Ann: knave, Bob: knave\nSo Ann is a knight and Bob is a knave.",
        "#### Ann, Bob: knave", "#### if Ann is a knight, Bob is a knave",
    ],
)
def test_wrong(answer: str, mode: Mode) -> None:
    assert verify(answer, GOLD, mode).outcome == "wrong"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("So Ann is a knight and Bob is a knave.", "correct"),
        ("Suppose Ann is a knave. Then Bob lies. So Ann is a knight and Bob is a knave.", "correct"),
        ("Ann is a knave.\nThat cannot be.\nTherefore, Ann is a knight. Bob is a knave.", "correct"),
        ("**Answer:**\n1. Ann: knight\n2. Bob: knave\n", "correct"),
        ("- Ann: knight\n- Bob: knave", "correct"),
        ("So, thus: Ann is a knight, Bob is a knave.", "correct"),
        ("The answer is: Ann is a knight, Bob is a knave.", "correct"),
        ("Ann is a knight.\nAnn says that Bob is a knave, and so Bob is a knave.\nBob is a knave.", "wrong"),
        ("So Ann is a knave and Bob is a knave.", "wrong"),
        ("Ann: knight, Bob: knave\nAnn: knave, Bob: knight", "wrong"),
        ("Ann is a knight and Bob is a knave, or the other way round.", "no_answer"),
        ("Ann is a knight or Bob is a knave.", "no_answer"),
        ("I do not know.", "no_answer"),
    ],
)
def test_lenient_mode_reads_the_sentences_at_the_end(text: str, outcome: str) -> None:
    assert verify(text, GOLD, "lenient").outcome == outcome
    assert verify(text, GOLD, "strict").outcome == "no_answer"


def test_a_name_that_begins_like_a_leading_word_stays_whole() -> None:
    gold = "Sofia: knight, Theron: knave"
    said = "Sofia is a knight and Theron is a knave."
    for text in (said, f"So {said}", "So Sofia is a knight.\nTheron is a knave.", "Theron: knave, Sofia: knight"):
        assert verify(text, gold, "lenient").outcome == "correct"
    assert verify(said, "Fia: knight, Ron: knave", "lenient").outcome == "wrong"


@settings(max_examples=200, deadline=None)
@given(names, st.data())
def test_right_exactly_when_every_name_has_its_word(people: list[str], data: st.DataObject) -> None:
    roles = st.lists(st.sampled_from(["knight", "knave"]), min_size=len(people), max_size=len(people))
    gold, given_ = data.draw(roles), data.draw(roles)
    order = data.draw(st.permutations(range(len(people))))
    said = data.draw(st.sampled_from(["{}: {}", "{} = {}", "{} is a {}"]))
    joint = data.draw(st.sampled_from([", ", "; ", " and ", ", and "]))
    answer = joint.join(said.format(people[i], given_[i]) for i in order)
    expected = ", ".join(f"{n}: {r}" for n, r in zip(people, gold, strict=True))
    said_so: list[tuple[str, Mode]] = [(f"#### {answer}", mode) for mode in BOTH]
    said_so.append((f"So {answer}.", "lenient"))
    for prediction, mode in said_so:
        assert (verify(prediction, expected, mode).outcome == "correct") == (gold == given_)


@pytest.mark.parametrize(
    "gold", ["3:5", "AB:BC=2:3", "Ann: knight", "Ann: knight, Ann: knave", "x: y, z: w", "Ann: 3, Bob: 4", "Ann: knight, Bob"]
)
def test_other_golds_are_not_of_this_form(gold: str) -> None:
    assert read_gold(gold) is None


def test_the_form_itself() -> None:
    assert read_gold(GOLD) == {"ann": "knight", "bob": "knave"}
    assert read("Ann: knight, Bob: knave and Ann: knight") == {"ann": "knight", "bob": "knave"}
    assert read("Ann: knight, Bob") is None
    assert closing("Ann lies.\nAnn: knave\n\nBob: knight") == "Ann: knave, Bob: knight"
    assert closing("nothing here") is None


@pytest.mark.parametrize(
    "text", ["so " + " " * 50_000 + "x", "Ann is a knight, " * 3000, " \n" * 20_000, "So, " * 10_000, r"\text{" * 9000,
             "Ann: knight" + " " * 50_000 + "and", "A" * 50_000 + ":", "1. " * 20_000],
)  # fmt: skip
def test_hostile_text_takes_no_time(text: str) -> None:
    began = time.process_time()
    for mode in BOTH:
        for prediction in (text, f"#### {text}"):
            assert verify(prediction, GOLD, mode).outcome in ("wrong", "no_answer")
    assert time.process_time() - began < 1.0
