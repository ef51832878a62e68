"""A real evaluation of the tiny model, and the files that it leaves: figures, Markdown, every answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from configs.load import load_recipe
from pipelines.cli import app
from pipelines.results import markdown
from pipelines.statistics import clustered, wilson
from tests.conftest import TinyRun

SETTINGS = ("sampling.engine=transformers", "sampling.max_tokens=32", "model.dtype=float32", "executor.threads=1")


class Evaluated:
    """An evaluation's folder and what was printed."""

    def __init__(self, folder: Path, output: str) -> None:
        self.folder, self.output = folder, output
        self.found: dict[str, Any] = json.loads((folder / "results.json").read_text())

    def answers(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "answers" / name).read_text().splitlines()]


def questions(tiny_run: TinyRun) -> list[dict[str, Any]]:
    """The problems of the tiny run, whose answers are what the tiny model says; every fourth is made wrong."""
    source = load_recipe(str(tiny_run.recipe)).data.train.path
    rows = [json.loads(line) for line in Path(str(source)).read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {"level": 1 + number % 2, "subject": "birds" if number % 4 else "e|ggs"}
        row["answer"] = "-77" if number % 4 == 0 else row["answer"]
    return rows


@pytest.fixture(scope="module")
def evaluated(tiny_run: TinyRun, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    root = tmp_path_factory.mktemp("evaluated")
    own, shots = root / "birds.jsonl", root / "shots.jsonl"
    own.write_text("".join(json.dumps(r) + "\n" for r in questions(tiny_run)))
    shots.write_text('{"question": "2 cats?", "answer": 2, "solution": "Two: <<1+1=2>>2.\\n#### 2"}\n')
    wanted = [
        "evaluation.samples=3", "evaluation.seeds=[5, 6]", "evaluation.temperature=0.3", "evaluation.shots=1",
        f"evaluation.shots_file={shots}",
    ]
    folder = root / "e"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_HOME", str(root / "home"))
        arguments = ["eval", str(tiny_model), "--benchmarks", str(own), "--run-dir", str(folder), *SETTINGS, *wanted]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        again = CliRunner().invoke(app, ["resume", str(folder)])
        assert again.exit_code == 0 and again.output.count("(cached)") == result.output.count(" s)")
    return Evaluated(folder, result.output)


def test_every_answer_is_there_to_be_read(evaluated: Evaluated, tiny_run: TinyRun):
    rows = questions(tiny_run)
    greedy = evaluated.answers("initial-birds-greedy.jsonl")
    assert [(a["question"], a["gold"]) for a in greedy] == [(r["question"], r["answer"]) for r in rows]
    assert {a["verdict"] for a in greedy} <= {"correct", "wrong", "no_answer"}
    assert all((a["extracted"] is None) == (a["verdict"] == "no_answer") and isinstance(a["text"], str) for a in greedy)
    assert [a["level"] for a in greedy[:3]] == ["1", "2", "1"]
    for seed in (5, 6):
        assert len(evaluated.answers(f"initial-birds-sampled-seed{seed}.jsonl")) == 3 * len(rows)


def test_the_figures_follow_from_the_answers(evaluated: Evaluated):
    for e in evaluated.found["evaluations"]:
        answers = evaluated.answers(Path(e["answers"]).name)
        shares: dict[str, list[float]] = {}
        for a in answers:
            shares.setdefault(a["problem"], []).append(float(a["verdict"] == "correct"))
        means = [sum(s) / len(s) for s in shares.values()]
        assert e["accuracy"] == pytest.approx(sum(means) / len(means))
        assert (e["low"], e["high"]) == pytest.approx(clustered(means, len(answers)))
        assert (e["problems"], e["samples"]) == (len(means), len(answers))
        for name, group in e["by"]["level"].items():
            mine = [a for a in answers if a["level"] == name]
            assert group["accuracy"] == pytest.approx(sum(a["verdict"] == "correct" for a in mine) / len(mine))
        assert set(e["by"]["subject"]) == {"birds", "e|ggs"}
    greedy, first, second = evaluated.found["evaluations"]
    assert greedy["interval"] == "wilson 95%"
    right = round(greedy["accuracy"] * greedy["problems"])
    assert (greedy["low"], greedy["high"]) == pytest.approx(wilson(right, greedy["problems"]))
    assert first["interval"] == "clustered by problem 95%"
    (sampled,) = evaluated.found["sampled"]
    assert sampled["seeds"] == {"5": pytest.approx(first["accuracy"]), "6": pytest.approx(second["accuracy"])}
    assert sampled["accuracy"] == pytest.approx((first["accuracy"] + second["accuracy"]) / 2)
    assert [r["k"] for r in sampled["at"]] == [1, 2, 4, 6]


def test_the_prompt_is_told_exactly_with_its_worked_example(evaluated: Evaluated):
    prompts = {e["prompt_example"] for e in evaluated.found["evaluations"]}
    assert prompts == {"user: 2 cats?<end>\nassistant: Two: 2.\n#### 2<end>\nuser: 0 eggs, 0 hens?<end>\nassistant: "}
    assert f"prompt: {prompts.pop()!r}" in evaluated.output
    assert f"results: {evaluated.folder}/results.md; every answer: {evaluated.folder}/answers" in evaluated.output


def test_the_markdown_has_every_table_and_no_broken_row(evaluated: Evaluated):
    text = (evaluated.folder / "results.md").read_text()
    for title in ("Accuracy", "Sampled answers", "By level", "By subject", "How it was measured"):
        assert f"\n## {title}\n" in text
    assert "| e\\|ggs |" in text
    assert "by seed: 5: " in text
    width = 0
    for line in text.partition("## How")[0].splitlines():
        cells = line.replace("\\|", "").count("|")
        assert cells == width or not width or not cells, line
        width = cells
    assert "[file](answers/initial-birds-greedy.jsonl)" in text
    assert text.count("2 cats?") == 3, "once for greedy, once for each seed"


def test_a_prompt_with_a_fence_cannot_end_the_block(evaluated: Evaluated):
    found = json.loads(json.dumps(evaluated.found))
    found["evaluations"][0]["prompt_example"] = "```\n# no title\n```"
    lines = list(markdown(found))
    at = lines.index("```\n# no title\n```")
    assert lines[at - 1] == lines[at + 1] == "````"


def test_a_run_that_trains_tells_the_gain_of_each_iteration(tiny_run: TinyRun):
    found = json.loads((tiny_run.folder / "results.json").read_text())
    (gain,) = found["comparisons"]
    assert (gain["model"], gain["with"], gain["problems"]) == ("iteration1", "initial", 8)
    first, last = (e["accuracy"] for e in found["evaluations"])
    assert gain["difference"] == pytest.approx(last - first)
    assert "## Compared with initial on the same problems" in (tiny_run.folder / "results.md").read_text()
    assert "prompt: " not in tiny_run.output


def test_a_run_without_benchmarks_leaves_no_results(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "home"))
    asked = ["run", str(tiny_run.recipe), "evaluation.benchmarks=[]", "--run-dir", str(tmp_path / "r")]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "r" / "results.json").exists()
    assert "results: " not in result.output
