"""The worker processes: killed, replaced, used from threads; the parent is never blocked."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rewards import VerifierPool, verify, verify_many

PAIRS = [(rf"\boxed{{{k}}}", str(k - k % 3)) for k in range(100)]
SLOW = r"\boxed{\int_0^\infty e^{-x^x} dx}"


def quickest(call: Callable[[], None], times: int = 3) -> float:
    """Seconds of the fastest of some calls: a busy machine slows some of them, what blocks slows them all."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return min(took)


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(1) as pool:
        pool.warm()
        yield pool


def test_a_pool_gives_the_same_verdicts(pool: VerifierPool) -> None:
    alone = [(v.outcome, v.extracted, v.rule) for v in verify_many(PAIRS)]
    assert [(v.outcome, v.extracted, v.rule) for v in pool.verify_many(PAIRS)] == alone
    assert [(v.outcome, v.extracted, v.rule) for v in verify_many(PAIRS, workers=2)] == alone


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        (r"\frac13", r"\int_0^1 x^2 dx"),
        (r"\frac{\pi^2}{6}", r"\sum_{k=1}^\infty \frac{1}{k^2}"),
        ("1", r"\lim_{x \to 0} \frac{\sin x}{x}"),
    ],
)
def test_sympy_decides_what_evaluation_cannot(pool: VerifierPool, gold: str, prediction: str) -> None:
    assert pool.verify(rf"\boxed{{{prediction}}}", gold, timeout=20).outcome == "correct"
    assert pool.verify(rf"\boxed{{{prediction}}}", gold + "+1", timeout=20).outcome == "wrong"


def test_a_worker_out_of_time_is_killed_and_replaced(pool: VerifierPool) -> None:
    replaced = pool.replaced

    def slow() -> None:
        verdict = pool.verify(SLOW, "5", timeout=0.3)
        assert (verdict.outcome, verdict.rule) == ("timeout", "time-limit")

    assert quickest(slow) < 1.5
    assert pool.replaced == replaced + 3
    assert pool.verify(r"\boxed{5}", "5").outcome == "correct"


def test_a_starting_worker_does_not_block_the_caller() -> None:
    took = []
    for _ in range(3):  # the fastest counts, see `quickest`
        with VerifierPool(1) as pool:
            start = time.perf_counter()
            verdict = pool.verify(r"\boxed{5}", "5", within=0.02)
            assert (verdict.outcome, verdict.rule) == ("timeout", "time-limit")
            took.append(time.perf_counter() - start)
            assert pool.verify(r"\boxed{5}", "5", timeout=30, within=30).outcome == "correct"
            assert pool.replaced == 0  # the same worker, which went on starting
    assert min(took) < 0.5


def test_a_busy_worker_does_not_block_the_caller(pool: VerifierPool) -> None:
    worker = pool._slots.get()

    def ask() -> None:
        assert pool.verify(r"\boxed{5}", "5", within=0.1).outcome == "timeout"

    assert quickest(ask) < 0.6
    pool._slots.put(worker)
    assert pool.verify(r"\boxed{5}", "5", within=30).outcome == "correct"


def test_the_limit_holds_for_all_of_it() -> None:
    for limit in (0.3, 1.0):

        def slow(limit: float = limit) -> None:
            assert verify(SLOW, "5", timeout=limit).outcome == "timeout"

        assert quickest(slow) < limit + 0.5


def test_the_pairs_after_a_slow_one_are_judged(pool: VerifierPool) -> None:
    pairs = [(r"\boxed{1}", "1"), (SLOW, "5"), (r"\boxed{2}", "2"), (r"\boxed{3}", "4")]
    outcomes = [verdict.outcome for verdict in pool.verify_many(pairs, timeout=0.3)]
    assert outcomes == ["correct", "timeout", "correct", "wrong"]


def test_a_killed_worker_is_replaced(pool: VerifierPool) -> None:
    pool.warm()
    worker = pool._slots.get()
    assert worker is not None
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    pool._slots.put(worker)
    verdict = pool.verify(r"\boxed{5}", "5")
    assert verdict.outcome == "correct" or verdict.rule == "error:WorkerFailed"
    assert pool.verify(r"\boxed{5}", "5").outcome == "correct"


def test_threads_get_the_same_verdicts() -> None:
    expected = [(v.outcome, v.rule) for v in verify_many(PAIRS)]
    found: dict[int, list[tuple[str, str]]] = {}

    def work(index: int) -> None:
        found[index] = [(v.outcome, v.rule) for v in verify_many(PAIRS)]
        found[index + 100] = [(verify(r"\boxed{\sqrt{8}}", r"2\sqrt{2}").outcome, "")]
        found[index + 200] = [(verify(r"\boxed{\int_0^1 x^2 dx}", r"\frac13", timeout=30).outcome, "")]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[index] == expected for index in range(4))
    assert all(found[index + offset] == [("correct", "")] for index in range(4) for offset in (100, 200))


def test_a_pool_can_be_sent_to_another_process(pool: VerifierPool) -> None:
    copy = pickle.loads(pickle.dumps(pool))
    with copy:
        assert copy.verify(r"\boxed{5}", "5").outcome == "correct"


def test_an_unguarded_script_may_use_a_pool(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from rewards import verify_many\n"
        "print([v.outcome for v in verify_many([('\\\\boxed{1}', '1'), ('\\\\boxed{1}', '2')], workers=2)])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "['correct', 'wrong']"


def test_import_is_light() -> None:
    script = (
        "import sys, rewards; print([m for m in ('sympy', 'mpmath', 'torch', 'numpy') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_pool_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        VerifierPool(0)
