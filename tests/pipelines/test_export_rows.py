"""Rows of real runs, exported with the command and read by the libraries that they are for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from configs.errors import RatchetError
from configs.rows import Example, Group, Pair, Sample, Score, Step, VerdictRow
from data_gen.problems import load_problems
from pipelines.cli import app
from pipelines.store import planned, read_rows
from pipelines.stored import score_file
from tests.conftest import TinyRun
from tests.pipelines.helpers import ratchet

Export = Callable[..., tuple[str, Any]]


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """A function: a run, a reference behind it (`@1`), a file name and options in; what the command printed, and the rows as
    the printed lines load them out."""

    def call(run: TinyRun, name: str, *options: str, at: str = "") -> tuple[str, Any]:
        monkeypatch.setenv("RATCHET_HOME", str(run.home))
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        done = CliRunner().invoke(app, ["export", f"{run.folder}{at}", "--to", str(tmp_path / name), *options])
        assert done.exit_code == 0, (done.output, done.exception)
        said, _, code = done.output.partition("\n\n")
        scope: dict[str, Any] = {}
        exec(code, scope)
        return said, scope["rows"]

    return call


def refusal(run: TinyRun, *options: str, at: str = "") -> RatchetError:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(run.home))
        error = CliRunner().invoke(app, ["export", f"{run.folder}{at}", *options]).exception
    assert isinstance(error, RatchetError), error
    return error


def stored(run: TinyRun, label: str, row: type) -> list[Any]:
    """Rows of a stage of the run."""
    plan = json.loads((run.folder / "plan.json").read_text())
    stage = next(s for s in plan["stages"] if s["label"] == label)
    return read_rows(planned(plan, stage), row)


def trainer_arguments(folder: Path) -> dict[str, Any]:
    return {"output_dir": str(folder / "trl"), "max_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False,
            "per_device_train_batch_size": 2, "save_strategy": "no", "gradient_checkpointing": False}  # fmt: skip


@pytest.mark.parametrize(("style", "suffix"), [("conversational", "jsonl"), ("standard", "parquet")])
def test_sft_rows_train_in_trl_on_the_ids_of_the_run(
    lora_run: TinyRun, tiny_model: Path, export: Export, tmp_path: Path, style: str, suffix: str
) -> None:
    from trl import SFTConfig, SFTTrainer

    said, rows = export(lora_run, f"sft.{suffix}", "--what", "sft", "--style", style, at="@1")
    examples: list[Example] = stored(lora_run, "iteration1/select", Example)
    assert len(examples) >= 12
    assert f"{len(examples)} rows of {lora_run.folder}@1" in said
    assert f"{len(examples)} of {len(examples)} rows are encoded to the token ids of the run again" in said
    assert rows.column_names == ["prompt", "completion", "id", "problem_id", "kind"]
    if style == "conversational":
        assert rows[0]["prompt"][-1]["role"] == "user" and rows[0]["completion"][0]["role"] == "assistant"
    else:
        assert rows[0]["prompt"].endswith("assistant: ")
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model), args=SFTConfig(**trainer_arguments(tmp_path)),
        train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )  # fmt: skip
    for row, e in zip(trainer.train_dataset, examples, strict=True):
        ours = [*e.prompt_ids, *e.token_ids]
        assert row["input_ids"][: len(ours)] == ours and len(row["input_ids"]) <= len(ours) + 1  # the template's line break
        assert row["labels"] == [-100] * len(e.prompt_ids) + row["input_ids"][len(e.prompt_ids) :]
    assert trainer.train().global_step == 1


@pytest.mark.parametrize("style", ["conversational", "standard"])
def test_pairs_train_in_trl_on_the_ids_of_the_run(
    pairs_run: TinyRun, tiny_model: Path, export: Export, tmp_path: Path, style: str
) -> None:
    """Whole solutions and steps after shared steps. TRL ends every side with the end token; the run ends solutions only."""
    from trl import DPOConfig, DPOTrainer

    said, rows = export(pairs_run, "pairs.jsonl", "--what", "pairs", "--style", style)
    pairs: list[Pair] = stored(pairs_run, "iteration1/pairs", Pair)
    assert {p.kind for p in pairs} == {"pit", "step"}
    open_ = sum(not (p.chosen_eos and p.rejected_eos) for p in pairs)
    assert open_ and f"{open_} pairs stop in the middle of a solution" in said
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def survives(p: Pair) -> bool:
        """Whether the text says it all: the tiny model now and then writes bytes that are no text."""
        return all("\ufffd" not in tokenizer.decode(ids) for ids in (p.context_ids, p.chosen_ids, p.rejected_ids))

    kept = sum(map(survives, pairs))
    assert kept >= 6 and f"{kept} of {len(pairs)} rows are encoded to the token ids of the run again" in said
    assert [(r["kind"], r["chosen_ends"], r["rejected_ends"]) for r in rows] == [
        (p.kind, p.chosen_eos, p.rejected_eos) for p in pairs
    ]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model), args=DPOConfig(**trainer_arguments(tmp_path)),
        train_dataset=rows, processing_class=tokenizer,
    )  # fmt: skip
    assert {len(p.context_ids) > len(pairs[0].context_ids) for p in pairs if survives(p)} == {True, False}
    for row, p in ((r, p) for r, p in zip(trainer.train_dataset, pairs, strict=True) if survives(p)):
        for side, own in (("chosen", p.chosen_ids), ("rejected", p.rejected_ids)):
            theirs, ours = [*row["prompt_ids"], *row[f"{side}_ids"]], [*p.context_ids, *own]
            assert theirs[: len(ours)] == ours
            added = [] if getattr(p, f"{side}_eos") else [tokenizer.eos_token_id]
            assert theirs[len(ours) :][: len(added)] == added
        if style == "standard":
            assert row["prompt_ids"] == p.context_ids
    assert trainer.train().global_step == 1


def test_pairs_train_a_reward_model_in_trl(pairs_run: TinyRun, tiny_model: Path, export: Export, tmp_path: Path) -> None:
    from trl import RewardConfig, RewardTrainer

    _, rows = export(pairs_run, "pairs.parquet", "--what", "pairs")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    arguments = RewardConfig(**trainer_arguments(tmp_path))
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    assert len(trainer.train_dataset) == len(rows) and trainer.train().global_step == 1


def test_unpaired_rows_train_in_trl(pairs_run: TinyRun, tiny_model: Path, export: Export, tmp_path: Path) -> None:
    from trl import KTOConfig, KTOTrainer

    _, rows = export(pairs_run, "labels.jsonl", "--what", "unpaired")
    outcomes = {v.sample: v.outcome for v in stored(pairs_run, "iteration1/verify", VerdictRow)}
    assert {r["id"]: r["label"] for r in rows} == {s: o == "correct" for s, o in outcomes.items()}
    trainer = KTOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model), args=KTOConfig(**trainer_arguments(tmp_path)),
        train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )  # fmt: skip
    assert trainer.train().global_step == 1


def test_samples_that_were_cut_off_are_no_labelled_rows(lora_run: TinyRun, export: Export) -> None:
    said, rows = export(lora_run, "labels.jsonl", "--what", "unpaired", at="@1")
    samples: list[Sample] = stored(lora_run, "iteration1/sample", Sample)
    cut = sum(s.finish_reason == "length" for s in samples)
    assert cut and f"left out: {cut} cut off, 0 not judged" in said
    assert {r["id"] for r in rows} == {s.id for s in samples if s.finish_reason == "stop"}


def test_steps_are_stepwise_supervision(pairs_run: TinyRun, export: Export) -> None:
    _, rows = export(pairs_run, "steps.jsonl", "--what", "steps")
    by_sample: dict[str, list[Step]] = {}
    for step in stored(pairs_run, "iteration1/steps", Step):
        by_sample.setdefault(step.sample, []).append(step)
    texts = {s.id: s.text for s in stored(pairs_run, "iteration1/sample", Sample)}
    assert {r["id"] for r in rows} == set(by_sample) and len(rows) >= 8
    for r in rows:
        mine = by_sample[r["id"]]
        assert r["values"] == [s.value for s in mine] and r["labels"] == [s.value > 0 for s in mine if s.value is not None]
        assert "".join(r["completions"]) == texts[r["id"]] and r["complete"]
    assert {label for r in rows for label in r["labels"]} == {True, False}


def test_samples_go_to_ratchet_score_and_back(lora_run: TinyRun, export: Export, tmp_path: Path) -> None:
    """Accuracy from the file is the accuracy of the run, for training samples and for an evaluation's."""
    for options, at, label in (
        ((), "@1", "iteration1/verify"), (("--benchmark", "held"), "@2", "iteration2/held/sampled/verify"),
        (("--benchmark", "held"), "@0", "initial/held/sampled/verify"),
    ):  # fmt: skip
        name = f"samples{label.count('/')}{at}.jsonl"
        _, rows = export(lora_run, name, "--what", "samples", *options, at=at)
        verdicts: list[VerdictRow] = stored(lora_run, label, VerdictRow)
        assert [(r["sample_id"], r["outcome"]) for r in rows] == [(v.sample, v.outcome) for v in verdicts]
        scored = score_file(tmp_path / name)
        right = sum(v.outcome == "correct" for v in verdicts) / len(verdicts)
        assert scored["at"][0]["pass"]["mean"] == pytest.approx(right)
        assert scored["samples"] == len(rows) and "reward" not in rows.column_names


