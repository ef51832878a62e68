"""A trained reward model as the scorer of the online loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.schema import TrainingSection
from data_gen.prompts import PromptEncoder
from pipelines.stages.reward_score import refuse_not_finite, response_of
from rewards.shaping import Answer, aggregated_logit
from trainers.reward_head import Scorer


class RewardModelScorer:
    """Scores answers by their own token ids. `aggregation` puts the steps of a process model together."""

    def __init__(
        self, folder: Path, settings: TrainingSection, base: Path, dtype: str, encoder: PromptEncoder, aggregation: str
    ) -> None:
        self.scorer, self.encoder, self.aggregation = Scorer(folder, settings, base, dtype), encoder, aggregation
        self.folder = folder

    def __call__(self, questions: Sequence[str], answers: Sequence[Answer]) -> list[float]:
        """An outcome model's raw scores, or the logits of a process model's probabilities."""
        kind = self.scorer.kind
        responses = [response_of(self.encoder, q, a, kind) for q, a in zip(questions, answers, strict=True)]
        values = self.scorer.score(responses)
        for question, scores in zip(questions, values, strict=True):
            refuse_not_finite(scores, self.folder, f"an answer to {question!r}")
        return [aggregated_logit(v, self.aggregation) if kind == "process" else v[0] for v in values]
