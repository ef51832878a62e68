"""Shapes are counted right, and the shipped ones are those that were published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from configs.load import load_recipe, shipped
from pipelines import shape as shape_module
from pipelines.shape import SHAPES, Projection, published_config, published_shape, shape_of_folder

PUBLISHED = yaml.safe_load(SHAPES.read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_shape_has_the_published_number_of_parameters(name: str) -> None:
    shape = published_shape(name)
    assert shape is not None
    assert shape.parameters == PUBLISHED[name]["parameters"]
    assert shape.vocabulary * shape.hidden * (1 if shape.tied else 2) + shape.linear < shape.parameters
    assert len(shape.projections) == 7 * shape.layers


def test_every_hub_model_of_a_shipped_recipe_has_a_shape() -> None:
    names = {load_recipe(name).model.name for name in shipped()}
    assert {n for n in names if not n.startswith("bundled:")} <= set(PUBLISHED)
    assert published_config("some/model") is None and published_shape("some/model") is None


def test_the_shape_of_a_folder_is_that_of_its_weights(tiny_model: Path) -> None:
    from safetensors import safe_open

    shape = shape_of_folder(tiny_model)
    with safe_open(tiny_model / "model.safetensors", "pt") as weights:
        sizes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    assert shape.parameters == sum(a * (b[0] if b else 1) for a, *b in sizes.values())
    config = json.loads((tiny_model / "config.json").read_text())
    assert (shape.layers, shape.hidden, shape.vocabulary) == (2, 32, config["vocab_size"])
    assert shape.projections[0] == Projection("model.layers.0.self_attn.q_proj", 32, 32)
    assert "lm_head" not in {p.name for p in shape.projections}


def test_what_was_counted_is_not_counted_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by another process, which this one without its cache stands for; a torn file is."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    counts, count = [], shape_module._count
    monkeypatch.setattr(shape_module, "_count", lambda text: counts.append(text) or count(text))
    shapes = []
    for torn in (False, False, True):
        shape_module._counted.cache_clear()
        for file in tmp_path.glob("shapes/*") if torn else ():
            file.write_bytes(file.read_bytes()[:-9])
        shapes.append(shape_of_folder(tiny_model))
    assert shapes[0] == shapes[1] == shapes[2] and shapes[0].source == str(tiny_model / "config.json")
    assert len(counts) == 2
    tmp_path.joinpath("shapes").rename(tmp_path / "moved")
    (tmp_path / "shapes").write_text("a file where a folder should be")
    shape_module._counted.cache_clear()
    assert shape_of_folder(tiny_model) == shapes[0], "where nothing can be kept"
    shape_module._counted.cache_clear()


def test_adapters_go_where_they_are_asked_to(tiny_model: Path) -> None:
    shape = shape_of_folder(tiny_model)
    assert shape.adapted("all-linear") == shape.projections
    chosen = shape.adapted(["q_proj", "v_proj"])
    assert {p.name.rpartition(".")[2] for p in chosen} == {"q_proj", "v_proj"} and len(chosen) == 4


def test_families_with_other_names_or_without_attention_have_a_shape(tmp_path: Path) -> None:
    sizes = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0}
    gpt2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 4, **sizes}
    mamba = {"model_type": "mamba", "num_hidden_layers": 2, "hidden_size": 32, "state_size": 4, **sizes}
    for config, heads in ((gpt2, 4), (mamba, 0)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        shape = shape_of_folder(tmp_path)
        assert (shape.layers, shape.hidden, shape.vocabulary, shape.heads) == (2, 32, 300, heads)
        assert shape.parameters > 300 * 32