def test_rewards_of_a_reward_model_travel_with_the_samples(pairs_run: TinyRun, export: Export, tmp_path: Path) -> None:
    _, rows = export(pairs_run, "samples.jsonl", "--what", "samples")
    scores = {s.sample: s.value for s in stored(pairs_run, "iteration1/reward_score", Score)}
    assert {r["sample_id"]: r["reward"] for r in rows} == scores and len(set(scores.values())) > 4
    scored = score_file(tmp_path / "samples.jsonl")
    assert [record["rm"] is not None for record in scored["at"]] == [True] * len(scored["at"])


def test_groups_are_those_of_the_reward_model(pairs_run: TinyRun, export: Export) -> None:
    _, rows = export(pairs_run, "groups.jsonl", "--what", "groups")
    groups: list[Group] = stored(pairs_run, "iteration1/reward_data", Group)
    samples = {s.id: s.text for s in stored(pairs_run, "iteration1/sample", Sample)}
    assert len(rows) == len(groups) >= 3
    for row, group in zip(rows, groups, strict=True):
        assert [c[0]["content"] for c in row["completions"]] == [samples[s] for s in group.samples]
        assert row["labels"] == [label == 1.0 for label in group.labels] and set(row["labels"]) == {True, False}
        assert row["prompt"][0]["content"] == f"{row['problem_id'].removeprefix('own:')} eggs?"


