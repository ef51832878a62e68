"""The sections of scheme `bstar` and of the metrics of exploration."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.section import Positive, Section


class BalanceSection(Section):
    """How scheme `bstar` chooses temperature and reward threshold (see `pipelines/balance.py`), and who scores samples.

    The reward of a sample is 1 if it is correct, else 0, plus the scorer's value divided by `score_scale`. The sweep draws
    `n` samples of each of `queries` training problems at every temperature. `n_star: auto` is the paper's
    ceil(target / problems). `target`: samples wanted from all problems; null: n_star for each.
    """

    temperatures: Annotated[list[Annotated[float, Field(gt=0.0, le=5.0)]], Field(min_length=1)] = [
        0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2
    ]  # fmt: skip
    thresholds: Annotated[list[float], Field(min_length=1)] = [round(0.1 * i - 1, 1) for i in range(21)]
    queries: Positive = 600
    n: Positive | None = None
    n_star: Positive | Literal["auto"] = 6
    target: Positive | None = None
    responses_per_query: Positive | Literal["all", "target"] = "all"
    average: Literal["all", "kept"] = "all"
    duplicates: Literal["remove", "count"] = "remove"
    human_candidates: bool = False
    rechoose_threshold: bool = False
    rounds: Annotated[list[Annotated[float, Field(gt=0.0, le=1.0)]], Field(min_length=1)] = [0.125, 0.25, 0.5, 1.0]
    risk: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    budget: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    scorer: Literal["none", "confidence", "reward_model"] = "none"
    score_scale: Annotated[float, Field(gt=0.0)] = 1.0
    score_clamp: bool = True

    @model_validator(mode="after")
    def _grids_ascend(self) -> BalanceSection:
        for name, values in (("temperatures", self.temperatures), ("thresholds", self.thresholds), ("rounds", self.rounds)):
            if any(b <= a for a, b in itertools.pairwise(values)):
                raise ValueError(f"`{name}` must ascend: {values}")
        if self.rounds[-1] != 1.0:
            raise ValueError(f"the last of `rounds` must be 1, all dev problems: {self.rounds}")
        if self.n_star == "auto" and self.target is None:
            raise ValueError("`n_star: auto` is ceil(target / problems): set `target`")
        return self


class ExplorationSection(Section):
    """Metrics of exploration and exploitation (see `pipelines/exploration.py`) of each iteration's samples, and of each
    benchmark's where `evaluation.samples` > 0: Pass@K, Pass@K-S and Reward@K-S for every K up to the samples there are."""

    measure: bool = False
    k: list[Positive] = [1, 4, 8, 16, 32, 64]
    s: list[Positive] = [1, 4]
    examples: Annotated[int, Field(ge=0)] = 20
