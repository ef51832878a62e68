"""The sample browser: some samples of every stage with problem, steps, verdict, score and lineage."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from configs.keys import derive_seed
from data_gen.steps import split_steps
from pipelines.report.html import join, note, table, tag
from pipelines.report.numbers import interval, number, percent
from pipelines.report.page import Section
from pipelines.report.record import Row, RunRecord, StageRecord

_MOST, _LEAST, _WHOLE = 40, 6, 480  # samples of a stage at most and at least (where there are many stages), of the page
_LONGEST, _STEPS = 4_000, 60  # characters of a text and steps of a solution that are shown


@dataclass
class Shown:
    """What is known of one sample. `lineage` is (what, text) from the problem to what was learned from it."""

    sample: Row
    problem: Row
    verdict: Row
    score: float | None = None
    steps: list[Row] = field(default_factory=list)
    lineage: list[tuple[str, str]] = field(default_factory=list)


def section(run: RunRecord) -> Section | None:
    """A browser over samples of all stages that drew some; none, if no artefact is within reach."""
    drawn = [s for s in run.stages if s.kind in ("sample", "sweep") and s.manifest]
    if not drawn:
        return None
    each = max(_LEAST, min(_MOST, _WHOLE // len(drawn)))
    groups = [(s, shown) for s in drawn if (shown := _of(run, s, each))]
    if not groups:
        return None
    total = sum(len(shown) for _, shown in groups)
    blocks = [_group(stage, shown) for stage, shown in groups]
    remark = note(
        f"{number(total)} sample{'' if total == 1 else 's'}: at most {each} of each stage, right and wrong ones in equal "
        "numbers where there are enough, of different problems, chosen by a seeded draw. Longer texts are cut in the middle."
    )
    return Section("samples", "Samples", join([remark, _controls(groups), tag("div", *blocks, id="browser")]))


def _of(run: RunRecord, stage: StageRecord, count: int) -> list[Shown]:
    """A seeded choice of a stage's samples with all that is known of them."""
    judged = next((s for s in run.readers(stage, "verify") if s.manifest), None)
    told = ["id", "sample", "problem", "outcome", "extracted", "detail"]
    verdicts = {v["sample"]: v for v in judged.rows(told)} if judged else {}
    everything: Sequence[Row] = list(verdicts.values()) or [
        {"sample": r["id"], "problem": r["problem"]} for r in stage.rows(["id", "problem"])
    ]
    ids = choose(everything, count)
    columns = ["id", "parents", "problem", "text", "finish_reason", "temperature", "logprob", "model", "adapter", "seed"]
    samples = {r["id"]: r for r in stage.rows(columns, ids)}
    wanted = {r["problem"] for r in samples.values()}
    source = run.by_key(stage.inputs.get("problems"))
    fields = ["id", "question", "answer", "level", "subject", "source"]
    problems = {r["id"]: r for r in source.rows(fields, wanted)} if source else {}
    shown = {
        i: Shown(samples[i], problems.get(samples[i]["problem"], {}), verdicts.get(i, {})) for i in ids if i in samples
    }
    _add_scores(run, stage, shown)
    _add_steps(run, stage, shown)
    _add_lineage(run, stage, judged, shown)
    return list(shown.values())


def choose(rows: Sequence[Row], count: int) -> list[str]:
    """Ids of at most `count` samples: half right and half not, as far as there are, of different problems first."""
    def rank(row: Row, seen: dict[str, int]) -> tuple[int, int]:
        seen[row["problem"]] = seen.get(row["problem"], 0) + 1
        return seen[row["problem"]], derive_seed(0, "browser", row["sample"])

    order = sorted(rows, key=lambda r: derive_seed(0, "browser", r["sample"]))
    right = [r for r in order if r.get("outcome") == "correct"]
    wrong = [r for r in order if r.get("outcome") != "correct"]
    for group in (right, wrong):
        seen: dict[str, int] = {}
        ranks = {r["sample"]: rank(r, seen) for r in group}
        group.sort(key=lambda r: ranks[r["sample"]])
    half = count // 2
    take = max(half, count - len(wrong)), max(count - half, count - len(right))
    return [r["sample"] for r in [*right[: take[0]], *wrong[: take[1]]][:count]]


def _add_scores(run: RunRecord, stage: StageRecord, shown: Mapping[str, Shown]) -> None:
    for scorer in run.readers(stage, "reward_score", "confidence"):
        for row in scorer.rows(["sample", "value"], shown, "sample"):
            shown[row["sample"]].score = row["value"]


def _add_steps(run: RunRecord, stage: StageRecord, shown: Mapping[str, Shown]) -> None:
    columns = ["sample", "index", "text", "value", "low", "high", "rollouts", "pit", "spurious"]
    for valued in run.readers(stage, "steps"):
        for row in valued.rows(columns, shown, "sample"):
            shown[row["sample"]].steps.append(row)


