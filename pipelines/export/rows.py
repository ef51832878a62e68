"""Rows of a run in the formats of other tools; `FORMATS` names them and what reads them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from configs.errors import ConfigError, InputError
from configs.rows import Example, Group, Pair, Problem, Sample, Score, Step, VerdictRow
from configs.schema import PromptSection
from data_gen.prompts import PromptEncoder
from data_gen.steps import decode
from pipelines.export.formats import Form, without_empty
from pipelines.export.source import Source
from pipelines.files import writing
from pipelines.stages.verify import UNSCORED
from pipelines.store import read_rows

Rows = list[dict[str, Any]]
WRITERS = {".jsonl": "json", ".parquet": "parquet"}  # by ending; the name of the reader in `datasets`


@dataclass
class Exported:
    """Rows, and what to know about them."""

    rows: Rows
    notes: list[str] = field(default_factory=list)
    style: str | None = None


def problems(source: Source, benchmark: str | None, _: Any) -> Exported:
    """Problems as source `jsonl` reads them: those to learn from after decontamination, or a benchmark's."""
    key = source.drawn(benchmark)["inputs"]["problems"] if benchmark else _training_problems(source)
    rows: list[Problem] = read_rows(source.artefact(key), Problem)
    optional = ("solution", "level", "subject")
    made = [
        {"id": p.id, "question": p.question, "answer": p.answer, **{k: getattr(p, k) for k in optional}, "split": p.split}
        for p in rows
    ]
    return Exported(without_empty(made, optional))


def samples(source: Source, benchmark: str | None, _: Any) -> Exported:
    """Samples as `ratchet score` reads them, with the verdict and, where a reward model has scored them, the reward."""
    drawn = source.drawn(benchmark)
    golds = _problems_of(source, drawn)
    verdicts = _verdicts(source, drawn)
    rewards = _rewards(source, drawn)
    rows: list[Sample] = read_rows(source.artefact(drawn["key"]), Sample)
    made = [
        {
            "problem_id": s.problem, "answer": golds[s.problem].answer, "response": s.text, "reward": rewards.get(s.id),
            "sample_id": s.id, "question": golds[s.problem].question, "outcome": verdicts[s.id].outcome,
            "finish_reason": s.finish_reason,
        }
        for s in rows
    ]  # fmt: skip
    return Exported(without_empty(made, ("reward",)))


def sft(source: Source, _: str | None, style: Any) -> Exported:
    """What an iteration learned by supervised fine-tuning: prompt and completion."""
    select = _learned(source, "examples")
    examples: list[Example] = read_rows(source.artefact(select["key"]), Example)
    questions = _questions(source, select["inputs"]["problems"])
    form = _form(source, style)
    made, kept = [], 0
    for e in examples:
        text = _body(form, e.token_ids)
        row = {"prompt": form.prompt(questions[e.problem]), "completion": form.completion(text)}
        kept += form.keeps(*row.values(), ids=[*e.prompt_ids, *e.token_ids])
        weight = None if e.weight == 1.0 else e.weight
        made.append({**row, "id": e.id, "problem_id": e.problem, "kind": e.kind, "weight": weight,
                     "token_weights": e.token_weights})  # fmt: skip
    rows = without_empty(made, ("weight", "token_weights"))
    notes = [_same(kept, len(rows))]
    if any(e.token_weights for e in examples):
        notes.append("the run weighed tokens (column token_weights); TRL's format has no weights")
    return Exported(rows, notes, form.style)


def pairs(source: Source, _: str | None, style: Any) -> Exported:
    """Preference pairs: prompt, chosen, rejected."""
    paired = _learned(source, "pairs")
    rows: list[Pair] = read_rows(source.artefact(paired["key"]), Pair)
    questions = _questions(source, paired["inputs"]["problems"])
    form = _form(source, style)
    made, kept, open_ = [], 0, 0
    for p in rows:
        question = questions[p.problem]
        prompt_ids = form.encoder.encode(question)
        steps = decode(form.tokenizer, p.context_ids[len(prompt_ids) :])
        prompt = form.prompt(question, steps)
        sides = [form.completion(_body(form, ids), steps) for ids in (p.chosen_ids, p.rejected_ids)]
        both = zip(sides, (p.chosen_ids, p.rejected_ids), strict=True)
        kept += all(form.keeps(prompt, side, [*p.context_ids, *ids]) for side, ids in both)
        open_ += not (p.chosen_eos and p.rejected_eos)
        made.append({
            "prompt": prompt, "chosen": sides[0], "rejected": sides[1], "id": p.id, "problem_id": p.problem, "kind": p.kind,
            "error": p.error, "chosen_ends": p.chosen_eos, "rejected_ends": p.rejected_eos,
        })  # fmt: skip
    notes = [_same(kept, len(rows))]
    if open_:
        notes.append(
            f"{open_} pairs stop in the middle of a solution (chosen_ends, rejected_ends); the run trains them without an "
            "end token, TRL's trainers add one to every side"
        )
    return Exported(without_empty(made, ("error",)), notes, form.style)


