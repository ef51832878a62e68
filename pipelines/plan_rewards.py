"""The stages of a run's reward model: groups, training, scores, and how it does on samples held out from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import ConfigError, InputError
from pipelines import plan_pairs
from pipelines.files import read_json
from pipelines.home import store_of
from pipelines.stage import Stage

if TYPE_CHECKING:
    from pipelines.plan import Builder

_FORWARD = {"adapter", "lora", "micro_batch_tokens", "attention", "prefix_sharing"}  # what scores depend on


class RewardModel:
    """Lays out the stages. `stage` is the training of the model in use, None before the first.

    A phase takes over the reward model of the phase `before`, with the samples it has learned from, if it wants one of the
    same kind, or the same other run's.
    """

    def __init__(self, b: Builder, before: RewardModel | None = None) -> None:
        self.b, self.section = b, b.recipe.reward_model
        wanted = (self.section.kind, self.section.run)
        kept = before if before is not None and (before.section.kind, before.section.run) == wanted else None
        self.stage: Stage | None = kept.stage if kept else None
        self._given: dict[str, Any] | None = kept._given if kept else None  # training settings of another run's model
        self._data: dict[str, Stage] = dict(kept._data) if kept else {}  # samples0, verdicts0, samples1, ...
        self._previous: dict[str, Stage] = dict(kept._previous) if kept else {}  # the last evaluation on each set
        if self.section.run is not None and kept is None:
            self.stage, self._given = trained_elsewhere(Path(self.section.run), self.section.kind, b.model.fingerprint)

    @property
    def due(self) -> bool:
        """Whether the next iteration trains one."""
        return self.section.kind != "none" and (self.stage is None or self.section.retrain)

    def learn(self, label: str, problems: Stage, samples: Stage, verdicts: Stage, start: Stage | None) -> None:
        """Train on these samples and those of former calls, where a reward model is due; `start` is the policy to begin
        from. A process model learns from the values of steps, which are rolled out for it."""
        if not self.due:
            return
        number = sum(name.startswith("samples") for name in self._data)
        new = {"samples": samples, "verdicts": verdicts}
        if self.section.kind == "process":
            new["steps"] = plan_pairs.values(self.b, label, problems, samples, verdicts, self.b.recipe.rollouts)[1]
        self._data |= {f"{name}{number}": stage for name, stage in new.items()}
        self.stage = self._train(label, problems, start)

    def judge(self, label: str, problems: Stage, samples: Stage, verdicts: Stage) -> Stage | None:
        """Score an iteration's samples, and evaluate the model on those of the problems held out from it. The stage of
        the scores, or None where the recipe has no reward model."""
        if self.stage is None:
            return None
        scores = self.score(f"{label}/reward_score", problems, samples)
        fraction = self.section.validation_fraction
        if fraction and self._given is None:  # what another run held out is not known here
            self._evaluate("train", f"{label}/reward_eval", problems, samples, verdicts, scores, fraction)
        return scores

    def evaluate(self, label: str, benchmark: str, problems: Stage, samples: Stage, verdicts: Stage) -> None:
        """RM@k and the rest on sampled answers to a benchmark; `benchmark` names the same samples of all models."""
        if self.stage is not None:
            scores = self.score(f"{label}/reward_score", problems, samples)
            self._evaluate(benchmark, f"{label}/reward_eval", problems, samples, verdicts, scores, None)

    def _train(self, label: str, problems: Stage, start: Stage | None) -> Stage:
        b, section = self.b, self.section
        names = {
            "kind", "samples", "similarity", "truncated_negatives", "balance_difficulty", "min_groups", "validation_fraction",
        }
        config: dict[str, Any] = {
            **section.model_dump(include=names), "prompt": b.recipe.data.prompt.model_dump(),
            "model": b.model.fingerprint, "seed": b.recipe.seed,
        }
        paths = {"base": str(b.model.path)}
        groups = b.add(Stage("reward_data", f"{label}/reward_data", config, {"problems": problems, **self._data}, paths))
        config = {
            "training": self._training(), "reward_model": section.model_dump(include={"kind", "loss", "labels"}),
            "model": b.model.fingerprint, "dtype": b.recipe.model.dtype, "seed": b.recipe.seed,
        }
        inputs = {"groups": groups} | ({"model": start} if start else {})
        return b.add(Stage("reward_train", f"{label}/reward_train", config, inputs, paths, b.training_hints()))

    def _training(self) -> dict[str, Any]:
        """The `training` section with the reward model's own settings in place of the policy's."""
        own = {k: v for k in ("learning_rate", "epochs", "batch_size") if (v := getattr(self.section, k)) is not None}
        training = self.b.training_config("dpo", "rl")
        for name in ("average", "prompt_weight", "steps"):  # of the policy's training
            training.pop(name, None)
        return {**training, **own, "method": "reward_model"}

    def score(self, label: str, problems: Stage, samples: Stage) -> Stage:
        """The scores of any samples by the model in use."""
        b = self.b
        assert self.stage is not None, "learn before scoring"
        training = self._given or self._training()
        config = {
            "training": {k: v for k, v in training.items() if k in _FORWARD}, "aggregation": self.section.aggregation,
            "prompt": b.recipe.data.prompt.model_dump(), "model": b.model.fingerprint, "dtype": b.recipe.model.dtype,
        }
        inputs = {"samples": samples, "problems": problems, "reward_model": self.stage}
        return b.add(Stage("reward_score", label, config, inputs, {"base": str(b.model.path)}, b.training_hints()))

    def _evaluate(
        self, name: str, label: str, problems: Stage, samples: Stage, verdicts: Stage, scores: Stage, held_out: float | None
    ) -> None:
        config = {"alpha": self.section.alpha, "held_out": held_out, "run_seed": self.b.recipe.seed, "seed": self.b.recipe.seed}
        inputs = {"problems": problems, "samples": samples, "verdicts": verdicts, "scores": scores}
        if name in self._previous:
            inputs["previous"] = self._previous[name]
        self._previous[name] = self.b.add(Stage("reward_eval", label, config, inputs))


def trained_elsewhere(run: Path, kind: str, fingerprint: str) -> tuple[Stage, dict[str, Any]]:
    """The last reward model that a run has trained, and the settings that it was trained with.

    Raises InputError for a run that has none, or not in this store; ConfigError for another kind or base model.
    """
    if not (run / "plan.json").is_file():
        raise InputError(f"reward_model.run: {run} is not the folder of a run that was started")
    plan = read_json(run / "plan.json")
    keys = [s["key"] for s in plan["stages"] if s["kind"] == "reward_train"]
    if not keys:
        raise InputError(f"reward_model.run: {run} trains no reward model")
    manifest = store_of(run, plan, "reward_model.run") / "reward_train" / keys[-1] / "manifest.json"
    if not manifest.is_file():
        raise InputError(f"reward_model.run: the reward model of {run} is not finished: ratchet resume {run}")
    config = read_json(manifest)["config"]
    if (own := config["reward_model"]["kind"]) != kind:
        raise ConfigError(f"reward_model.run: the model of {run} is of kind `{own}`: set reward_model.kind={own}")
    if config["model"] != fingerprint:
        raise ConfigError(f"reward_model.run: the model of {run} belongs to another base model than model.name")
    return Stage("reward_train", "reward model", {}, given_key=keys[-1]), config["training"]
