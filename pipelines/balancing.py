"""What the stages of the balance share: the rule from their config, the dev problems, the files they write.

`choice.json` of a balance artefact is the contract with the stages behind it:

    {"point": {"temperature", "threshold", "cap", "score", ...}, "alive": [temperatures still in the race],
     "dropped": [{"temperature", "reason", "bound", "round"}], "used": samples drawn, "grid": samples of the whole grid}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.keys import derive_seed
from configs.rows import Problem, Score
from pipelines.balance import Point, Rule, Surface, caps_of, n_star_of
from pipelines.candidates import scores_of
from pipelines.files import read_json, write_json, writing
from pipelines.heatmap import heatmap
from pipelines.stage import Task
from pipelines.store import Artefact

CHOICE, SURFACE = "choice.json", "surface.json"


def rule_of(config: Mapping[str, Any], problems: int) -> Rule:
    """The rule of a stage's config for an iteration of so many problems."""
    n_star = n_star_of(config["target"], problems) if config["n_star"] == "auto" else config["n_star"]
    return Rule(
        n_star=n_star, thresholds=tuple(config["thresholds"]), caps=config["n"] + bool(config["human_candidates"]),
        average=config["average"], duplicates=config["duplicates"],
    )


def target_of(config: Mapping[str, Any], rule: Rule, queries: int, problems: int) -> int:
    """Samples wanted from `queries` of an iteration's `problems`: their share of the target."""
    return -(-(config["target"] or rule.n_star * problems) * queries // problems)


def iteration_problems(problems: Sequence[Problem], config: Mapping[str, Any]) -> list[Problem]:
    """The problems that this iteration samples."""
    begin = config["offset"]
    return list(problems[begin : begin + config["count"]] if config["count"] else problems[begin:])


def dev_problems(problems: Sequence[Problem], config: Mapping[str, Any]) -> list[Problem]:
    """The `queries` problems of the sweep, in a random order of their own: any first part is a random sample."""
    mine = iteration_problems(problems, config)
    order = sorted(mine, key=lambda p: (derive_seed(config["seed"], "dev", p.id), p.id))[: config["queries"]]
    if len(order) < len(config["rounds"]):
        raise InputError(
            f"{len(order)} problems for the sweep, fewer than its {len(config['rounds'])} rounds: give more problems, or "
            "set balance.rounds=[1.0]"
        )
    return order


def task_scores(task: Task, name: str) -> dict[str, float] | None:
    """Score of each sample from the input `name`; None where no scorer has its say."""
    if name not in task.inputs:
        return None
    return scores_of(task.rows(name, Score), task.config.get("aggregation", "minimum"))


def read_choice(artefact: Artefact) -> dict[str, Any]:
    """`choice.json` of a finished balance artefact."""
    return read_json(artefact.path / CHOICE)


def write_surfaces(
    folder: Path, surfaces: Mapping[float, Surface], rule: Rule, responses: Any, targets: Mapping[float, int], chosen: Point
) -> None:
    """`surface.json`: all figures by temperature, threshold and cap; `surface.svg`: score by temperature and threshold."""
    content = {
        "n_star": rule.n_star, "average": rule.average, "duplicates": rule.duplicates, "thresholds": list(rule.thresholds),
        "caps": list(range(1, rule.caps + 1)), "point": asdict(chosen),
        "temperatures": [
            {
                "temperature": t, "queries": s.queries, "cap": caps_of(s, responses, targets[t]).tolist(),
                "score": s.score.round(6).tolist(), "selected": s.selected.tolist(), "wrong": s.wrong.tolist(),
                "unique_correct": s.unique_correct.tolist(), "kept": s.kept.tolist(),
            }
            for t, s in surfaces.items()
        ],
    }  # fmt: skip
    write_json(folder / SURFACE, content)
    scores = {
        t: [float(s.score[i, cap - 1]) for i, cap in enumerate(caps_of(s, responses, targets[t]).tolist())]
        for t, s in surfaces.items()
    }
    with writing(folder / "surface.svg") as temporary:
        temporary.write_text(heatmap(scores, rule.thresholds, (chosen.temperature, chosen.threshold)))
