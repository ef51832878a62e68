from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.rows import Problem
from data_gen.decontaminate import words_of
from data_gen.overlap import Overlap, Trained, overlaps

QUESTION = "Weng earns 12 dollars an hour for babysitting. Yesterday she did 50 minutes of babysitting and earned how much?"
SOLUTION = "She earns 12 / 60 = 0.2 dollars a minute. Working 50 minutes she earned 0.2 * 50 = 10 dollars in all."


def problem(name: str, question: str, solution: str | None = None, core: str | None = None) -> Problem:
    source = "procedural" if core else "gsm8k"
    return Problem(id=name, parents=[], stage="problems", source=source, split="test", question=question, answer="1",
                   solution=solution, core=core)  # fmt: skip


def test_a_question_and_a_solution_that_were_trained_on_are_found_inside_longer_texts():
    rows = [Trained("r1", f"system: be kind. user: {QUESTION} assistant: 10"), Trained("r2", f"Some words.\n{SOLUTION}")]
    found = overlaps(rows, [problem("t", QUESTION, SOLUTION)])
    assert [(o.part, o.row, o.share, o.words) for o in found] == [
        ("solution", "r2", 1.0, len(words_of(SOLUTION))), ("question", "r1", 1.0, len(words_of(QUESTION))),
    ]  # fmt: skip
    assert found[1].shared == " ".join(words_of(QUESTION))


def test_the_share_counts_the_words_in_shared_n_grams_of_one_training_text():
    words = [f"w{chr(97 + i)}" for i in range(20)]
    text = [*words[:6], "x", *words[7:13], "y", *words[14:20]]
    evaluation = [problem("t", " ".join(words))]
    assert overlaps([Trained("r", " ".join(text))], evaluation, ngram=7) == []
    (found,) = overlaps([Trained("r", " ".join(text))], evaluation, ngram=5)
    assert found == Overlap("t", "question", "r", 18 / 20, 20, "wa wb wc wd we wf")
    apart = [Trained("a", " ".join(words[:10])), Trained("b", " ".join(words[8:20]))]
    (found,) = overlaps(apart, evaluation, ngram=5)
    assert (found.row, found.share) == ("b", 12 / 20)


def test_order_numbers_and_signs_matter_but_case_and_punctuation_do_not():
    evaluation = [problem("t", QUESTION)]
    other = QUESTION.replace("12", "13").replace("50", "55")
    assert overlaps([Trained("r", QUESTION.upper().replace(".", " ;"))], evaluation)[0].share == 1.0
    assert overlaps([Trained("r", other)], evaluation) == []
    assert overlaps([Trained("r", " ".join(reversed(QUESTION.split())))], evaluation) == []


def test_a_short_question_counts_as_a_whole_and_a_short_solution_not_at_all():
    evaluation = [problem("t", "What is 2 + 3?", "2 + 3 = 5")]
    (found,) = overlaps([Trained("r", "Tell me: what is 2 + 3? 2 + 3 = 5")], evaluation)
    assert (found.part, found.share, found.words) == ("question", 1.0, 5)
    assert overlaps([Trained("r", "What is 2 + 4? What is 2 - 3?")], evaluation) == []


def test_a_question_of_signs_alone_counts_where_it_stands_literally():
    texts = {"signs": "\U0001f9ee = ?", "marks": "\u2211!", "word": "x = ?", "none": " "}
    evaluation = [problem(name, text) for name, text in texts.items()]
    assert overlaps([Trained("r", "2 + 3 = 5, and so 5 - 3 = 2?")], evaluation) == []
    found = overlaps([Trained("r", "2 = 2"), Trained("s", "user: \U0001f9ee = ?\nassistant: 3")], evaluation)
    assert [(o.problem, o.row, o.share, o.shared) for o in found] == [("signs", "s", 1.0, "\U0001f9ee = ?")]


def test_generated_problems_are_compared_by_core():
    wording = "Omar has 8 pens and buys 5 more at the shop on the corner, how many has he now?"
    evaluation = [problem("t", wording, core="8+5")]
    assert overlaps([Trained("r", wording, core="8+6")], evaluation) == []
    (found,) = overlaps([Trained("r", "other words", core="8+5")], evaluation)
    assert (found.row, found.share, found.shared) == ("r", 1.0, "8+5")
    assert overlaps([Trained("r", wording)], evaluation)[0].share == 1.0, "a text of another source may be a copy"


def test_worst_first_and_nothing_without_texts():
    evaluation = [problem("a", QUESTION), problem("b", SOLUTION)]
    half = " ".join(QUESTION.split()[:14])
    found = overlaps([Trained("r", half), Trained("s", SOLUTION)], evaluation)
    assert [o.problem for o in found] == ["b", "a"]
    assert overlaps([], evaluation) == []
    with pytest.raises(ConfigError, match="--ngram"):
        overlaps([], evaluation, ngram=0)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=25), st.lists(st.sampled_from("abc"), min_size=1, max_size=25),
       st.integers(1, 5))  # fmt: skip
def test_the_share_is_that_of_a_direct_count(question: list[str], text: list[str], n: int):
    """Every window of the question that stands anywhere in the text."""
    q, t = ([f"w{x}" for x in words] for words in (question, text))
    length = min(n, len(q))
    covered: set[int] = set()
    for i in range(len(q) - length + 1):
        if any(q[i : i + length] == t[j : j + length] for j in range(len(t) - length + 1)):
            covered |= set(range(i, i + length))
    found = overlaps([Trained("r", " ".join(t))], [problem("t", " ".join(q))], ngram=n)
    assert [o.share for o in found] == ([len(covered) / len(q)] if covered else [])
