"""Verdicts inside a Ray actor: the same as in the main thread, sympy's worker and hostile texts included."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rewards import verify, warm

ray = pytest.importorskip("ray")

CASES = [
    (r"so \boxed{\frac{6}{8}}", r"\frac{3}{4}"),
    (r"so \boxed{5}", "6"),
    (r"\boxed{(x-1)(x+1)}", "x^2-1"),
    (r"\boxed{\int_0^1 x^2 dx}", r"\frac13"),  # decided by sympy in the worker process
    (r"\boxed{\int_0^1 x^2 dx}", r"\frac12"),
    (r"\boxed{5^{5^{5^{5^{5}}}}}", "5"),
    (r"\boxed{" * 20_000, "5"),
    (r"\boxed{__import__('os').system('touch hacked')}", "0"),
    ("no answer", "5"),
    (r"\boxed{1}", ""),
]


class Judge:
    """Runs in an actor, whose calls come in a thread that is not the main one of its process."""

    def __init__(self) -> None:
        warm()

    def verdicts(self, cases: list[tuple[str, str]]) -> list[tuple[str, str | None, str, float]]:
        found = []
        for prediction, gold in cases:
            start = time.perf_counter()
            verdict = verify(prediction, gold)
            found.append((verdict.outcome, verdict.extracted, verdict.rule, time.perf_counter() - start))
        return found


@pytest.fixture(scope="module")
def cluster():
    root = str(Path(__file__).parents[2])
    if ray.is_initialized():
        yield
        return
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    yield
    ray.shutdown()


@pytest.mark.parametrize("threads", [1, 4])
def test_an_actor_gives_the_verdicts_of_the_main_thread(cluster: None, threads: int) -> None:
    warm()
    expected = [verify(*case) for case in CASES]
    assert [v.outcome for v in expected].count("correct") == 3
    actor = ray.remote(Judge).options(max_concurrency=threads).remote()
    found = ray.get(actor.verdicts.remote(CASES), timeout=120)
    assert [row[:3] for row in found] == [(v.outcome, v.extracted, v.rule) for v in expected]
    assert max(row[3] for row in found) < 2  # 1 on a machine that is not shared


def test_a_slow_answer_does_not_block_an_actor(cluster: None) -> None:
    actor = ray.remote(Judge).remote()
    slow = (r"\boxed{\int_0^\infty e^{-x^x} dx}", "5")
    (outcome, _, rule, seconds), after = ray.get(actor.verdicts.remote([slow, (r"\boxed{5}", "5")]), timeout=120)
    assert (outcome, rule) == ("timeout", "time-limit")
    assert seconds < 2
    assert after[0] == "correct"
