"""Phases and `extends`: what they change, what they must not, and where errors are said to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from configs.errors import ConfigError
from configs.load import load_recipe, shipped, validate
from configs.merge import merge
from configs.phase_section import PHASED, UNPHASED, WHOLE
from configs.phases import model_names, phases_of
from configs.schema import Recipe

Write = Callable[..., str]

TWO = """
data: {train: {source: gsm8k}, prompt: {system: Think.}}
training: {learning_rate: 1.0e-3, epochs: 2}
phases:
  - name: sft
    selection: {max_per_problem: 0, include_human: true}
  - name: dpo
    data: {train: {limit: 100}}
    pairs: {kind: rise}
    training: {method: dpo, dpo: {beta: 0.4}}
    iterations: {count: 2}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "mine.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def refusal(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, overrides)
    return str(caught.value)


def test_a_phase_is_the_recipe_with_its_own_settings(write: Write):
    (first, sft), (second, dpo) = phases_of(load_recipe(write(TWO)))
    assert (first, second) == ("sft", "dpo")
    assert (sft.selection.max_per_problem, sft.training.method, sft.training.epochs) == (0, "sft", 2)
    assert sft.iterations.count == 1
    assert (dpo.sampling.n, dpo.training.method, dpo.training.epochs, dpo.iterations.count) == (4, "dpo", 2, 2)
    assert (dpo.training.dpo.beta, dpo.training.learning_rate) == (0.4, 1e-3)
    assert (sft.data.train.limit, dpo.data.train.limit, dpo.data.train.source) == (None, 100, "gsm8k")
    assert sft.phases == dpo.phases == []


def test_a_recipe_without_phases_is_one():
    recipe = load_recipe("demo")
    assert phases_of(recipe) == [("", recipe)]


def test_a_recipe_with_phases_survives_its_own_writing(write: Write):
    """The run folder keeps the recipe with every key written out; its phases must mean the same then."""
    recipe = load_recipe(write(TWO))
    again = validate(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))), "again")
    assert again == recipe
    assert phases_of(again) == phases_of(recipe)


def test_merging_replaces_lists_and_keeps_sections_left_empty():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 2}
    assert merge(base, {"a": {"c": [3]}, "d": None}) == {"a": {"b": 1, "c": [3]}, "d": None}
    assert merge(base, {"a": None}) == base
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 2}, "not changed in place"


def test_models_are_called_after_their_phase():
    assert model_names("", 2) == ["iteration1", "iteration2"]
    assert model_names("", 1) == ["iteration1"]
    assert model_names("rft", 2) == ["rft1", "rft2"]
    assert model_names("sft", 1) == ["sft"]


def test_overrides_reach_into_phases_by_number_and_by_name(write: Write):
    path = write(TWO)
    for key in ("phases.1.iterations.count", "phases.dpo.iterations.count"):
        assert phases_of(load_recipe(path, [f"{key}=3"]))[1][1].iterations.count == 3
    assert "`phases` has items 0 to 1 (sft, dpo)" in refusal(path, "phases.dpi.seed=1")
    assert "override `phases.dpo.training.beta=1`: unknown key `phases.1.training.beta`" in refusal(
        path, "phases.dpo.training.beta=1"
    )


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("phases:\n  - name: a\n    trainig: {epochs: 1}", 3, "unknown key `phases.0.trainig`; did you mean `training`?"),
        ("phases:\n  - name: a\n    training:\n      epoch: 1", 4,
         "unknown key `phases.0.training.epoch`; did you mean `training.epochs`?"),
        ("phases:\n  - name: a\n  - name: b\n    training: {epochs: 0}", 4,
         "`phases.1.training.epochs`: Input should be greater than 0 (got 0)"),
        ("phases:\n  - name: a\n    training: {method: dpo}", 2, "`training.method: dpo` needs `pairs.kind`"),
        ("phases:\n  - name: a\n    training: 3", 2, "`training` is a section with keys of its own, not 3"),
        ("phases:\n  - {name: a}\n  - {name: a}", 1, "the names of `phases` must differ: ['a', 'a']"),
        ("phases:\n  - name: a1", 2, "`phases.0.name`"),
        ("phases:\n  - training: {epochs: 1}", 2, "`phases.0.name`: Field required"),
        ("phases:\n  - name: initial", 2, "cannot be called `initial`"),
        ("phases: 3", 1, "`phases`: Input should be a valid list"),
    ],
)  # fmt: skip
def test_a_wrong_phase_is_located(write: Write, text: str, line: int, expected: str):
    path = write(text)
    message = refusal(path)
    assert expected in message
    if "`recipe`" not in message:  # what concerns the whole recipe has no line
        assert f"{path}:{line}: " in message


def test_every_section_belongs_to_phases_or_to_the_whole_run():
    assert sorted([*PHASED, *WHOLE]) == sorted(Recipe.model_fields)


