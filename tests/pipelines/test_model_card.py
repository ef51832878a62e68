"""Model cards say what the run has recorded, and no more."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from configs.evaluation_section import SourceSection
from configs.load import load_recipe, validate
from pipelines.cli import app
from pipelines.export.base import base_of, hub_set, set_in_words, set_licence
from pipelines.export.card import Card
from pipelines.export.source import Source
from tests.conftest import TinyRun, write_tiny_recipe
from tests.pipelines.test_export_weights import copied


def card_of(reference: str, folder: Path, merged: str | None = "float32", base_model: str | None = None) -> ModelCard:
    """The card as the hub's library reads it."""
    source = Source(reference)
    folder.mkdir(parents=True, exist_ok=True)
    Card(source, base_of(source, base_model), merged).write(folder)
    return ModelCard.load(folder / "README.md")


@pytest.fixture
def at_home(lora_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> TinyRun:
    monkeypatch.setenv("RATCHET_HOME", str(lora_run.home))
    return lora_run


def section(card: ModelCard, title: str) -> str:
    return card.text.partition(f"## {title}")[2].partition("\n## ")[0]


def test_metadata_is_what_the_hub_knows(at_home: TinyRun, tmp_path: Path) -> None:
    merged = card_of(f"{at_home.folder}@2", tmp_path / "a", base_model="team/tiny").data.to_dict()
    assert merged == {
        "base_model": "team/tiny", "base_model_relation": "finetune", "library_name": "transformers",
        "pipeline_tag": "text-generation", "tags": ["ratchet", "reasoning", "sft", "lora"],
    }  # fmt: skip
    adapter = card_of(f"{at_home.folder}@2", tmp_path / "b", None).data.to_dict()
    assert adapter["library_name"] == "peft" and "base_model" not in adapter  # a local folder has no name there


def test_figures_are_those_of_the_run(at_home: TinyRun, tmp_path: Path) -> None:
    text = section(card_of(f"{at_home.folder}@2", tmp_path), "Accuracy")
    metrics = [json.loads(line) for line in (at_home.folder / "metrics.jsonl").read_text().splitlines()]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")][2:]
    scores = [m for m in metrics if m["kind"] == "score"]
    assert len(rows) == len(scores) == 6
    for row, m in zip(rows, scores, strict=True):
        who, benchmark, decoding = m["stage"].split("/")
        assert row[0].strip("*") == {"initial": "start", "iteration1": "iteration 1", "iteration2": "iteration 2"}[who]
        assert row[1:6] == [
            benchmark, "greedy" if decoding == "greedy" else "2 samples at 0.7", f"{m['accuracy']:.1%}",
            f"[{m['low']:.1%}, {m['high']:.1%}]", "12",
        ]  # fmt: skip
        assert bool(row[6]) == (who != "initial") and row[0].startswith("**") == (who == "iteration2")
    assert "`held`: `held.jsonl`, split train" in text and "engine transformers, float32" in text


def test_only_what_led_to_the_iteration_is_told(at_home: TinyRun, tmp_path: Path) -> None:
    first, second = (section(card_of(f"{at_home.folder}@{i}", tmp_path / str(i)), "Training: run lora") for i in (1, 2))
    assert "iteration1/train" in first and "iteration2" not in first
    assert "iteration2/train" in second and "12 kept, 0 dropped" in second and "held/greedy" not in second


def test_whose_solutions_were_learned_is_told(at_home: TinyRun, tmp_path: Path) -> None:
    """The first iteration has nothing but the solutions that came with the problems, the second its own besides."""
    metrics = [json.loads(line) for line in (at_home.folder / "metrics.jsonl").read_text().splitlines()]
    (own,) = (m["examples"] - m["human"] for m in metrics if m["stage"] == "iteration2/select")
    first, second = (card_of(f"{at_home.folder}@{i}", tmp_path / str(i)).text for i in (1, 2))
    assert own > 0 and "supervised fine-tuning on 12 solutions that came with the problems; LoRA" in first
    assert f"on {own} verified samples of the model and 12 solutions that came with the problems; LoRA" in second


def test_the_best_of_several_says_so(at_home: TinyRun, tmp_path: Path) -> None:
    plain, best = (card_of(f"{at_home.folder}{at}", tmp_path / at).text for at in ("@2", "@best"))
    assert "rather too high" in best and "chosen for the highest greedy accuracy on `held`" in best
    assert "rather too high" not in plain and "chosen" not in plain


def test_the_recipe_in_it_is_the_runs_and_no_folder_is_named(at_home: TinyRun, tmp_path: Path) -> None:
    card = card_of(f"{at_home.folder}@2", tmp_path)
    assert str(at_home.home.parent) not in card.content and "/tmp" not in card.content
    (block,) = re.findall(r"```yaml\n(.*?)```", card.text, re.DOTALL)
    own = Source(str(at_home.folder)).recipe
    written = validate(yaml.safe_load(block), "the card")
    paths = {"model": own.model.name, "train": own.data.train.path, "held": own.evaluation.benchmarks[0].source.path}
    assert (written.model.name, written.data.train.path) == (Path(paths["model"]).name, Path(str(paths["train"])).name)

    def without_paths(recipe: Any) -> dict[str, Any]:
        data = recipe.model_dump(mode="json", exclude={"executor"})
        data["model"]["name"] = data["data"]["train"]["path"] = data["evaluation"]["benchmarks"][0]["source"]["path"] = None
        return data

    assert without_paths(written) == without_paths(own)


def test_names_and_prompts_with_signs_of_markdown_break_no_table_and_no_block(at_home: TinyRun, tmp_path: Path) -> None:

    def outline(card: ModelCard) -> Counter[str]:
        made = MarkdownIt().enable("table").parse(card.text)
        return Counter(t.type for t in made if t.type in ("heading_open", "table_open", "tr_open", "th_open", "td_open"))

    fence = "```\n# no title\n```\n| no | table |"
    run = copied(at_home, tmp_path / "run", data={"prompt": {"style": "chat", "system": fence}})
    for name in ("plan.json", "recipe.yaml"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace("/held/", "/he|ld/").replace("name: held", "name: he|ld"))
    card = card_of(f"{run}@2", tmp_path / "card")
    assert "| he\\|ld |" in card.text
    assert outline(card) == outline(card_of(f"{at_home.folder}@2", tmp_path / "plain"))
    blocks = [t.content for t in MarkdownIt().parse(card.text) if t.type == "fence"]
    assert sum(fence in block for block in blocks) == 1, "the prompt of training"
    assert any(fence in yaml.safe_load(block)["data"]["prompt"]["system"] for block in blocks if block.startswith("name: "))


def test_a_licence_is_told_where_the_base_brings_its_own(at_home: TinyRun, tiny_model: Path, tmp_path: Path) -> None:
    base = tmp_path / "licensed"
    shutil.copytree(tiny_model, base)
    metadata = "license: other\nlicense_name: own-1.0\nlicense_link: LICENSE\ntags: [a]"
    (base / "README.md").write_text(f"---\n{metadata}\n---\nA model.")
    run = copied(at_home, tmp_path / "run", model={"name": str(base)})
    card = card_of(f"{run}@2", tmp_path / "out")
    data = card.data.to_dict()
    assert (data["license"], data["license_name"], data["license_link"]) == ("other", "own-1.0", "LICENSE")
    assert "Base: own-1.0." in section(card, "Licences") and "a local model, `licensed`." in card.text
    plain = card_of(f"{at_home.folder}@2", tmp_path / "plain")
    assert "license" not in plain.data.to_dict() and "Base: not recorded" in section(plain, "Licences")


def test_a_run_on_top_of_a_run_tells_of_both(at_home: TinyRun, tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_tiny_recipe(tmp_path / "next.yaml", tiny_model, [
        f"model.name={at_home.folder}@1", "evaluation.benchmarks=[]", "training={adapter: lora, lora: {r: 4}, epochs: 1}",
    ])  # fmt: skip
    done = CliRunner().invoke(app, ["run", str(recipe), "--run-dir", str(tmp_path / "run")])
    assert done.exit_code == 0, (done.output, done.exception)
    card = card_of(f"{tmp_path / 'run'}", tmp_path / "out")
    assert "The run began with iteration 1 of run lora." in card.text
    assert "iteration1/train" in section(card, "Training: run lora, to iteration 1")
    assert "iteration1/train" in section(card, "Training: run next, to iteration 1")
    assert section(card, "Accuracy").strip() == "The run has measured nothing."
    assert "were not compared with evaluation sets" in section(card, "Limits")
    assert "own.jsonl" in section(card, "Licences") and "generated by Ratchet" in section(card, "Licences")


@pytest.mark.parametrize(
    ("source", "hub", "licence"),
    [
        ({"source": "gsm8k"}, "openai/gsm8k", "MIT"),
        ({"source": "math"}, "EleutherAI/hendrycks_math", "MIT"),
        ({"source": "math500", "split": "test"}, "HuggingFaceH4/MATH-500", "MIT"),
        ({"source": "datasets", "path": "team/sums"}, "team/sums", "not recorded"),
        ({"source": "datasets", "path": "/data/mine/sums.csv"}, None, "not recorded"),
        ({"source": "jsonl", "path": "/data/mine/sums.jsonl"}, None, "not recorded"),
        ({"source": "procedural", "limit": 3}, None, "generated by Ratchet"),
    ],
)
def test_data_by_its_public_name(source: dict[str, Any], hub: str | None, licence: str) -> None:
    section = SourceSection.model_validate(source)
    assert hub_set(section) == hub and licence in set_licence(section)
    words = set_in_words(section)
    assert "/data" not in words and ("sums" in words) == ("path" in source)


def test_the_bundled_model_is_named_as_what_it_is() -> None:
    assert load_recipe("demo").model.name == "bundled:smollm2-135m-instruct"

    class Demo:
        recipe = load_recipe("demo")
        model: Any = type("Model", (), {"path": Path("/nowhere")})

    base = base_of(Demo(), None)  # type: ignore[arg-type]  # what base_of reads of a run
    assert (base.hub, base.exact, base.licence) == ("HuggingFaceTB/SmolLM2-135M-Instruct", False, {"license": "apache-2.0"})
    assert "Q4_1" in base.said