def test_problems_come_back_as_a_source(lora_run: TinyRun, export: Export, tmp_path: Path) -> None:
    _, rows = export(lora_run, "problems.jsonl", "--what", "problems")
    again = load_problems("jsonl", "train", path=str(tmp_path / "problems.jsonl"))
    assert [(p.id, p.question, p.answer, p.solution) for p in again] == [
        (r["id"], r["question"], r["answer"], r["solution"]) for r in rows
    ]
    assert len(rows) == 12 and "eggs" in rows[0]["question"]
    _, held = export(lora_run, "held.parquet", "--what", "problems", "--benchmark", "held")
    assert "cows" in held[0]["question"] and "level" not in held.column_names


def test_what_does_not_exist_is_said(lora_run: TinyRun, pairs_run: TinyRun, tiny_run: TinyRun, tmp_path: Path) -> None:
    to = ("--to", str(tmp_path / "x.jsonl"))
    for run, options, at, said in (
        (lora_run, ("--what", "pairs"), "", "was not trained on pairs (training.method: sft)"),
        (pairs_run, ("--what", "sft"), "", "was not trained on examples (training.method: dpo)"),
        (lora_run, ("--what", "steps"), "", "has no step values"),
        (lora_run, ("--what", "groups"), "", "has no groups of solutions; it trained no reward model"),
        (lora_run, ("--what", "samples", "--benchmark", "gsm8k"), "", "no evaluation `gsm8k`; the run has: held"),
        (lora_run, ("--what", "samples"), "@0", "has no stored samples to learn from"),
        (lora_run, ("--what", "sft"), "@3", "has iterations 1 to 2, not `3`"),
        (lora_run, ("--what", "sft"), "@²", "has iterations 1 to 2, not `²`"),
        (lora_run, ("--what", "sft"), "@first", "not `first`; `last` and `best`"),
        (pairs_run, ("--what", "pairs"), "@best", "no trained iteration has been measured"),
        (lora_run, ("--what", "sft"), "@0", "is no trained model: "),
    ):
        error = refusal(run, *to, *options, at=at)
        assert said in str(error) and error.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_run_of_a_reward_model_alone_exports_what_it_measured(tiny_run: TinyRun, export: Export, tmp_path: Path) -> None:
    """The answers are those of the model that it began with."""
    wanted = ["training.method=reward_model", "training.adapter=lora", "reward_model={kind: outcome, validation_fraction: 0.0}",
              "sampling.temperature=0.7", "evaluation.samples=2"]  # fmt: skip
    ratchet("run", str(tiny_run.recipe), "--run-dir", "alone", *wanted, home=tmp_path / "home", cwd=tmp_path)
    run = TinyRun(tiny_run.recipe, tmp_path / "alone", tmp_path / "home", "")
    measured = {s.id for s in stored(run, "initial/words/sampled/sample", Sample)}
    for i, at in enumerate(("", "@1", "@iteration1", "@0")):
        said, rows = export(run, f"{i}.jsonl", "--what", "samples", "--benchmark", "words", at=at)
        assert {r["sample_id"] for r in rows} == measured and len(measured) == 16
    assert f"of {run.folder}@0 ->" in said
    refused = refusal(run, "--what", "sft", "--to", str(tmp_path / "sft.jsonl"))
    assert "has trained no model (training.method: reward_model)" in str(refused)
    assert f"{run.folder}@iteration1 has no evaluation `gsm8k`; the run has: words" in str(
        refusal(run, "--what", "samples", "--benchmark", "gsm8k", "--to", str(tmp_path / "none.jsonl"))
    )


def test_files_are_named_by_their_format_and_never_replaced(lora_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("precious")
    assert "exists: remove it" in str(refusal(lora_run, "--what", "sft", "--to", str(tmp_path / "mine.jsonl")))
    assert (tmp_path / "mine.jsonl").read_text() == "precious"
    assert "ends in .jsonl or .parquet" in str(refusal(lora_run, "--what", "sft", "--to", str(tmp_path / "out")))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.jsonl"]


def test_parquet_and_jsonl_hold_the_same_rows(pairs_run: TinyRun, export: Export, tmp_path: Path) -> None:
    _, lines = export(pairs_run, "a.jsonl", "--what", "pairs")
    _, table = export(pairs_run, "a.parquet", "--what", "pairs")
    assert list(lines) == list(table) == pq.read_table(tmp_path / "a.parquet").to_pylist()
