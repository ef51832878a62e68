from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import apply_override, load_recipe, shipped, valid_keys

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A recipe file of this text; its path."""

    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


def refusal(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_validates(name: str):
    recipe = load_recipe(name)
    assert recipe.evaluation.benchmarks, "a shipped recipe measures what it does"


def test_a_file_is_named_after_itself_unless_it_says_otherwise(write: Write):
    assert load_recipe(write("seed: 3")).name == "mine"
    assert load_recipe(write("name: other")).name == "other"
    assert load_recipe(write("")).seed == 0


@pytest.mark.parametrize(
    ("text", "line", "key", "suggestion"),
    [
        ("seed: 1\nsampling:\n  temprature: 0.8", 3, "sampling.temprature", "sampling.temperature"),
        ("training:\n\n  temperature: 0.8", 3, "training.temperature", "sampling.temperature"),
        ("training:\n  temprature: 0.8", 2, "training.temprature", "sampling.temperature"),
        ("seed: 1\nlearning_rate: 0.1", 2, "learning_rate", "training.learning_rate"),
        ("samplin: {n: 1}", 1, "samplin", "sampling"),
        (
            "evaluation:\n  benchmarks:\n    - name: a\n      source: {source: gsm8k}\n"
            "    - name: b\n      source:\n        sorce: math",
            7, "evaluation.benchmarks.1.source.sorce", "evaluation.benchmarks.1.source.source",
        ),
    ],
)
def test_an_unknown_key_is_located_and_the_right_one_suggested(
    write: Write, text: str, line: int, key: str, suggestion: str
):
    path = write(text)
    assert f"{path}:{line}: unknown key `{key}`; did you mean `{suggestion}`?" in refusal(path)


def test_an_unknown_key_like_no_other_shows_what_is_valid(write: Write):
    message = refusal(write("rewards: {zzz: 1}"))
    assert "`rewards.zzz`; valid here: mode, timeout, max_failure_rate" in message


def test_all_wrong_keys_are_reported_at_once(write: Write):
    message = refusal(write("seed: x\nsampling: {n: 0}\nbogus: 1"))
    assert [line.rsplit("mine.yaml:")[1][0] for line in message.splitlines()] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("sampling:\n  n: many", 2, "`sampling.n`: Input should be a valid integer"),
        ("sampling:\n  n: many", 2, "(got 'many')"),
        ("sampling: {n: 0}", 1, "greater than 0 (got 0)"),
        ("training:\n  learning_rate: .inf", 2, "`training.learning_rate`: Input should be a finite number (got inf)"),
        ("executor: {threads: 0}", 1, "`executor.threads`: "),
        ("training:\n  lora:\n    targets: [q_proj, 3]", 3, "`training.lora.targets.1`: "),
        ("model:\n  dtype: float64", 2, "'float32' or 'bfloat16' (got 'float64')"),
        ("data: {prompt: {template: '{q}'}}", 1, "`template` must contain {question}"),
        ("seed: 1\ndata: {train: {source: jsonl, limit: 1}}", 2, "`data.train`: `path` is required"),
        ("data: {train: {source: gsm8k, path: a.jsonl}}", 1, "and `datasets` and belongs to no other source"),
        ("data:\n  train: {source: procedural}", 2, "is endless: set `limit`"),
        ("data:\n  train: {source: gsm8k, levels: [1]}", 2, "belong to source `procedural` only"),
        ("evaluation:\n  benchmarks:\n    - {name: a, source: {source: gsm8k}}\n    - {name: a, source: {source: math}}",
         1, "benchmark names must differ: ['a', 'a']"),
        ("evaluation: {benchmarks: [{name: a/b, source: {source: gsm8k}}]}", 1, "`evaluation.benchmarks.0.name`"),
    ],
)
def test_a_wrong_value_is_located_and_shown(write: Write, text: str, line: int, expected: str):
    path = write(text)
    message = refusal(path)
    assert f"{path}:{line}: " in message
    assert expected in message


def test_slices_must_fit_the_training_problems(write: Write):
    path = write("data: {fresh_per_iteration: true, train: {source: gsm8k, limit: 2}}\niterations: {count: 3}")
    assert "`data.fresh_per_iteration` needs `data.train.limit` >= `iterations.count`" in refusal(path)
    assert load_recipe(path, ["iterations.count=2"]).iterations.count == 2


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("seed: 1\nsampling: {n: 1}\nseed: 2", 3, "key `seed` is given twice"),
        ("sampling:\n  n: 1\n  n: 2", 3, "key `sampling.n` is given twice"),
        ("seed: 1\nsampling: [", 2, "not valid YAML"),
        ("seed: 1\n\tn: 2", 2, "not valid YAML"),
    ],
)
def test_broken_yaml_is_located(write: Write, text: str, line: int, expected: str):
    path = write(text)
    message = refusal(path)
    assert message.startswith(f"{path}:{line}: ")
    assert expected in message


@pytest.mark.parametrize("text", ["- 1", "just text", "\0"])
def test_a_file_that_is_no_recipe_is_refused_by_name(write: Write, text: str):
    path = write(text)
    assert path in refusal(path)


def test_a_binary_file_is_refused(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x80")
    assert f"{path}: not a text file" in refusal(str(path))


def test_an_unknown_recipe_suggests_a_shipped_one(tmp_path: Path):
    assert "no recipe `dmo`; did you mean `demo`?" in refusal("dmo")
    assert f"no recipe `qqqq`. Shipped recipes: {', '.join(shipped())};" in refusal("qqqq")
    missing = tmp_path / "none.yaml"
    assert refusal(str(missing)) == f"recipe file {missing} does not exist"


def test_overrides_set_leaves_items_and_whole_sections():
    recipe = load_recipe(
        "demo",
        ["sampling.temperature=0.25", "evaluation.benchmarks.0.source.limit=7", "training.learning_rate=5e-4",
         "training.weight_decay=1E-2", "data.train.levels=[1, 2]", "selection={max_per_problem: 9}",
         "data.train.seed=null", "sampling.stop=['5e-4']", "name=5e"],
    )
    assert recipe.sampling.temperature == 0.25
    assert recipe.evaluation.benchmarks[0].source.limit == 7
    assert (recipe.training.learning_rate, recipe.training.weight_decay) == (5e-4, 1e-2)
    assert recipe.data.train.levels == [1, 2]
    assert recipe.selection.max_per_problem == 9
    assert recipe.data.train.seed is None
    assert (recipe.sampling.stop, recipe.name) == (["5e-4"], "5e")


def test_numbers_in_scientific_notation_are_numbers_in_a_file_and_quoted_ones_are_text(write: Write):
    recipe = load_recipe(write("training: {learning_rate: 5e-4}\nsampling: {stop: ['1e3', ok]}"))
    assert recipe.training.learning_rate == 5e-4
    assert recipe.sampling.stop == ["1e3", "ok"]


def test_an_override_fills_a_section_left_empty(write: Write):
    assert load_recipe(write("sampling:"), ["sampling.n=2"]).sampling.n == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sampling.n", "is not of the form key=value"),
        ("=3", "is not of the form key=value"),
        ("sampling.n=[", "the value is not valid YAML"),
        ("name.x=1", "`name` is a value, not a section"),
        ("evaluation.benchmarks.3.name=x", "`evaluation.benchmarks` has items 0 to 0"),
        ("evaluation.benchmarks.².name=x", "`evaluation.benchmarks` has items 0 to 0"),
        ("evaluation.benchmarks.first.name=x", "`evaluation.benchmarks` has items 0 to 0"),
        ("sampling.temprature=1", "unknown key `sampling.temprature`; did you mean `sampling.temperature`?"),
        ("sampling.n=x", "`sampling.n`: Input should be a valid integer"),
        ("evaluation.benchmarks.0.source.limit=-1", "`evaluation.benchmarks.0.source.limit`: "),
    ],
)
def test_a_wrong_override_is_named_and_not_blamed_on_the_file(override: str, expected: str):
    message = refusal("demo", override)
    assert message.startswith(f"override `{override}`: ") or "is not of the form" in message
    assert override in message
    assert expected in message
    assert ".yaml" not in message


def test_apply_override_says_where_it_set():
    data = {"a": [{"b": 1}]}
    assert apply_override(data, "a.0.b=2") == ("a", 0, "b")
    assert data == {"a": [{"b": 2}]}


def test_valid_keys_reach_into_lists():
    keys = valid_keys()
    assert {"seed", "sampling.n", "evaluation.benchmarks.source.limit", "training.lora.r"} <= set(keys)
