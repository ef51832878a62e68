"""The stages between verified samples and preference pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from configs.errors import ConfigError
from configs.schema import RolloutsSection
from pipelines.stage import Stage

if TYPE_CHECKING:
    from pipelines.plan import Builder


def rise(b: Builder, label: str, problems: Stage, samples: Stage, verdicts: Stage, trained: Stage | None) -> Stage:
    """RISE: edit steps of right solutions, let rollouts decide where asked to, compose pairs; the pairs stage."""
    recipe, section = b.recipe, b.recipe.pairs.rise
    prompt, seed = recipe.data.prompt.model_dump(), recipe.seed
    rows = {"problems": problems, "samples": samples, "verdicts": verdicts}
    model = {"model": trained} if trained else {}
    chosen = {
        "samples": section.samples, "without_wrong": section.without_wrong,
        "truncated_negatives": section.truncated_negatives, "prompt": prompt, "model": b.model.fingerprint, "seed": seed,
    }
    paths, hints = {"base": str(b.model.path)}, dict(samples.hints)
    edits: dict[str, Stage] = {}
    if section.arm != "full_only":
        engine = {k: samples.config[k] for k in ("dtype", "engine", "batch_size", "max_model_len", "stop", "adapter")}
        config: dict[str, Any] = {
            **chosen, **engine, "editor": section.editor, "attempts": section.attempts, "errors": list(section.errors),
            "form": section.prompt, "temperature": section.temperature, "distance": section.distance,
            "certify": section.certify,
        }
        edits["edits"] = b.add(Stage("edit", f"{label}/edit", config, rows | model, paths, hints))
        if section.certify != "arithmetic":
            config = {
                **engine, "rollouts": section.rollouts, "significance": section.significance, "mode": recipe.rewards.mode,
                "timeout": recipe.rewards.timeout, "temperature": _temperature(samples),
                "top_p": samples.config["top_p"], "max_tokens": samples.config["max_tokens"], "prompt": prompt,
                "model": b.model.fingerprint, "seed": seed,
            }
            inputs = {"problems": problems, "samples": samples, **edits, **model}
            edits["edits"] = b.add(Stage("edit_rollouts", f"{label}/edit_rollouts", config, inputs, paths, hints))
    pairs = recipe.pairs
    config = {
        **chosen, "kind": pairs.kind, "arm": section.arm, "edits": section.edits, "max_length": pairs.max_length,
        "min_pairs": pairs.min_pairs,
    }
    return b.add(Stage("pairs", f"{label}/pairs", config, rows | edits, paths))


def _temperature(samples: Stage) -> float:
    """The temperature at which more is drawn of what `samples` have begun."""
    if samples.config["temperature"] is None:
        raise ConfigError(
            f"{samples.label}: its temperature is chosen while the run goes on (`iterations.scheme: bstar`), so rollouts "
            "cannot be planned with it: take another scheme"
        )
    return samples.config["temperature"]


def values(
    b: Builder, label: str, problems: Stage, samples: Stage, verdicts: Stage, section: RolloutsSection
) -> tuple[Stage, Stage]:
    """Step values by rollouts: the rollouts and steps stages. Rollouts of former iterations are used again.

    The policy of the rollouts is the initial model or the one that drew the samples, as `rollouts.policy` says. An
    iteration has one set of values: those made first, for a reward model, serve pairs and advantages too.
    """
    if label in b.valued:
        return b.valued[label]
    recipe = b.recipe
    sampler = samples.inputs.get("model")
    policy = b.initial if section.policy == "initial" else sampler
    # Samples are rollouts from the prompt, if the same policy drew them.
    common = {
        "rollouts": section.model_dump(), "root_from_samples": policy is sampler, "prompt": recipe.data.prompt.model_dump(),
        "model": b.model.fingerprint, "seed": recipe.seed,
    }
    kept = ("dtype", "engine", "batch_size", "max_model_len", "stop", "top_p", "max_tokens")
    config = {
        **common, **{k: samples.config[k] for k in kept}, "temperature": _temperature(samples),
        "adapter": recipe.training.adapter if policy else None,
        "policy": policy.key if policy else b.model.fingerprint, "mode": recipe.rewards.mode,
        "timeout": recipe.rewards.timeout, "max_failure_rate": recipe.rewards.max_failure_rate,
    }
    rows = {"problems": problems, "samples": samples, "verdicts": verdicts}
    earlier = [] if recipe.data.fresh_per_iteration else [s for s in b.stages if s.kind == "rollouts"]
    drawn = (*kept, "temperature", "policy", "prompt", "mode")  # what continuations and their verdicts depend on
    same = [s for s in earlier if all(s.config[k] == config[k] for k in drawn)]
    inputs = rows | ({"model": policy} if policy else {}) | {f"earlier{i}": s for i, s in enumerate(same)}
    paths = {"base": str(b.model.path)}
    rollouts = b.add(Stage("rollouts", f"{label}/rollouts", config, inputs, paths, dict(samples.hints)))
    steps = b.add(Stage("steps", f"{label}/steps", common, rows | {"rollouts": rollouts}, paths))
    b.valued[label] = rollouts, steps
    return rollouts, steps


def advantages(b: Builder, label: str, problems: Stage, samples: Stage, verdicts: Stage) -> Stage | None:
    """Step values of right samples alone, where `selection.advantage_weights` asks for them."""
    if b.recipe.selection.advantage_weights is None:
        return None
    section = b.recipe.rollouts.model_copy(update={"negatives": 0, "recheck": 0.0})
    return values(b, label, problems, samples, verdicts, section)[1]


def per_step(b: Builder, label: str, problems: Stage, samples: Stage, verdicts: Stage) -> Stage:
    """Per-step pairs: roll out, value steps, pair; the step_pairs stage."""
    recipe, variant = b.recipe, b.recipe.pairs.per_step.variant
    inputs = {"problems": problems, "samples": samples, "verdicts": verdicts}
    if variant != "full":
        rollouts, steps = values(b, label, problems, samples, verdicts, recipe.rollouts)
        inputs |= {"rollouts": rollouts, "steps": steps}
    config = {
        "variant": variant, "rollouts": recipe.rollouts.model_dump(), "max_length": recipe.pairs.max_length,
        "min_pairs": recipe.pairs.min_pairs, "prompt": recipe.data.prompt.model_dump(), "model": b.model.fingerprint,
        "seed": recipe.seed,
    }
    return b.add(Stage("step_pairs", f"{label}/pairs", config, inputs, {"base": str(b.model.path)}))


def pairs(b: Builder, label: str, problems: Stage, samples: Stage, verdicts: Stage, trained: Stage | None) -> Stage:
    """The stages of `pairs.kind`; the last one makes Pair rows."""
    if b.recipe.pairs.kind == "per_step":
        return per_step(b, label, problems, samples, verdicts)
    return rise(b, label, problems, samples, verdicts, trained)


def reference(b: Builder, label: str, pairs: Stage, start: Stage | None) -> Stage:
    """Log-probabilities of the pairs under the weights that the training starts from."""
    training = b.recipe.training.model_dump(include={"adapter", "micro_batch_tokens", "attention", "prefix_sharing"})
    config = {
        "training": training, "model": b.model.fingerprint, "dtype": b.recipe.model.dtype, "seed": b.recipe.seed,
    }
    inputs = {"pairs": pairs} | ({"model": start} if start else {})
    return b.add(Stage("reference", label, config, inputs, {"base": str(b.model.path)}, b.training_hints()))