def unpaired(source: Source, benchmark: str | None, style: Any) -> Exported:
    """Samples with a label, right or wrong. Those that were cut off or could not be judged are left out."""
    drawn = source.drawn(benchmark)
    questions = {k: p.question for k, p in _problems_of(source, drawn).items()}
    verdicts, form = _verdicts(source, drawn), _form(source, style, drawn if benchmark else None)
    rows: list[Sample] = read_rows(source.artefact(drawn["key"]), Sample)
    made, kept, cut, unjudged = [], 0, 0, 0
    for s in rows:
        outcome = verdicts[s.id].outcome
        if s.finish_reason != "stop" or outcome in UNSCORED:
            cut, unjudged = cut + (s.finish_reason != "stop"), unjudged + (s.finish_reason == "stop")
            continue
        row = {"prompt": form.prompt(questions[s.problem]), "completion": form.completion(s.text)}
        ids = [*form.encoder.encode(questions[s.problem]), *form.encoder.trimmed(s.token_ids, s.text)]
        kept += form.keeps(*row.values(), ids=ids)
        made.append({**row, "label": outcome == "correct", "id": s.id, "problem_id": s.problem})
    left_out = [f"left out: {cut} cut off, {unjudged} not judged"] if cut or unjudged else []
    return Exported(made, [_same(kept, len(made)), *_shown(drawn), *left_out], form.style)


def steps(source: Source, benchmark: str | None, style: Any) -> Exported:
    """Solutions step by step with a label and a value for each: up to the first step that was not valued."""
    drawn = source.drawn(benchmark)
    valued = source.beside(drawn, "steps")
    if valued is None:
        raise InputError(
            f"{source.name} has no step values: they come with pairs.kind: per_step, selection.advantage_weights or a process "
            "reward model, see docs/rollouts.md"
        )
    problem_of = {s.id: s.problem for s in read_rows(source.artefact(drawn["key"]), Sample)}
    questions = {k: p.question for k, p in _problems_of(source, drawn).items()}
    form = _form(source, style, drawn if benchmark else None)
    by_sample: dict[str, list[Step]] = {}
    for step in read_rows(source.artefact(valued["key"]), Step):
        by_sample.setdefault(step.sample, []).append(step)
    made, short = [], 0
    for sample, mine in by_sample.items():
        mine.sort(key=lambda s: s.index)
        known = next((i for i, s in enumerate(mine) if s.value is None), len(mine))
        short += known < len(mine)
        if known:
            first = mine[:known]
            made.append({
                "prompt": form.prompt(questions[problem_of[sample]]), "completions": [s.text for s in first],
                "labels": [(s.value or 0.0) > 0.0 for s in first], "values": [s.value for s in first],
                "rollouts": [s.rollouts for s in first], "id": sample, "problem_id": problem_of[sample],
                "correct": mine[0].correct, "complete": known == len(mine),
            })  # fmt: skip
    notes = ["a label is true where a rollout after the step ended right; `values` holds the shares"]
    if short:
        notes.append(f"{short} solutions end at their first step without a value (complete: false), or are left out there")
    return Exported(made, notes, form.style)


def groups(source: Source, _: str | None, style: Any) -> Exported:
    """Right and wrong solutions of a problem together, as an outcome reward model of the run learned from them."""
    stage = source.stage("reward_data")
    if stage is None or source.settings.reward_model.kind != "outcome":
        hint = "its process reward model learned from steps: --what steps" if stage else "it trained no reward model"
        raise InputError(f"{source.name} has no groups of solutions; {hint}")
    questions, form = _questions(source, stage["inputs"]["problems"]), _form(source, style)
    rows: list[Group] = read_rows(source.artefact(stage["key"]), Group)
    made = []
    for g in rows:
        ends = list(itertools.accumulate(g.lengths, initial=0))
        texts = [_body(form, g.token_ids[a:b]) for a, b in itertools.pairwise(ends)]
        made.append({
            "prompt": form.prompt(questions[g.problem]), "completions": [form.completion(t) for t in texts],
            "labels": [label == 1.0 for label in g.labels], "split": g.split, "solve_rate": g.solve_rate, "id": g.id,
            "problem_id": g.problem,
        })  # fmt: skip
    return Exported(made, style=form.style)


@dataclass(frozen=True)
class Format:
    """One kind of rows: how they are made, what they are called, and who reads them."""

    make: Callable[[Source, str | None, Any], Exported]
    title: str
    readers: str
    of_benchmark: bool = False  # exists for evaluations too


