"""The balance score and its surface: golden values, and a brute-force reference in exact fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.balance import (
    Point,
    Pool,
    Rule,
    balance_score,
    best,
    caps_of,
    choose,
    n_star_of,
    per_query,
    points,
    surface,
    taken,
)


@dataclass(frozen=True)
class Response:
    query: int
    reward: float
    correct: bool
    text: int


def pool_of(responses: list[Response], queries: int) -> Pool:
    return Pool(
        np.array([r.query for r in responses], dtype=np.int64), np.array([r.reward for r in responses], dtype=float),
        np.array([r.correct for r in responses], dtype=bool), np.array([r.text for r in responses], dtype=np.int64), queries,
    )


def selected(responses: list[Response], query: int, threshold: float, cap: int, rule: Rule) -> list[Response]:
    """The definition, word for word: the first `cap` by reward, those above the threshold, one of each text."""
    mine = sorted((r for r in responses if r.query == query), key=lambda r: -r.reward)
    chosen = [r for r in mine[:cap] if r.reward > threshold]
    if rule.duplicates == "remove":
        chosen = [r for i, r in enumerate(chosen) if r.text not in {x.text for x in chosen[:i]}]
    return chosen


def brute(responses: list[Response], queries: int, rule: Rule) -> dict[tuple[int, int], tuple[Fraction, int, int, int, int]]:
    """The triple loop of the paper's script, in exact fractions: (mean score, n, n', wrong, queries kept)."""
    result = {}
    for i, threshold in enumerate(rule.thresholds):
        for cap in range(1, rule.caps + 1):
            total, n_all, u_all, wrong, kept = Fraction(0), 0, 0, 0, 0
            for q in range(queries):
                chosen = selected(responses, q, threshold, cap, rule)
                n, u = len(chosen), len({r.text for r in chosen if r.correct})
                total += min(Fraction(u, rule.n_star), 1) * Fraction(u, n) if n else 0
                n_all, u_all, kept = n_all + n, u_all + u, kept + (n > 0)
                wrong += sum(not r.correct for r in chosen)
            over = queries if rule.average == "all" else max(1, kept)
            result[i, cap] = (total / over, n_all, u_all, wrong, kept)
    return result


rules = st.builds(
    Rule, n_star=st.integers(1, 8), caps=st.integers(1, 9), average=st.sampled_from(["all", "kept"]),
    thresholds=st.lists(st.integers(-10, 10).map(lambda i: i / 10), min_size=1, max_size=6, unique=True).map(sorted).map(tuple),
    duplicates=st.sampled_from(["remove", "count"]),
)
answers_only = st.booleans()


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Response], int]:
    """Few texts, so that some repeat; a text is right or wrong and has one reward, as with a deterministic scorer."""
    queries = draw(st.integers(1, 5))
    plain = draw(answers_only)
    responses = []
    for q in range(queries):
        kinds = draw(st.lists(st.tuples(st.booleans(), st.integers(-10, 10)), min_size=1, max_size=6))
        for text in draw(st.lists(st.integers(0, len(kinds) - 1), max_size=10)):
            correct, score = kinds[text]
            responses.append(Response(q, float(correct) + (0.0 if plain else score / 10), correct, text))
    return responses, queries


@given(worlds(), rules)
@settings(max_examples=400, deadline=None)
def test_the_one_pass_surface_is_the_brute_force_one(world: tuple[list[Response], int], rule: Rule):
    responses, queries = world
    found = surface(pool_of(responses, queries), rule)
    for (i, cap), (score, n, u, wrong, kept) in brute(responses, queries, rule).items():
        at = (i, cap - 1)
        assert abs(found.score[at] - float(score)) < 1e-11
        assert (found.selected[at], found.unique_correct[at], found.wrong[at], found.kept[at]) == (n, u, wrong, kept)


@given(st.lists(worlds(), min_size=1, max_size=3), rules, st.sampled_from(["all", "target", 1, 3]), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_the_choice_is_the_brute_force_one(
    worlds_: list[tuple[list[Response], int]], rule: Rule, responses: object, target: int
):
    pools = {0.5 + i: pool_of(*w) for i, w in enumerate(worlds_)}
    chosen = choose({t: surface(p, rule) for t, p in pools.items()}, rule, responses, target)  # type: ignore[arg-type]
    candidates = []
    for temperature, world in zip(pools, worlds_, strict=True):
        table = brute(*world, rule)
        for i, threshold in enumerate(rule.thresholds):
            fixed = rule.caps if responses == "all" else min(responses, rule.caps) if isinstance(responses, int) else None
            cap = fixed or next((c for c in range(1, rule.caps + 1) if table[i, c][1] >= target), rule.caps)
            score, n, *_ = table[i, cap]
            candidates.append((score, n >= target, temperature, threshold, cap))
    if responses == "target" and any(c[1] for c in candidates):
        candidates = [c for c in candidates if c[1]]
    top = max(c[0] for c in candidates)
    wanted = min((c for c in candidates if c[0] == top), key=lambda c: (c[2], abs(c[3]), -c[3]))
    assert (chosen.temperature, chosen.threshold, chosen.cap) == wanted[2:]


@given(worlds(), rules, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_what_a_point_takes_is_what_the_surface_counted(world: tuple[list[Response], int], rule: Rule, cap: int):
    responses, queries = world
    pool, cap = pool_of(responses, queries), min(cap, rule.caps)
    s = surface(pool, rule)
    for i, threshold in enumerate(rule.thresholds):
        mask = taken(pool, rule, threshold, cap)
        assert mask.sum() == s.selected[i, cap - 1]
        assert (mask & ~pool.correct).sum() == s.wrong[i, cap - 1]
        for q in range(queries):
            chosen = selected(responses, q, threshold, cap, rule)
            assert mask[pool.query == q].sum() == len(chosen)


@given(worlds(), rules, st.sampled_from(["all", "target", 2]))
@settings(max_examples=200, deadline=None)
def test_the_scores_of_single_queries_average_to_the_surface(world: tuple[list[Response], int], rule: Rule, responses: object):
    pool = pool_of(*world)
    s = surface(pool, rule)
    caps = caps_of(s, responses, 5)  # type: ignore[arg-type]
    scores, kept = per_query(pool, rule, caps)
    for i in range(len(rule.thresholds)):
        assert kept[:, i].sum() == s.kept[i, caps[i] - 1]
        over = pool.queries if rule.average == "all" else max(1, int(kept[:, i].sum()))
        assert scores[:, i].sum() / over == pytest.approx(s.score[i, caps[i] - 1], abs=1e-11)


@pytest.mark.parametrize(
    ("unique", "n", "n_star", "expected"),
    [(8, 8, 6, 1.0), (2, 2, 6, 1 / 3), (16, 64, 6, 0.25), (4, 4, 8, 0.5), (12, 16, 8, 0.75), (0, 5, 6, 0.0), (0, 0, 6, 0.0)],
)
def test_golden_scores(unique: int, n: int, n_star: int, expected: float):
    assert balance_score(unique, n, n_star) == pytest.approx(expected, abs=1e-15)
    if n:
        responses = [Response(0, 1.0 if i < unique else 0.5, i < unique, i) for i in range(n)]
        s = surface(pool_of(responses, 1), Rule(n_star, (0.0,), n))
        assert s.score[0, n - 1] == pytest.approx(expected, abs=1e-12)


def test_n_star_is_the_papers():
    assert n_star_of(67_500, 11_500) == 6
    assert n_star_of(13_500, 2_627) == 6
    assert n_star_of(8, 8) == 1


def test_with_the_answer_alone_a_threshold_below_zero_lets_wrong_answers_in_and_never_wins():
    responses = [Response(0, float(i < 3), i < 3, i) for i in range(8)] + [Response(1, 0.0, False, 0)]
    rule = Rule(6, tuple(round(0.1 * i - 1, 1) for i in range(21)), 8)
    s = surface(pool_of(responses, 2), rule)
    found = {p.threshold: p for p in points(1.0, s, rule, "all", 1)}
    assert found[-0.1].score == pytest.approx(3 / 6 * 3 / 8 / 2) and found[-0.1].wrong == 6
    assert {p.score for t, p in found.items() if 0 <= t < 1} == {3 / 6 / 2}
    assert found[1.0].selected == 0 and found[1.0].score == 0
    chosen = choose({1.0: s}, rule, "all", 1)
    assert (chosen.threshold, chosen.wrong) == (0.0, 0), "of equal thresholds the one nearest to 0"


def test_the_human_solution_is_a_candidate_like_others():
    """The paper's code adds it with reward 1: it comes before wrong answers and counts as correct."""
    responses = [Response(0, 0.3, False, 0), Response(0, 1.0, True, 1)]
    s = surface(pool_of(responses, 1), Rule(1, (0.0,), 2))
    assert s.score[0].tolist() == [1.0, 0.5]


