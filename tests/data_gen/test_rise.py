from __future__ import annotations

from configs.rows import Edit, Problem, Sample
from data_gen.rise import choose, difference, edited_pair, full_pair, pick_edits

PROBLEM = Problem(id="p", parents=[], stage="problems", source="s", split="train", question="How many?", answer="7")


def sample(index: int, text: str = "3 + 4 = 7\n#### 7", finish: str = "stop") -> Sample:
    return Sample(
        id=f"p#{index}", parents=["p"], stage="sample", problem="p", prompt_ids=[1], token_ids=[5, 6, 2], text=text,
        logprobs=[0.0] * 3, logprob=0.0, finish_reason=finish, temperature=1.0, top_p=1.0, seed=0, model="m",
    )


def edit(name: str, step: int = 0, error: str = "change_value", original: str = "3 + 4 = 7", edited: str = "3 + 4 = 8",
         last: bool = False) -> Edit:  # fmt: skip
    return Edit(
        id=name, parents=["p#0"], stage="edit", problem="p", sample="p#0", step=step, start=0, end=2, last=last, error=error,
        editor="programmatic", original=original, edited=edited, token_ids=[5, 9], outcome="kept", certificate="c", distance=1,
    )


def test_a_pair_needs_a_right_and_a_wrong_sample() -> None:
    right, wrong = sample(0), sample(1, "#### 8")
    assert choose(PROBLEM, [right, wrong], {"p#0": "correct", "p#1": "wrong"}, 1).chosen == right
    assert choose(PROBLEM, [right, wrong], {"p#0": "correct", "p#1": "wrong"}, 1).rejected == wrong
    assert choose(PROBLEM, [right], {"p#0": "correct"}, 1).dropped == "no_wrong"
    assert choose(PROBLEM, [right], {"p#0": "correct"}, 1, without_wrong=True).chosen == right
    assert choose(PROBLEM, [wrong], {"p#1": "wrong"}, 1).dropped == "no_correct"
    unscored = {"p#0": "correct", "p#1": "timeout"}
    assert choose(PROBLEM, [right, wrong], unscored, 1).dropped == "no_wrong"


def test_truncated_samples_are_never_chosen_and_rejected_only_on_request() -> None:
    right, cut, cut_right = sample(0), sample(1, "3 +", "length"), sample(2, finish="length")
    outcomes = {"p#0": "correct", "p#1": "no_answer", "p#2": "correct"}
    assert choose(PROBLEM, [right, cut, cut_right], outcomes, 1).dropped == "no_wrong"
    assert choose(PROBLEM, [right, cut, cut_right], outcomes, 1, truncated_negatives=True).rejected == cut
    assert choose(PROBLEM, [cut, cut_right], outcomes, 1, truncated_negatives=True).dropped == "no_correct"


def test_solutions_that_correct_themselves_are_not_chosen_unless_the_question_speaks_of_mistakes() -> None:
    back = sample(0, "3 + 4 = 8. Wait, that's wrong. 3 + 4 = 7 #### 7")
    wrong = sample(1, "#### 8")
    outcomes = {"p#0": "correct", "p#1": "wrong"}
    assert choose(PROBLEM, [back, wrong], outcomes, 1).dropped == "corrects_itself"
    asked = Problem(id="p", parents=[], stage="problems", source="s", split="train", question="Which is wrong?", answer="7")
    assert choose(asked, [back, wrong], outcomes, 1).chosen == back


def test_the_choice_is_random_but_seeded() -> None:
    samples = [sample(i, f"#### {7 if i < 5 else 8}") for i in range(10)]
    outcomes = {s.id: "correct" if i < 5 else "wrong" for i, s in enumerate(samples)}
    picks = {(c.chosen.id, c.rejected.id) for seed in range(40)
             if (c := choose(PROBLEM, samples, outcomes, seed)).chosen and c.rejected}  # fmt: skip
    assert len(picks) > 10
    assert choose(PROBLEM, samples, outcomes, 3) == choose(PROBLEM, samples, outcomes, 3)


def test_ends_stand_on_both_sides_of_full_pairs_and_last_steps() -> None:
    choice = choose(PROBLEM, [sample(0), sample(1)], {"p#0": "correct", "p#1": "wrong"}, 1)
    full = full_pair(PROBLEM, choice, [1], [5, 6, 2], [5, 7, 8, 2], end=2)
    assert (full.chosen_eos, full.rejected_eos, full.first_difference) == (True, True, 1)
    assert full.parents == ["p#0", "p#1", "p#0/verdict", "p#1/verdict"]
    middle = edited_pair(edit("e"), [1], [5, 6, 7, 2], end=2)
    assert (middle.chosen_ids, middle.rejected_ids, middle.first_difference) == ([5, 6], [5, 9], 1)
    assert not middle.chosen_eos and not middle.rejected_eos and middle.parents == ["p#0", "e"]
    last = edited_pair(edit("e", last=True), [1], [5, 6, 2], end=2)
    assert (last.chosen_ids, last.rejected_ids) == ([5, 6, 2], [5, 9, 2]) and last.chosen_eos and last.rejected_eos


def test_picks_are_at_most_the_count_and_of_different_steps_first() -> None:
    group = [edit(f"e{i}", step=i // 3) for i in range(9)]
    for seed in range(10):
        picked = pick_edits([group], 3, seed)[0]
        assert len(picked) == 3 and {e.step for e in picked} == {0, 1, 2}
    assert len(pick_edits([group[:3]], 2, 0)[0]) == 2
    assert pick_edits([], 1, 0) == []


def test_lengths_are_balanced_where_the_candidates_allow_it() -> None:
    """Of an edit that lengthens and one that shortens, every problem takes one: the sums cancel."""
    groups = [
        [edit(f"{i}+", edited="3 + 4 = 17"), edit(f"{i}-", error="drop_term", edited="3 + 4 =")] for i in range(60)
    ]
    for seed in range(5):
        picked = [e for pick in pick_edits(groups, 1, seed) for e in pick]
        assert abs(sum(difference(e).get("characters", 0) for e in picked)) <= 6


def test_what_cannot_be_balanced_is_left_out_up_to_a_tenth() -> None:
    groups = [[edit(f"{i}", edited="3 + 4 = 8" if i else "3 + 4 = 17 pens")] for i in range(40)]
    picked = pick_edits(groups, 1, 0)
    assert sum(map(len, picked)) >= 36