FORMATS = {
    "sft": Format(sft, "prompt and completion", "trl.SFTTrainer"),
    "pairs": Format(pairs, "prompt, chosen and rejected", "trl.DPOTrainer and trl.RewardTrainer"),
    "unpaired": Format(unpaired, "prompt, completion and label", "trl.KTOTrainer", True),
    "steps": Format(steps, "stepwise supervision: prompt, completions and labels", "trainers of process reward models", True),
    "groups": Format(groups, "prompt, completions and labels", "listwise reward models"),
    "samples": Format(samples, "samples", "ratchet score --input", True),
    "problems": Format(problems, "problems", "source `jsonl` or `datasets`", True),
}


def export_rows(source: Source, what: str, to: Path, benchmark: str | None, style: str) -> list[str]:
    """Write rows to a file, whole or not at all; lines that say what was written and how to load it."""
    reader = WRITERS.get(to.suffix)
    if reader is None:
        raise ConfigError(f"--to {to}: --what {what} writes rows: give a file that ends in {' or '.join(WRITERS)}")
    if to.exists():
        raise InputError(f"{to} exists: remove it or choose another --to")
    made = FORMATS[what].make(source, benchmark if FORMATS[what].of_benchmark else None, style)
    if not made.rows:
        raise InputError(f"{source.name}: no rows to export ({'; '.join(made.notes) or what})")
    with writing(to) as temporary:
        if reader == "json":
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in made.rows)
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(made.rows), temporary, compression="zstd")
    style_of = f", {made.style}" if made.style else ""
    return [
        f"{len(made.rows)} rows of {source.name} -> {to} ({FORMATS[what].title}{style_of}; for {FORMATS[what].readers})",
        *(f"  {note}" for note in made.notes), "",
        "from datasets import load_dataset", f'rows = load_dataset("{reader}", data_files="{to}", split="train")',
    ]  # fmt: skip


def _form(source: Source, style: Literal["auto", "conversational", "standard"], drawn: dict[str, Any] | None = None) -> Form:
    """The form of the run's prompts, or of those of an evaluation's samples, which may ask in another way."""
    prompt = source.recipe.data.prompt
    if drawn is not None:
        prompt = PromptSection.model_validate(source.artefact(drawn["key"]).manifest()["config"]["prompt"])
    return Form(PromptEncoder(source.model.path, prompt), style)


def _shown(drawn: dict[str, Any]) -> list[str]:
    return ["the worked examples before each question are left out of the prompts"] if "shots" in drawn["inputs"] else []


def _learned(source: Source, name: str) -> dict[str, Any]:
    """The stage of the rows that this iteration was trained on: examples or pairs."""
    inputs = source.stages[source.trained_by().key]["inputs"]
    if name not in inputs:
        raise InputError(f"{source.name} was not trained on {name} (training.method: {source.settings.training.method})")
    return source.stages[inputs[name]]


def _body(form: Form, token_ids: Sequence[int]) -> str:
    """The text of a solution or a step without its end token."""
    return decode(form.tokenizer, token_ids)


def _same(kept: int, count: int) -> str:
    return f"{kept} of {count} rows are encoded to the token ids of the run again"


def _questions(source: Source, key: str) -> dict[str, str]:
    rows: list[Problem] = read_rows(source.artefact(key), Problem)
    return {p.id: p.question for p in rows}


def _problems_of(source: Source, drawn: dict[str, Any]) -> dict[str, Problem]:
    rows: list[Problem] = read_rows(source.artefact(drawn["inputs"]["problems"]), Problem)
    return {p.id: p for p in rows}


def _training_problems(source: Source) -> str:
    labels = {s["label"]: s["key"] for s in source.plan["stages"]}
    last = [f"problems/{name}" for name in ("equations", "inverses", "variants", "clean", "joined", "train")]
    key = next((labels[label] for label in last if label in labels), None)
    if key is None:
        raise InputError(f"{source.run.path} has no training problems; --benchmark NAME takes an evaluation's")
    return key


def _verdicts(source: Source, drawn: dict[str, Any]) -> dict[str, VerdictRow]:
    stage = source.beside(drawn, "verify")
    if stage is None:
        raise InputError(f"{source.name}: its samples have no verdicts")
    rows: list[VerdictRow] = read_rows(source.artefact(stage["key"]), VerdictRow)
    return {v.sample: v for v in rows}


def _rewards(source: Source, drawn: dict[str, Any]) -> dict[str, float]:
    stage = source.beside(drawn, "reward_score")
    rows: list[Score] = read_rows(source.artefact(stage["key"]), Score) if stage else []
    return {s.sample: s.value for s in rows}