@pytest.mark.parametrize("section", sorted(set(WHOLE) - {"name"}))
def test_what_belongs_to_the_whole_run_is_refused_in_a_phase(write: Write, section: str):
    message = refusal(write(f"phases:\n  - name: a\n    {section}: {{}}"))
    assert f"`{section}` belongs to the whole run" in message


@pytest.mark.parametrize(("section", "key"), [(s, k) for s, keys in UNPHASED.items() for k in keys])
def test_what_makes_the_models_comparable_is_refused_in_a_phase(write: Write, section: str, key: str):
    assert key in Recipe.model_fields[section].annotation.model_fields, "a key that exists"  # type: ignore[union-attr]
    assert f"`{section}.{key}` belongs to the whole run" in refusal(
        write(f"phases:\n  - name: a\n    {section}: {{{key}: 1}}")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("evaluation: {benchmarks: [{name: v, source: {source: validation}}]}", "needs `data.validation`"),
        ("data: {validation: 5, decontaminate: false}", "`validation` needs `decontaminate: true`"),
        ("data: {train: {source: validation, limit: null}}", "training must not see it"),
        ("data: {validation: 5}\nevaluation: {benchmarks: [{name: v, source: {source: validation, limit: 3}}]}",
         "takes no other key"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other(write: Write, text: str, expected: str):
    assert expected in refusal(write(text))


# --- extends ------------------------------------------------------------------------------------------


def test_a_recipe_extends_another_one_by_the_keys_that_differ(write: Write):
    base = load_recipe("rise_gsm8k")
    more = load_recipe(write("extends: rise_gsm8k\ntraining: {epochs: 1, dpo: {beta: 0.2}}"))
    assert (more.name, more.training.epochs, more.training.dpo.beta) == ("mine", 1, 0.2)
    assert more.training.dpo.nll == base.training.dpo.nll
    training = more.training.model_copy(update={"epochs": base.training.epochs, "dpo": base.training.dpo})
    assert more.model_copy(update={"name": base.name, "training": training}) == base


def test_a_list_may_be_longer_than_the_one_it_replaces_and_be_extended_again(write: Write):
    write("phases:\n  - name: one", "base.yaml")
    write("extends: base.yaml\nphases:\n  - name: one\n  - name: two\n    training: {epochs: 2}", "longer.yaml")
    path = write("extends: longer.yaml\nphases:\n  two:\n    training:\n      epochs: 7")
    (first, _), (second, two) = phases_of(load_recipe(path))
    assert (first, second, two.training.epochs) == ("one", "two", 7)
    path = write("extends: longer.yaml\nphases:\n  two:\n    training:\n      epochs: 0")
    assert f"{path}:5: `phases.1.training.epochs`" in refusal(path)


def test_a_file_beside_the_recipe_can_be_extended_and_errors_name_the_right_file(write: Write):
    base = write("seed: 3\ntraining:\n  epochs: many", "base.yaml")
    path = write("extends: base.yaml\nsampling: {n: none}")
    message = refusal(path)
    assert f"{base}:3: `training.epochs`" in message
    assert f"{path}:2: `sampling.n`" in message
    assert load_recipe(path, ["training.epochs=1", "sampling.n=1"]).seed == 3


def test_items_of_lists_are_changed_by_name_and_errors_know_where(write: Write):
    write(TWO, "base.yaml")
    path = write("extends: base.yaml\nphases:\n  dpo:\n    training: {epochs: 5}")
    (_, sft), (_, dpo) = phases_of(load_recipe(path))
    assert (sft.training.epochs, dpo.training.epochs, dpo.training.dpo.beta) == (2, 5, 0.4)
    path = write("extends: base.yaml\nphases:\n  dpo:\n    training:\n      epochs: 0")
    assert f"{path}:5: `phases.1.training.epochs`" in refusal(path)
    path = write("extends: base.yaml\nphases: {rpo: {}}")
    assert f"{path}: `phases` has items 0 to 1 (sft, dpo), not `rpo`" in refusal(path)
    path = write("extends: base.yaml\nphases:\n  - name: only")
    assert [name for name, _ in phases_of(load_recipe(path))] == ["only"], "a list takes the place of a list"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nextends: rise_gsm9k", "did you mean `rise_gsm8k`?"),
        ("seed: 1\nextends: none.yaml", "mine.yaml:2: `extends`: "),
        ("seed: 1\nextends: [demo]", "mine.yaml:2: `extends` names one recipe"),
        ("seed: 1\nextends: mine.yaml", "mine.yaml:2: `extends` goes round in a circle"),
    ],
)
def test_what_cannot_be_extended(write: Write, text: str, expected: str):
    assert expected in refusal(write(text))


def test_a_longer_circle_is_found(write: Write):
    write("extends: mine.yaml", "other.yaml")
    assert "goes round in a circle" in refusal(write("extends: other.yaml"))


@pytest.mark.parametrize("name", shipped())
def test_shipped_phases_are_recipes(name: str):
    assert phases_of(load_recipe(name))
