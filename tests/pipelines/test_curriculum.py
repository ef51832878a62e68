"""Which problems come next: every one once a pass, or more often those that can teach something."""

from __future__ import annotations

import json
from collections import Counter

from pipelines.online.curriculum import Curriculum

PROBLEMS = [f"p{i}" for i in range(10)]


def test_every_problem_comes_once_a_pass_in_another_order() -> None:
    curriculum = Curriculum(PROBLEMS, 1, weighted=False)
    passes = [[p for _ in range(5) for p in curriculum.draw(2)] for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(PROBLEMS)
    assert passes[0] != passes[1]


def test_a_step_never_gets_a_problem_twice() -> None:
    for weighted in (False, True):
        curriculum = Curriculum(PROBLEMS, 1, weighted)
        for _ in range(20):
            first = curriculum.draw(4)
            second = curriculum.draw(4, set(first))
            assert len({*first, *second}) == 8
        assert len(curriculum.draw(99)) == 10


def test_solved_and_hopeless_problems_come_seldom() -> None:
    curriculum = Curriculum(PROBLEMS, 1, weighted=True)
    for _ in range(6):
        curriculum.measure("p0", 8, 8)
        curriculum.measure("p1", 0, 8)
        curriculum.measure("p2", 4, 8)
    counts = Counter(p for _ in range(500) for p in curriculum.draw(3))
    assert counts["p0"] < 0.6 * counts["p2"] and counts["p1"] < 0.6 * counts["p2"]
    assert min(counts.values()) > 0
    curriculum.measure("p0", 0, 8)  # what was learned can be lost: it comes back
    assert curriculum.weight("p0") > 0.5


def test_a_restored_curriculum_goes_on_the_same_way() -> None:
    for weighted in (False, True):
        one, other = (Curriculum(PROBLEMS, 3, weighted) for _ in range(2))
        for i in range(7):
            for p in one.draw(3):
                one.measure(p, i % 3, 4)
        other.restore(json.loads(json.dumps(one.state())))
        assert [one.draw(3) for _ in range(5)] == [other.draw(3) for _ in range(5)]
