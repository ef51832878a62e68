from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.rows import Problem
from data_gen.decontaminate import Dropped, Words, decontaminate, lcs_length, words_of
from data_gen.problems import load_problems
from data_gen.procedural import generate

STAMPS = (
    "{} bought stamps at the post office. Some of the stamps had a snowflake design, some had a truck "
    "design, and some had a rose design. {} bought {} snowflake stamps. How many stamps were there in all?"
)
ALPHABET = st.lists(st.sampled_from("abcd"), max_size=80)


def problem(identity: str, question: str, **fields: Any) -> Problem:
    values: dict[str, Any] = {"source": "jsonl", "split": "train", "answer": "1", **fields}
    return Problem(id=identity, parents=[], stage="problems", question=question, **values)


def drop(train: str, evaluation: str, **options: Any) -> Dropped | None:
    """What becomes of one training question beside one evaluation question."""
    mine = problem("t", train)
    kept, dropped = decontaminate([mine], [problem("e", evaluation)], **options)
    assert kept == ([] if dropped else [mine])
    return dropped[0] if dropped else None


def test_a_reworded_copy_is_dropped_and_explained():
    found = drop(STAMPS.format("Bella", "Bella", 11), STAMPS.format("Max", "Max", 16))
    assert found is not None
    assert (found.problem, found.evaluation, found.reason) == ("t", "e", "13-gram+lcs")
    words = len(words_of(STAMPS.format("Max", "Max", 16)))
    assert found.ratio == pytest.approx((words - 3) / words)
    assert found.shared == "bought stamps at the post office some of the stamps had a snowflake"


def test_a_shared_phrase_alone_does_not_drop():
    phrase = "a train leaves the station at noon and travels at a steady speed of sixty miles an hour "
    own = "until its driver sees a cow on the rails brakes hard and waits for an hour while it eats"
    other = "toward a town that lies three hundred miles away where nine people hope to meet their aunt"
    assert drop(phrase + own, phrase + other) is None


