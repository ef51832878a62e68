"""The stages that measure one model on one benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from configs.evaluation_section import BenchmarkSection, SourceSection
from data_gen.eval_prompts import SHOTS, eval_prompt, shots_source
from pipelines import plan_balance
from pipelines.stage import Stage

if TYPE_CHECKING:
    from pipelines.plan import Builder
    from pipelines.plan_rewards import RewardModel


def evaluate(
    b: Builder, who: str, benchmark: BenchmarkSection, problems: Stage, trained: Stage | None, rewards: RewardModel
) -> None:
    """Greedy, and sampled when `evaluation.samples` > 0: sample, verify, score. Of the sampled answers of all seeds the
    votes, and the reward model's choice where there is one."""
    e, recipe = b.recipe.evaluation, b.recipe
    prompt, examples = _prompt(b, benchmark, problems)
    runs: list[tuple[str, dict[str, Any]]] = [("greedy", {"temperature": 0.0, "top_p": 1.0, "n": 1, "seed": 0})]
    seeds = e.seeds or [recipe.seed]
    if e.samples:
        drawn = {"temperature": e.temperature, "top_p": e.top_p, "n": e.samples}
        runs += [("sampled" if len(seeds) == 1 else f"sampled-seed{s}", {**drawn, "seed": s}) for s in seeds]
    sampled: dict[str, Stage] = {}
    for number, (name, settings) in enumerate(runs):
        label = f"{who}/{benchmark.name}/{name}"
        length = e.max_tokens or recipe.sampling.max_tokens
        samples = b.sample(
            f"{label}/sample", problems, trained, examples=examples, max_tokens=length, **prompt, **settings
        )
        verdicts = b.verify(f"{label}/verify", problems, samples, e.mode)
        shown = ("engine", "dtype", "temperature", "top_p", "n", "max_tokens", "stop", "seed")
        config = {
            "benchmark": benchmark.name, "mode": e.mode, "prompt": samples.config["prompt"],
            "sampling": {k: samples.config[k] for k in shown}, "seed": recipe.seed,
        }
        inputs = {"problems": problems, "samples": samples, "verdicts": verdicts}
        b.add(Stage("score", label, config, inputs))
        if number:
            sampled[f"verdicts{number}"] = verdicts
            rewards.evaluate(label, f"{benchmark.name}/{name}", problems, samples, verdicts)
            if recipe.exploration.measure and not (rewards.stage is None and plan_balance.waits(b)):
                plan_balance.explore(b, label, inputs, rewards)
    if sampled:
        config = {"seeds": seeds, "seed": recipe.seed}
        b.add(Stage("votes", f"{who}/{benchmark.name}/votes", config, {"problems": problems, **sampled}))


def _prompt(b: Builder, benchmark: BenchmarkSection, problems: Stage) -> tuple[dict[str, Any], Stage | None]:
    """Settings of sampling that a prompt by name replaces, and the stage of the worked examples where there are any."""
    e, source = b.recipe.evaluation, benchmark.source
    if source.source == "validation":  # training problems
        source = b.recipe.data.train
    named = eval_prompt(e.prompt, source.source) if e.prompt else None
    settings = {"prompt": named.section.model_dump(), "stop": named.stop} if named else {}
    if e.shots == 0 or (e.shots is None and e.prompt != "few_shot"):
        return settings, None
    if e.shots_file is not None:
        pool, count = b.problems("problems/shots", SourceSection(source="jsonl", path=e.shots_file)), e.shots
    else:
        pool = b.problems(f"problems/{benchmark.name}-training", shots_source(source))
        count = e.shots or SHOTS[source.source]
    config = {"count": count, "given": e.shots_file is not None}
    return settings, b.add(Stage("shots", f"shots/{benchmark.name}", config, {"pool": pool, "problems": problems}))
