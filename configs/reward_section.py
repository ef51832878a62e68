"""The section of a recipe that says how its reward model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.section import Positive, Section


class RewardModelSection(Section):
    """A reward model, trained on the run's own verified samples: see `trainers/reward_model.py` and
    `trainers/process_reward_model.py`. None: `learning_rate`, `epochs`, `batch_size` as in `training`.

    A problem gives a group of at most `samples` solutions. `loss: pairs` is the control arm of single pairs. Without
    `retrain`, the model of the first iteration serves all of them, so that its scores can be compared. `run`: folder of a
    run whose last reward model serves instead of one that is trained here.
    """

    kind: Literal["none", "outcome", "process"] = "none"
    run: str | None = None
    loss: Literal["listwise", "pairs"] = "listwise"
    labels: Literal["soft", "hard"] = "soft"
    aggregation: Literal["minimum", "product", "last"] = "minimum"
    retrain: bool = False
    samples: Annotated[int, Field(ge=2)] = 6
    similarity: Annotated[float, Field(gt=0.0, le=1.0)] | None = 0.9
    truncated_negatives: bool = True
    balance_difficulty: bool = False
    min_groups: Positive = 1
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    learning_rate: Annotated[float, Field(gt=0.0)] | None = None
    epochs: Positive | None = None
    batch_size: Positive | None = None
    alpha: Annotated[float, Field(gt=0.0)] = 0.5