def test_a_high_ratio_without_a_shared_ngram_does_not_drop():
    letters = "abcdefghijklmnopqrstuvwxyz"
    first = [letters[i % 26] * (1 + i // 26) for i in range(60)]
    second = [w if i % 10 else "other" for i, w in enumerate(first)]
    assert lcs_length(first, second) / 60 == 0.9
    assert drop(" ".join(first), " ".join(second)) is None
    assert drop(" ".join(first), " ".join(second), ngram=9) is not None


def test_the_ratio_must_exceed_the_threshold():
    words = [letter * 2 for letter in "abcdefghijklmnopqrst"]
    other = words[:15] + ["zz"] * 5
    assert drop(" ".join(words), " ".join(other), lcs_ratio=0.75) is None
    assert drop(" ".join(words), " ".join(other), lcs_ratio=0.74) is not None


def test_equality_ignores_case_punctuation_and_space():
    found = drop("A 5-year-old, it\u2019s   said, has $1,000!", "a 5 year old its said has 1000")
    assert found is not None and (found.reason, found.ratio) == ("exact", 1.0)


@pytest.mark.parametrize(
    ("train", "evaluation"), [("x + 1", "x - 1"), ("What is 3.5?", "What is 35?"), ("?", "!")]
)
def test_short_questions_that_differ_in_mathematics_are_kept(train, evaluation):
    assert drop(train, evaluation) is None


@pytest.mark.parametrize("swap", [False, True])
def test_a_short_question_must_occur_word_for_word(swap):
    short, longer = "how many apples does tom have", "now tell me how many apples does tom have"
    different = "now tell me how many pears does tom have"
    pairs = [(short, longer), (short, different)]
    if swap:
        pairs = [(b, a) for a, b in pairs]
    found = drop(*pairs[0])
    assert found is not None and (found.shared, found.ratio) == (short, pytest.approx(6 / 9))
    assert drop(*pairs[1]) is None


def test_short_and_long_questions_in_one_call_keep_their_own_n():
    """The short training question brings 4-grams into the index; long pairs still need 13 words."""
    body = [a + b for a in "abcdef" for b in "vwxyz"]
    other = [w if i % 8 else "qq" for i, w in enumerate(body)]
    train = [problem("short", " ".join(body[1:5])), problem("long", " ".join(body))]
    kept, dropped = decontaminate(train, [problem("e", " ".join(other)), problem("f", " ".join(body[9:13]))])
    assert [p.id for p in kept] == ["short", "long"] and dropped == []


def test_the_closest_evaluation_problem_is_named():
    evaluation = [problem(f"e{i}", STAMPS.format("Max", name, 9)) for i, name in enumerate(("Joe", "Max"))]
    _, dropped = decontaminate([problem("t", STAMPS.format("Max", "Max", 7))], evaluation)
    assert [d.evaluation for d in dropped] == ["e1"]


def test_generated_problems_are_compared_by_core_and_never_by_text():
    core = {"source": "procedural", "core": "boxes:2,3"}
    text = STAMPS.format("Ann", "Ann", 3)
    train = [
        problem("same core", "Tom has two.", **core),
        problem("same text", text, source="procedural", core="boxes:4,5"),
        problem("own file", text),
    ]
    kept, dropped = decontaminate(train, [problem("e", text, **core)])
    assert [p.id for p in kept] == ["same text"]
    assert [(d.problem, d.reason) for d in dropped] == [("same core", "core"), ("own file", "exact")]
    assert dropped[0].shared == "boxes:2,3"
    # Against problems of another source the text counts.
    kept, dropped = decontaminate(train, [problem("e", text)])
    assert [d.problem for d in dropped] == ["same text", "own file"]


def test_generated_splits_are_clean_and_a_split_contaminates_itself():
    train, test = (generate(300, split, 0, (1, 2, 3)) for split in ("train", "test"))
    assert decontaminate(train, test) == (train, [])
    kept, dropped = decontaminate(train, train[:100])
    assert kept == train[100:] and len(dropped) == 100


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("ab .", max_size=12), max_size=8), st.lists(st.text("ab .", max_size=12), max_size=8))
def test_every_problem_is_kept_or_dropped_and_what_was_kept_stays(train_texts, evaluation_texts):
    train = [problem(f"t{i}", t) for i, t in enumerate(train_texts)]
    evaluation = [problem(f"e{i}", t) for i, t in enumerate(evaluation_texts)]
    kept, dropped = decontaminate(train, evaluation, ngram=3)
    assert sorted([p.id for p in kept] + [d.problem for d in dropped]) == [p.id for p in train]
    assert decontaminate(kept, evaluation, ngram=3) == (kept, [])
    assert not {words_of(p.question) for p in kept} & {words_of(p.question) for p in evaluation}


@given(ALPHABET, ALPHABET)
def test_lcs_length_equals_the_textbook_table(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert lcs_length(first, second) == table[-1][-1]


@pytest.mark.parametrize("options", [{"ngram": 0}, {"lcs_ratio": 1.5}, {"lcs_ratio": -0.1}])
def test_wrong_arguments_are_refused(options):
    with pytest.raises(ConfigError, match="decontamination"):
        decontaminate([], [], **options)


def test_speed_and_findings_at_the_size_of_gsm8k():
    """On GSM8K where it is present, otherwise on as many generated texts, of which some repeat: under 5 seconds."""
    if os.environ.get("RATCHET_DATA"):
        train, evaluation = load_problems("gsm8k", "train"), load_problems("gsm8k", "test")
        expected = {"gsm8k/train/20", "gsm8k/train/1314", "gsm8k/train/5162"}
    else:
        made = [problem(p.id, p.question) for p in generate(7473 + 1319, "train", 0, (5, 6))]
        train, evaluation, expected = made[:7473], made[7473:], None
    start = time.perf_counter()
    kept, dropped = decontaminate(train, evaluation)
    assert time.perf_counter() - start < 5
    gone = {d.problem for d in dropped}
    if expected is None:
        looked_at = [p for p in train if p.id in gone] + kept[::400]
        others = [words_of(e.question) for e in evaluation]
        expected = {p.id for p in looked_at if any(repeats(words_of(p.question), other) for other in others)}
        assert 20 < len(expected) < 200
    assert gone == expected
    assert len(kept) + len(dropped) == 7473


def repeats(words: Words, other: Words) -> bool:
    """The rule for one pair of questions."""
    return not windows(words).isdisjoint(windows(other)) and lcs_length(words, other) > 0.6 * max(len(words), len(other))


@cache
def windows(words: Words) -> set[Words]:
    assert len(words) >= 13
    return {words[i : i + 13] for i in range(len(words) - 12)}
