"""The stages between verified samples and preference pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
                "timeout": recipe.rewards.timeout, "temperature": samples.config["temperature"],
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


def reference(b: Builder, label: str, pairs: Stage, start: Stage | None) -> Stage:
    """Log-probabilities of the pairs under the weights that the training starts from."""
    training = b.recipe.training.model_dump(include={"adapter", "micro_batch_tokens", "attention", "prefix_sharing"})
    config = {
        "training": training, "model": b.model.fingerprint, "dtype": b.recipe.model.dtype, "seed": b.recipe.seed,
    }
    inputs = {"pairs": pairs} | ({"model": start} if start else {})
    return b.add(Stage("reference", label, config, inputs, {"base": str(b.model.path)}, b.training_hints()))
