"""The stages of scheme `bstar` (sweep, balance, selection at the chosen point) and the metrics stages of all schemes.

What is chosen is known only at run time, but keys are computed before. So a choice travels as an artefact: the sampling
stage has the balance artefact as an input and reads the temperature there; its key follows from the balance's key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.stage import Stage

if TYPE_CHECKING:
    from pipelines.plan import Builder
    from pipelines.plan_rewards import RewardModel


def scores(b: Builder, label: str, problems: Stage, samples: Stage, rewards: RewardModel | None) -> Stage | None:
    """The stage that scores samples (its rows are `Score`s), or None when the answer alone decides.

    Another scorer is another branch here and another value of `balance.scorer`."""
    scorer = b.recipe.balance.scorer
    if scorer == "confidence":
        return b.add(Stage("confidence", f"{label}/score", {"scorer": "confidence"}, {"samples": samples}))
    if scorer == "reward_model" and rewards is not None and rewards.stage is not None:
        return rewards.score(f"{label}/reward_score", problems, samples)
    return None


def waits(b: Builder) -> bool:
    """Whether samples of the initial model are scored only after the first iteration has trained a reward model."""
    return b.recipe.balance.scorer == "reward_model" and b.recipe.iterations.count > 0


def sweep(
    b: Builder, label: str, problems: Stage, trained: Stage | None, rewards: RewardModel, **settings: Any
) -> Stage:
    """The dev sweep of one iteration, round by round; the last balance stage, whose choice counts."""
    section = b.recipe.balance
    drawn = {"n": section.n or b.recipe.sampling.n, "offset": 0, "count": None, **settings}
    chosen: Stage | None = None
    judged: dict[str, Stage] = {"problems": problems}
    for number in range(len(section.rounds)):
        here = f"{label}/sweep{number + 1}"
        before = {"before": chosen} if chosen else {}
        config = {
            **drawn, "temperature": None, "temperatures": section.temperatures, "queries": section.queries,
            "rounds": section.rounds, "round": number,
        }
        samples = b.draw("sweep", here, problems, trained, config, before)
        judged[f"samples{number + 1}"] = samples
        judged[f"verdicts{number + 1}"] = b.verify(f"{here}/verify", problems, samples, b.recipe.rewards.mode)
        if scored := scores(b, here, problems, samples, rewards):
            judged[f"scores{number + 1}"] = scored
        config = _rule(b, drawn) | {"round": number}
        chosen = b.add(Stage("balance", f"{here}/balance", config, judged | before))
    assert chosen is not None, "the schema asks for a round"
    return chosen


def select(
    b: Builder, label: str, problems: Stage, samples: Stage, verdicts: Stage, choice: Stage, rewards: RewardModel
) -> Stage:
    """Examples of an iteration, at the point that `choice` has found."""
    drawn = {k: samples.config[k] for k in ("n", "offset", "count")}
    config = _rule(b, drawn) | {
        "min_examples": b.recipe.selection.min_examples, "prompt": b.recipe.data.prompt.model_dump(),
        "model": b.model.fingerprint,
    }
    inputs = {"problems": problems, "samples": samples, "verdicts": verdicts, "choice": choice}
    if scored := scores(b, label, problems, samples, rewards):
        inputs["scores"] = scored
    return b.add(Stage("select_balanced", f"{label}/select", config, inputs, {"base": str(b.model.path)}))


def explore(b: Builder, label: str, inputs: dict[str, Stage], rewards: RewardModel | None) -> None:
    """Metrics of exploration of these problems, samples, verdicts and, if given, examples."""
    section = b.recipe.exploration
    config = {
        **section.model_dump(exclude={"measure"}), "score_scale": b.recipe.balance.score_scale,
        "score_clamp": b.recipe.balance.score_clamp, "seed": b.recipe.seed, **_aggregation(b),
    }
    if scored := scores(b, label, inputs["problems"], inputs["samples"], rewards):
        inputs = inputs | {"scores": scored}
    b.add(Stage("exploration", f"{label}/exploration", config, inputs))


def _rule(b: Builder, drawn: dict[str, Any]) -> dict[str, Any]:
    section = b.recipe.balance.model_dump(exclude={"scorer", "n"}) | _aggregation(b)
    return {**section, **{k: drawn[k] for k in ("n", "offset", "count")}, "seed": b.recipe.seed}


def _aggregation(b: Builder) -> dict[str, str]:
    """How the steps of a process model become one score, where one scores."""
    return {"aggregation": b.recipe.reward_model.aggregation} if b.recipe.balance.scorer == "reward_model" else {}
