"""From a recipe to the graph of its stages.

`resolve` replaces every `auto` by what it means on this machine; `build` lays out the stages in the order in
which they run. Keys follow from content, so the plan knows what is cached before anything runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from configs.errors import ConfigError
from configs.keys import content_key
from configs.schema import KNIGHTS, ONLINE, BenchmarkSection, Recipe, SourceSection
from data_gen.engine import resolve_engine
from pipelines import plan_balance, plan_pairs
from pipelines.files import sha256_of
from pipelines.hardware import cores, resolve_dtype
from pipelines.models import ResolvedModel
from pipelines.plan_rewards import RewardModel
from pipelines.stage import Stage


class Plan(msgspec.Struct, frozen=True):
    """Stages in running order, and the training stage (or None: the base model) that ends each iteration."""

    recipe: Recipe
    model: ResolvedModel
    stages: list[Stage]
    trained: list[Stage]


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with engine, dtype and threads settled for this machine, and local paths made absolute, so that
    a resume from another folder finds the same files."""
    data = recipe.model_dump()
    for source in (data["data"]["train"], *(b["source"] for b in data["evaluation"]["benchmarks"])):
        source["path"] = source["path"] and str(Path(source["path"]).expanduser().absolute())
    if (folder := Path(recipe.model.name).expanduser()).exists():
        data["model"]["name"] = str(folder.absolute())
    data["sampling"]["engine"] = resolve_engine(recipe.sampling.engine)
    data["model"]["dtype"] = resolve_dtype(recipe.model.dtype)
    if recipe.executor.threads == "auto":
        data["executor"]["threads"] = max(1, cores() // recipe.executor.workers)
    return Recipe.model_validate(data)


class Builder:
    """Makes the stages of one recipe."""

    def __init__(self, recipe: Recipe, model: ResolvedModel) -> None:
        self.recipe, self.model = recipe, model
        self.stages: list[Stage] = []
        self.valued: dict[str, tuple[Stage, Stage]] = {}  # rollouts and steps, by iteration
        self.full = recipe.training.adapter == "full"
        self.initial = Stage("train", model.label, {}, given_key=model.trained) if model.trained else None

    def add(self, stage: Stage) -> Stage:
        """Append a stage unless one of the same key is there already."""
        known = next((s for s in self.stages if s.key == stage.key), None)
        if known is None:
            self.stages.append(stage)
        return known or stage

    def problems(self, label: str, source: SourceSection) -> Stage:
        # keys that came with a source are left out of the others, whose artefacts stay what they were
        config: dict[str, Any] = source.model_dump(exclude={"path", *(KNIGHTS if source.source != "knights" else ())})
        paths = {}
        if source.path is not None:
            path = Path(source.path).expanduser().resolve()
            if not path.is_file():
                raise ConfigError(f"{label}: {path} does not exist")
            # the name too: it is part of the ids of rows that bring none
            config["content"], paths["path"] = content_key(path.name, sha256_of(path)), str(path)
        return self.add(Stage("problems", label, config, paths=paths))

    def sample(
        self, label: str, problems: Stage, trained: Stage | None, choice: Stage | None = None, **settings: Any
    ) -> Stage:
        """Sampling with the recipe's settings, `settings` taking precedence; `choice` (a balance) sets the temperature."""
        more = {"choice": choice} if choice else {}
        return self.draw("sample", label, problems, trained, settings | ({"temperature": None} if choice else {}), more)

    def draw(
        self, kind: str, label: str, problems: Stage, trained: Stage | None, settings: dict[str, Any], more: dict[str, Stage]
    ) -> Stage:
        """A stage that draws samples."""
        s = self.recipe.sampling
        config = {
            "model": self.model.fingerprint, "dtype": self.recipe.model.dtype, "engine": s.engine,
            "prompt": self.recipe.data.prompt.model_dump(), "shots": [], "temperature": s.temperature,
            "top_p": s.top_p, "n": s.n, "max_tokens": s.max_tokens, "stop": s.stop, "batch_size": s.batch_size,
            "shard_size": s.shard_size, "max_model_len": s.max_model_len, "offset": 0, "count": None,
            "adapter": self.recipe.training.adapter if trained else None, "seed": self.recipe.seed, **settings,
        }
        inputs = {"problems": problems} | ({"model": trained} if trained else {}) | more
        threads = self.recipe.executor.threads
        rank = 0 if self.full else self.recipe.training.lora.r  # the engine makes room for adapters from the start
        hints = {"threads": threads, "gpu_memory": s.gpu_memory, "lora_rank": rank}
        return self.add(Stage(kind, label, config, inputs, {"base": str(self.model.path)}, hints))

    def verify(self, label: str, problems: Stage, samples: Stage, mode: str) -> Stage:
        rewards = self.recipe.rewards
        config = {"mode": mode, "timeout": rewards.timeout, "max_failure_rate": rewards.max_failure_rate}
        return self.add(Stage("verify", label, config, {"problems": problems, "samples": samples}))

    def select(
        self, label: str, problems: Stage, samples: Stage, verdicts: Stage, steps: Stage | None = None,
        scores: Stage | None = None,
    ) -> Stage:
        """Selection; tokens are weighed by `steps`, and a reward model chooses by `scores`, where they are given."""
        section = self.recipe.selection
        limit = 1 if self.recipe.iterations.scheme == "star" else section.max_per_problem
        unread = set() if scores else {"label", "min_reward"}  # settings of a reward model
        config = {
            **section.model_dump(exclude=unread), "max_per_problem": limit, "prompt": self.recipe.data.prompt.model_dump(),
            "model": self.model.fingerprint, "seed": self.recipe.seed,
        }
        inputs = {"problems": problems, "samples": samples, "verdicts": verdicts} | ({"steps": steps} if steps else {})
        if scores is not None:
            config, inputs = config | {"alpha": self.recipe.reward_model.alpha}, inputs | {"scores": scores}
        return self.add(Stage("select", label, config, inputs, {"base": str(self.model.path)}))

    def training_hints(self) -> dict[str, Any]:
        return {"train_threads": cores(), "checkpoint_every": self.recipe.training.checkpoint_every}

    def training_config(self, *unread: str) -> dict[str, Any]:
        """The `training` section as a stage reads it: without the keys that it does not read, and without those that say
        nothing at their default, so that artefacts keep their keys when new ones come."""
        training = self.recipe.training
        silent = {"steps"} if training.steps is None else set[str]()
        silent |= {"infinite"} if training.schedule != "infinite" else set()
        return training.model_dump(exclude={"checkpoint_every", *unread, *silent})

    def train(
        self, label: str, rows: dict[str, Stage], trained: Stage | None, online: dict[str, Any] | None = None
    ) -> Stage:
        """Training on `rows`: examples, or pairs with their reference. `online`: its place in one long training."""
        training = self.training_config("rl")
        config = {
            "training": training, "model": self.model.fingerprint, "dtype": self.recipe.model.dtype,
            "seed": self.recipe.seed, **({"online": online} if online else {}),
        }
        inputs = rows | ({"model": trained} if trained else {})
        return self.add(Stage("train", label, config, inputs, {"base": str(self.model.path)}, self.training_hints()))

    def online(
        self, label: str, problems: Stage, trained: Stage | None, slice_: dict[str, Any], reward_model: Stage | None
    ) -> Stage:
        """Training that draws its own samples; a reward model shapes their rewards."""
        recipe, s = self.recipe, self.recipe.sampling
        training = self.training_config("dpo")
        kept = ("engine", "temperature", "n", "max_tokens", "stop", "batch_size", "max_model_len")
        config = {
            "training": training, "model": self.model.fingerprint, "dtype": recipe.model.dtype, "seed": recipe.seed,
            "sampling": {k: getattr(s, k) for k in kept}, "prompt": recipe.data.prompt.model_dump(),
            "rewards": recipe.rewards.model_dump(), "offset": 0, "count": None, **slice_,
        }
        inputs = {"problems": problems} | ({"model": trained} if trained else {})
        if reward_model is not None:
            config["shaping"] = recipe.reward_model.model_dump(include={"alpha", "aggregation"})
            inputs["reward_model"] = reward_model
        hints = {
            **self.training_hints(), "gpu_memory": s.gpu_memory, "verifiers": max(1, min(8, cores() - 1)),
            "lora_rank": 0 if self.full else recipe.training.lora.r,
        }
        return self.add(Stage("train", label, config, inputs, {"base": str(self.model.path)}, hints))

    def evaluate(
        self, who: str, benchmark: BenchmarkSection, problems: Stage, trained: Stage | None, rewards: RewardModel | None = None
    ) -> None:
        """Greedy, and sampled when `evaluation.samples` > 0: sample, verify, score; the reward model on the sampled."""
        e = self.recipe.evaluation
        length = e.max_tokens or self.recipe.sampling.max_tokens
        runs: list[tuple[str, dict[str, Any]]] = [("greedy", {"temperature": 0.0, "top_p": 1.0, "n": 1, "seed": 0})]
        if e.samples:
            runs.append(("sampled", {"temperature": e.temperature, "top_p": e.top_p, "n": e.samples}))
        for name, settings in runs:
            label = f"{who}/{benchmark.name}/{name}"
            samples = self.sample(f"{label}/sample", problems, trained, max_tokens=length, **settings)
            verdicts = self.verify(f"{label}/verify", problems, samples, e.mode)
            shown = ("engine", "dtype", "temperature", "top_p", "n", "max_tokens", "stop", "seed")
            config = {
                "benchmark": benchmark.name, "mode": e.mode, "prompt": self.recipe.data.prompt.model_dump(),
                "sampling": {k: samples.config[k] for k in shown}, "seed": self.recipe.seed,
            }
            inputs = {"problems": problems, "samples": samples, "verdicts": verdicts}
            self.add(Stage("score", label, config, inputs))
            if name == "sampled":
                if rewards is not None:
                    rewards.evaluate(who, benchmark.name, problems, samples, verdicts)
                if self.recipe.exploration.measure and not (rewards is None and plan_balance.waits(self)):
                    plan_balance.explore(self, label, inputs, rewards)


def build(recipe: Recipe, model: ResolvedModel) -> Plan:
    """The stages of a resolved recipe: evaluate the initial model, then sample, verify, select, train, evaluate."""
    b = Builder(recipe, model)
    data, count = recipe.data, recipe.iterations.count
    benchmarks = [(x, b.problems(f"problems/{x.name}", x.source)) for x in recipe.evaluation.benchmarks]
    if recipe.evaluation.initial:
        for benchmark, problems in benchmarks:
            b.evaluate(model.label, benchmark, problems, b.initial)
    trained: list[Stage] = []
    if count:
        train = b.problems("problems/train", data.train)
        if data.decontaminate and benchmarks:
            evals = {f"eval{i}": problems for i, (_, problems) in enumerate(benchmarks)}
            config = {"ngram": data.ngram, "lcs_ratio": data.lcs_ratio}
            train = b.add(Stage("decontaminate", "problems/clean", config, {"train": train, **evals}))
        rewards = RewardModel(b)
        for i in range(1, count + 1):
            stage = _iteration(b, i, train, trained[-1] if trained else b.initial, rewards)
            for benchmark, problems in benchmarks:
                if i == 1 and rewards.stage is not None and recipe.evaluation.initial:
                    b.evaluate(model.label, benchmark, problems, b.initial, rewards)
                if stage is not None:
                    b.evaluate(f"iteration{i}", benchmark, problems, stage, rewards)
            trained += [stage] if stage is not None else []
    return Plan(recipe, model, b.stages, trained)


def _iteration(b: Builder, i: int, train: Stage, latest: Stage | None, rewards: RewardModel) -> Stage | None:
    """One iteration on the latest weights; its training stage, None where only a reward model is trained."""
    recipe, label = b.recipe, f"iteration{i}"
    shots = recipe.sampling.shots if i <= recipe.sampling.shots_iterations else []
    slice_: dict[str, Any] = {}
    if recipe.data.fresh_per_iteration:
        size = (recipe.data.train.limit or 0) // recipe.iterations.count
        slice_ = {"offset": (i - 1) * size, "count": size}
    scheme, drawn = recipe.iterations.scheme, {"shots": [list(s) for s in shots], **slice_}
    start = latest if scheme == "iterative_rft" or recipe.iterations.online else b.initial
    # online reinforcement learning and the sweep need the reward model before the iteration has samples
    if rewards.due and (recipe.training.method in ONLINE or scheme == "bstar"):
        first = b.sample(f"{label}/reward/sample", train, latest, **drawn)
        rewards.learn(label, train, first, b.verify(f"{label}/reward/verify", train, first, recipe.rewards.mode), latest)
    if recipe.training.method in ONLINE:
        return b.online(f"{label}/train", train, start, slice_, rewards.stage)
    choice = plan_balance.sweep(b, label, train, latest, rewards, **drawn) if scheme == "bstar" else None
    samples = b.sample(f"{label}/sample", train, latest, choice, **drawn)
    verdicts = b.verify(f"{label}/verify", train, samples, recipe.rewards.mode)
    if choice is None:
        rewards.learn(label, train, samples, verdicts, latest)
    scores = rewards.judge(label, train, samples, verdicts)
    if recipe.training.method == "reward_model":
        return None
    if recipe.training.method == "dpo":
        pairs = plan_pairs.pairs(b, label, train, samples, verdicts, latest)
        rows = {"pairs": pairs, "reference": plan_pairs.reference(b, f"{label}/reference", pairs, start)}
    elif choice:
        rows = {"examples": plan_balance.select(b, label, train, samples, verdicts, choice, rewards)}
    else:
        steps = plan_pairs.advantages(b, label, train, samples, verdicts)
        used = scores if recipe.selection.by_reward else None
        rows = {"examples": b.select(f"{label}/select", train, samples, verdicts, steps, used)}
    if recipe.exploration.measure:
        selected = {k: v for k, v in rows.items() if k == "examples"}
        plan_balance.explore(b, label, {"problems": train, "samples": samples, "verdicts": verdicts, **selected}, rewards)
    online = None
    if recipe.iterations.online:
        online = {"total": (recipe.training.steps or 0) * recipe.iterations.count, "first": i == 1}
    return b.train(f"{label}/train", rows, start, online)
