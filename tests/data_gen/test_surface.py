"""No shallow reader tells the sides of edited pairs apart: linear classifiers on surface features stay near chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from configs.rows import Edit, Problem, Sample
from data_gen.attempts import plan_attempts, programmatic_rows
from data_gen.certify import KEPT
from data_gen.edits import ERRORS
from data_gen.problems import load_problems, strip_calculator_marks
from data_gen.procedural import generate
from data_gen.rise import pick_edits, surface

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.models import ResolvedModel

THRESHOLD = 0.6
FOLDS = 5


def kept_edits(tokenizer: Any, problems: Sequence[Problem]) -> list[list[Edit]]:
    """Certified programmatic edits of the human solutions, by problem."""
    groups = []
    for p in problems:
        text = strip_calculator_marks(p.solution or "")
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        sample = Sample(
            id=f"{p.id}#0", parents=[p.id], stage="sample", problem=p.id, prompt_ids=[], token_ids=ids, text="", logprobs=[],
            logprob=0.0, finish_reason="stop", temperature=1.0, top_p=1.0, seed=0, model="m",
        )
        attempts, _ = plan_attempts(tokenizer, p, sample, ids, errors=ERRORS, limit=8, certify="arithmetic", seed=1)
        kept = [e for a in attempts for e in programmatic_rows(tokenizer, a, 0.5, "arithmetic") if e.outcome == KEPT]
        groups.append(kept)
    return [g for g in groups if g]


def features(edits: Sequence[Edit]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Surface features of chosen and rejected sides, each [edits, features], the end token's count included."""
    sides = [
        [{**surface(e.original, e.end - e.start), "end": e.last} for e in edits],
        [{**surface(e.edited, len(e.token_ids)), "end": e.last} for e in edits],
    ]
    names = sorted({k for side in sides for f in side for k in f})
    chosen, rejected = (np.array([[float(f.get(k, 0)) for k in names] for f in side]) for side in sides)
    return chosen, rejected


def accuracy(x: NDArray[np.float64], y: NDArray[np.float64], problem: NDArray[np.int64], intercept: bool) -> float:
    """Cross-validated accuracy of a logistic regression of y (0 or 1); the folds hold whole problems."""
    right = 0
    for fold in range(FOLDS):
        test = problem % FOLDS == fold
        mean, spread = x[~test].mean(0) * intercept, x[~test].std(0) + 1e-9
        train_x, test_x = (x[~test] - mean) / spread, (x[test] - mean) / spread
        if intercept:
            train_x, test_x = (np.hstack([m, np.ones((len(m), 1))]) for m in (train_x, test_x))
        w = np.zeros(train_x.shape[1])
        for _ in range(25):  # Newton, with a little weight decay
            p = 1 / (1 + np.exp(-train_x @ w))
            gradient = train_x.T @ (p - y[~test]) + 1.0 * w
            hessian = (train_x * (p * (1 - p))[:, None]).T @ train_x + 1.0 * np.eye(len(w))
            w -= np.linalg.solve(hessian, gradient)
        score = test_x @ w
        right += int(((score > 0) == (y[test] > 0.5)).sum())
    return right / len(y)


def separability(edits: Sequence[Edit]) -> tuple[float, float]:
    """Accuracies on paired differences of random sign, and on single sides."""
    chosen, rejected = features(edits)
    names = {p: i for i, p in enumerate(dict.fromkeys(e.problem for e in edits))}
    problem = np.array([names[e.problem] for e in edits])
    flip = np.random.default_rng(0).random(len(edits)) < 0.5
    paired = np.where(flip[:, None], rejected - chosen, chosen - rejected)
    one = accuracy(paired, (~flip).astype(float), problem, intercept=False)
    both = accuracy(
        np.vstack([chosen, rejected]), np.repeat([1.0, 0.0], len(edits)), np.concatenate([problem, problem]), intercept=True
    )
    return one, both


@pytest.mark.parametrize("source", ["procedural", "gsm8k"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_linear_classifier_on_surface_features_stays_near_chance(
    source: str, count: int, bundled: ResolvedModel
) -> None:
    problems = generate(300, "train", 5, (2, 3, 4), 20) if source == "procedural" else gsm8k(300)
    groups = kept_edits(tokenizer_of(bundled.path), problems)
    edits = [e for pick in pick_edits(groups, count, seed=0) for e in pick]
    assert len(edits) > 240 * count * 0.8
    paired, single = separability(edits)
    assert paired <= THRESHOLD and single <= THRESHOLD, (paired, single)


def test_the_classifier_sees_what_an_unbalanced_choice_gives_away(bundled: ResolvedModel) -> None:
    """The same test on the same edits fails when always the shortest one is taken: it can see something."""
    groups = kept_edits(tokenizer_of(bundled.path), generate(300, "train", 5, (2, 3, 4), 20))
    shortest = [min(g, key=lambda e: len(e.edited) - len(e.original)) for g in groups]
    assert separability(shortest)[0] > THRESHOLD


def tokenizer_of(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def gsm8k(count: int) -> list[Problem]:
    import os

    if "RATCHET_DATA" not in os.environ:
        pytest.skip("RATCHET_DATA is not set")
    return load_problems("gsm8k", "train", limit=count)