def _add_lineage(run: RunRecord, stage: StageRecord, judged: StageRecord | None, shown: Mapping[str, Shown]) -> None:
    """From the problem by way of model and verdict to what was learned from the sample."""
    trained = {s.key: s.label for s in run.stages if s.kind == "train"}
    source = run.by_key(stage.inputs.get("problems"))
    for i, s in shown.items():
        model = s.sample.get("model")
        by = trained.get(model or "", "the model that the run began with")
        s.lineage += [
            ("problem", f"{s.sample['problem']}{_at(source)}"), ("drawn by", f"{by}{f', {model[:12]}' if model else ''}"),
            ("sample", f"{i}{_at(stage)}"),
        ]  # fmt: skip
        if s.verdict:
            s.lineage.append(("verdict", f"{s.verdict['outcome']}{_at(judged)}"))
    for reader in run.readers(stage, "select", "select_balanced", "pairs", "step_pairs", "edit"):
        for row in reader.rows(["id", "parents", "kind", "outcome"]):
            for place, parent in enumerate(row["parents"][:2]):
                if parent in shown:
                    shown[parent].lineage.append((_use(reader.kind, row, place), f"{row['id']}{_at(reader)}"))


def _use(kind: str, row: Row, place: int) -> str:
    """What became of a sample that is the parent number `place` of a row."""
    if kind in ("select", "select_balanced"):
        return "learned from, as example"
    if kind == "edit":
        return f"edited ({row.get('outcome')})"
    rejected = place != 0 or row.get("kind") == "step"  # whose parents are the sample with the pit and its rollouts
    return f"{'rejected' if rejected else 'chosen'} side of a {row.get('kind')} pair"


def _at(stage: StageRecord | None) -> str:
    return f"  ({stage.label}, {stage.key[:12]})" if stage else ""


def _controls(groups: Sequence[tuple[StageRecord, Collection[Shown]]]) -> Markup:
    """Search, stage and verdict; they need the script, without which everything is shown."""
    def option(value: str, text: str) -> Markup:
        return tag("option", text, value=value)

    stages = [option(str(s.number), f"{s.label} ({len(shown)})") for s, shown in groups]
    verdicts = [option("", "all verdicts"), option("right", "right"), option("wrong", "wrong"), option("other", "neither")]
    return tag(
        "div",
        tag("label", "Search ", tag("input", type="search", id="find", placeholder="in question and solution")),
        tag("label", "Stage ", tag("select", option("", "all stages"), *stages, id="stage")),
        tag("label", "Verdict ", tag("select", *verdicts, id="verdict")),
        tag("label", tag("input", type="checkbox", id="used"), " only those learned from"),
        tag("output", "", id="count", aria_live="polite"),
        class_="controls", id="controls", role="search", hidden=True,
    )  # fmt: skip


def _group(stage: StageRecord, shown: Sequence[Shown]) -> Markup:
    right = sum(s.verdict.get("outcome") == "correct" for s in shown)
    head = tag("summary", tag("h3", stage.label), tag("span", f"{len(shown)} samples, {right} of them right"))
    return tag("details", head, *(_item(s) for s in shown), class_="group", data_stage=str(stage.number))


def _item(s: Shown) -> Markup:
    outcome = s.verdict.get("outcome")
    word = {"correct": "right", "wrong": "wrong"}.get(outcome or "", "other")
    shown = {"right": "right", "wrong": "wrong"}.get(word, str(outcome or "not judged").replace("_", " "))
    used = any(what.startswith(("learned", "chosen", "rejected")) for what, _ in s.lineage)
    question = str(s.problem.get("question", s.sample["problem"]))
    head = tag(
        "summary", tag("span", shown, class_=f"badge {word}"), tag("span", _cut(question, 160), class_="q"),
        tag("span", f"score {number(s.score)}", class_="score") if s.score is not None else None,
    )
    facts: list[tuple[str, Any]] = [
        ("answer given", s.verdict.get("extracted") or "\u2013"), ("right answer", s.problem.get("answer", "\u2013")),
        ("verdict", f"{shown}: {s.verdict['detail']}" if s.verdict.get("detail") else shown),
        ("temperature", number(s.sample.get("temperature"))), ("ended by", s.sample.get("finish_reason")),
        ("log-probability", number(s.sample.get("logprob"))),
    ]  # fmt: skip
    body = tag(
        "div", tag("h4", "Problem"), tag("div", _cut(question), class_="text"), tag("h4", "Solution"), _solution(s),
        tag("h4", "Facts"), _list(facts), tag("h4", "Lineage"), _list(s.lineage), class_="body",
    )
    return tag("details", head, body, class_="sample", data_verdict=word, data_used="yes" if used else None)


def _list(pairs: Sequence[tuple[str, Any]]) -> Markup:
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in pairs))


def _solution(s: Shown) -> Markup:
    """Steps with their values where they were rolled out, else steps as the splitter finds them."""
    if s.steps:
        ordered = sorted(s.steps, key=lambda r: r["index"])[:_STEPS]
        rows = [
            [tag("span", _cut(r["text"]), class_="text"), percent(r.get("value")), interval(r.get("low"), r.get("high"), 0),
             "pit" if r.get("pit") else "spurious" if r.get("spurious") else ""]
            for r in ordered
        ]  # fmt: skip
        return table(["step", "value", "95% interval", ""], rows, (1, 2))
    steps = split_steps(_cut(s.sample["text"]))
    more = tag("li", f"{len(steps) - _STEPS} more steps", class_="note") if len(steps) > _STEPS else None
    shown = (tag("li", tag("span", step.strip("\n"), class_="text")) for step in steps[:_STEPS])
    return tag("ol", *shown, more, class_="steps")


def _cut(text: str, most: int = _LONGEST) -> str:
    """The text, or its beginning and end."""
    if len(text) <= most:
        return text
    begin = most * 3 // 4
    return f"{text[:begin]} \u2026 ({number(len(text) - most)} characters left out) \u2026 {text[begin - most:]}"