def test_the_mean_over_kept_queries_prefers_few_good_ones_and_the_target_prevents_it():
    """Departures of the code: a high threshold keeps one perfect query; the wanted size rules it out."""
    responses = [Response(0, 1.9, True, i) for i in range(2)]
    responses += [Response(q, 1.0, i == 0, i) for q in range(1, 5) for i in range(2)]
    rules_ = {a: Rule(2, (0.0, 1.5), 2, average=a) for a in ("all", "kept")}
    s = {a: surface(pool_of(responses, 5), r) for a, r in rules_.items()}
    assert choose({1.0: s["all"]}, rules_["all"], "all", 5).threshold == 0.0
    assert choose({1.0: s["kept"]}, rules_["kept"], "all", 5).threshold == 1.5
    target = choose({1.0: s["kept"]}, rules_["kept"], "target", 5)
    assert (target.threshold, target.cap, target.selected, target.reached) == (0.0, 1, 5, True)


def test_an_unreachable_target_takes_what_there_is():
    s = surface(pool_of([Response(0, 1.0, True, 0)], 1), Rule(6, (0.0,), 4))
    point = choose({0.7: s}, Rule(6, (0.0,), 4), "target", 50)
    assert (point.cap, point.selected, point.reached) == (4, 1, False)


def test_ties_go_to_the_lower_temperature_then_nearest_to_no_offset():
    def at(t: float, tau: float, score: float = 0.5) -> Point:
        return Point(t, tau, 4, score, 1, 1, 0, 1, True)

    assert best([at(1.0, 0.0), at(0.5, 0.7)], "all").temperature == 0.5
    assert best([at(0.5, -0.1), at(0.5, 0.1), at(0.5, 0.3)], "all").threshold == 0.1
    assert best([at(0.5, 0.0, 0.5 - 1e-12), at(1.0, 0.0, 0.5)], "all").temperature == 0.5


def test_no_responses_at_all():
    rule = Rule(6, (-0.5, 0.0), 4)
    s = surface(pool_of([], 3), rule)
    assert not s.score.any() and not s.kept.any()
    scores, kept = per_query(pool_of([], 3), rule, np.array([4, 4]))
    assert scores.shape == (3, 2) and not kept.any()
    assert math.isclose(choose({1.0: s}, rule, "all", 1).score, 0.0)
