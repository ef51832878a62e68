"""From a recipe to the graph of its stages.

`resolve` replaces every `auto` by what it means on this machine; `build` lays out the stages in the order in
which they run, phase after phase. Keys follow from content, so the plan knows what is cached before anything runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from configs.errors import ConfigError
from configs.evaluation_section import BenchmarkSection, SourceSection
from configs.phases import model_names, phases_of
from configs.schema import ONLINE, Recipe
from data_gen.engine import resolve_engine
from pipelines import plan_balance, plan_pairs
from pipelines.hardware import cores, resolve_dtype
from pipelines.models import ResolvedModel
from pipelines.plan_evaluation import evaluate
from pipelines.plan_rewards import RewardModel
from pipelines.sources import problems_stage, settle_all
from pipelines.stage import Stage


class Plan(msgspec.Struct, frozen=True):
    """Stages in running order, and the training stage (or None: the base model) that ends each iteration."""

    recipe: Recipe
    model: ResolvedModel
    stages: list[Stage]
    trained: list[Stage]


def resolve(recipe: Recipe, gpu_elsewhere: bool = False) -> Recipe:
    """The recipe with engine, dtype and threads settled for this machine, local paths made absolute, so that a resume
    from another folder finds the same files, and data sets on the hub by commit. `gpu_elsewhere`: settled for a machine
    with a GPU and vLLM."""
    data = recipe.model_dump()
    phases, evaluation = data["phases"], data["evaluation"]
    settle_all(data["data"]["train"], phases, [*data["data"]["extra"], *(b["source"] for b in evaluation["benchmarks"])])
    runs = [part.get("reward_model") or {} for part in (data, *phases)]
    for section, key in ((evaluation, "shots_file"), *((r, "run") for r in runs)):
        if section.get(key):
            section[key] = str(Path(section[key]).expanduser().absolute())
    if (folder := Path(recipe.model.name).expanduser()).exists():
        data["model"]["name"] = str(folder.absolute())
    engine, dtype = recipe.sampling.engine, recipe.model.dtype
    if gpu_elsewhere:
        engine, dtype = ("vllm" if engine == "auto" else engine), ("bfloat16" if dtype == "auto" else dtype)
    data["sampling"]["engine"] = engine if gpu_elsewhere else resolve_engine(engine)
    data["model"]["dtype"] = resolve_dtype(dtype)
    if recipe.executor.threads == "auto":
        data["executor"]["threads"] = max(1, cores() // recipe.executor.workers)
    return Recipe.model_validate(data)


class Builder:
    """Makes the stages of one recipe and appends them to `stages`. `initial`: what trained the weights that the recipe
    starts from, None for the base model."""

    def __init__(self, recipe: Recipe, model: ResolvedModel, stages: list[Stage], initial: Stage | None) -> None:
        self.recipe, self.model, self.stages, self.initial = recipe, model, stages, initial
        self.valued: dict[str, tuple[Stage, Stage]] = {}  # rollouts and steps, by iteration
        self.full = recipe.training.adapter == "full"

    def add(self, stage: Stage) -> Stage:
        """Append a stage unless one of the same key is there already."""
        known = next((s for s in self.stages if s.key == stage.key), None)
        if known is None:
            self.stages.append(stage)
        return known or stage

    def problems(self, label: str, source: SourceSection) -> Stage:
        return self.add(problems_stage(label, source))

    def sample(
        self, label: str, problems: Stage, trained: Stage | None, choice: Stage | None = None, examples: Stage | None = None,
        **settings: Any,
    ) -> Stage:
        """Sampling with the recipe's settings, `settings` taking precedence; `choice` (a balance) sets the temperature,
        `examples` are problems to show with their solutions."""
        more = ({"choice": choice} if choice else {}) | ({"shots": examples} if examples else {})
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
        hints = {"threads": self.recipe.executor.threads, **self.engine_hints()}
        return self.add(Stage(kind, label, config, inputs, {"base": str(self.model.path)}, hints))

    def engine_hints(self) -> dict[str, Any]:
        """A worker's part of its GPU, the same in all stages: an engine of other settings would have to be started anew."""
        share = self.recipe.executor.workers_per_gpu
        rank = 0 if self.full else self.recipe.training.lora.r  # the engine makes room for adapters from the start
        return {"gpu_memory": self.recipe.sampling.gpu_memory / share, "gpu_shared": share > 1, "lora_rank": rank}

    def verify(self, label: str, problems: Stage, samples: Stage, mode: str) -> Stage:
        rewards = self.recipe.rewards
        config = {"mode": mode, "timeout": rewards.timeout, "max_failure_rate": rewards.max_failure_rate}
        return self.add(Stage("verify", label, config, {"problems": problems, "samples": samples}))

    def select(
        self, label: str, problems: Stage, samples: Stage, verdicts: Stage, steps: Stage | None = None,
        scores: Stage | None = None,
    ) -> Stage:
        """Selection; tokens are weighed by `steps`, and a reward model chooses by `scores`, where they are given."""
        unread = set() if scores else {"label", "min_reward"}  # settings of a reward model
        inputs = {"problems": problems, "samples": samples, "verdicts": verdicts} | ({"steps": steps} if steps else {})
        if scores is None:
            return self._select(label, inputs, unread)
        return self._select(label, inputs | {"scores": scores}, unread, alpha=self.recipe.reward_model.alpha)

    def human(self, label: str, problems: Stage, slice_: dict[str, Any]) -> Stage:
        """Selection of the solutions that came with the problems alone: nothing is sampled for it."""
        settings = {"offset": 0, "count": None, **slice_}
        return self._select(label, {"problems": problems}, {"label", "min_reward"}, **settings)

    def _select(self, label: str, inputs: dict[str, Stage], unread: set[str], **settings: Any) -> Stage:
        section = self.recipe.selection
        limit = min(1, section.max_per_problem) if self.recipe.iterations.scheme == "star" else section.max_per_problem
        config = {
            **section.model_dump(exclude=unread), "max_per_problem": limit, "prompt": self.recipe.data.prompt.model_dump(),
            "model": self.model.fingerprint, "seed": self.recipe.seed, **settings,
        }
        return self.add(Stage("select", label, config, inputs, {"base": str(self.model.path)}))

    def training_hints(self) -> dict[str, Any]:
        return {"train_threads": cores(), "checkpoint_every": self.recipe.training.checkpoint_every}

    def training_config(self, *unread: str) -> dict[str, Any]:
        """The `training` section as a stage reads it: without the keys that it does not read, and without those that say
        nothing at their default, so that artefacts keep their keys when new ones come."""
        training = self.recipe.training
        silent = {"steps"} if training.steps is None else set[str]()
        silent |= {"infinite"} if training.schedule != "infinite" else set()
        silent |= {name for name in ("average", "compile", "prompt_weight") if not getattr(training, name)}
        config = training.model_dump(exclude={"checkpoint_every", *unread, *silent})
        if "rl" in config and not training.rl.step_rollouts:
            del config["rl"]["step_rollouts"]
        return config

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
            **self.training_hints(), **self.engine_hints(), "verifiers": max(1, min(8, cores() - 1)),
        }
        return self.add(Stage("train", label, config, inputs, {"base": str(self.model.path)}, hints))


def build(recipe: Recipe, model: ResolvedModel) -> Plan:
    """The stages of a resolved recipe: evaluate the initial model, then, phase by phase, sample, verify, select, train,
    evaluate; and at the end what is measured once."""
    initial = Stage("train", model.label, {}, given_key=model.trained) if model.trained else None
    if initial and model.full != (recipe.training.adapter == "full"):
        has, wanted = ("all weights", recipe.training.adapter) if model.full else ("an adapter", "full")
        raise ConfigError(
            f"model.name: {model.name} has trained {has}, and training.adapter is `{wanted}`: export it with "
            f"`ratchet export {model.name} --to FOLDER` and give that folder"
        )
    whole = Builder(recipe, model, [], initial)
    sets = _evaluation_sets(whole)
    each = [(x, problems) for x, problems in sets if x.when == "each"]
    rewards = RewardModel(whole)
    if recipe.evaluation.initial:
        for benchmark, problems in each:
            evaluate(whole, model.label, benchmark, problems, initial, rewards)
    trained: list[Stage] = []
    last, latest = model.label, initial
    for name, phase in phases_of(recipe):
        b = Builder(phase, model, whole.stages, latest)
        before, rewards = rewards, RewardModel(b, rewards)
        judged = rewards.stage is not None and rewards.stage is before.stage  # the latest model has been, by this one
        if not phase.iterations.count:
            continue
        problems = _training_problems(b, name, sets, whole)
        for i, label in enumerate(model_names(name, phase.iterations.count), 1):
            stage = _iteration(b, i, label, problems, latest, rewards)
            if rewards.stage is not None and not judged and (trained or recipe.evaluation.initial):
                for benchmark, asked in each:  # the model that the first reward model has learned from
                    evaluate(whole, last, benchmark, asked, latest, rewards)
            judged = rewards.stage is not None
            if stage is None:
                continue
            last, latest = label, stage
            trained.append(stage)
            for benchmark, asked in each:
                evaluate(whole, label, benchmark, asked, stage, rewards)
    for benchmark, problems in ((x, problems) for x, problems in sets if x.when == "end"):
        if recipe.evaluation.initial or not trained:
            evaluate(whole, model.label, benchmark, problems, initial, rewards)
        if trained:
            evaluate(whole, last, benchmark, problems, latest, rewards)
    return Plan(recipe, model, whole.stages, trained)


def _evaluation_sets(b: Builder) -> list[tuple[BenchmarkSection, Stage]]:
    """The benchmarks with their problems."""
    return [
        (x, _validation(b) if x.source.source == "validation" else b.problems(f"problems/{x.name}", x.source))
        for x in b.recipe.evaluation.benchmarks
    ]


def _validation(b: Builder) -> Stage:
    """Training problems of the whole run that are held out."""
    train = b.problems("problems/train", b.recipe.data.train)
    config = {"count": b.recipe.data.validation, "seed": b.recipe.seed}
    return b.add(Stage("validation", "problems/validation", config, {"train": train}))


def _training_problems(b: Builder, phase: str, sets: list[tuple[BenchmarkSection, Stage]], whole: Builder) -> Stage:
    """Problems to train on, of all sources and with their variants and inverses: none that any evaluation set of the run
    contains."""
    data, general = b.recipe.data, whole.recipe.data
    own = phase if (data.train, data.extra) != (general.train, general.extra) else ""
    train = b.problems(f"problems/{phase if data.train != general.train else 'train'}", data.train)
    prefix = f"problems/{own}-" if own else "problems/"
    if data.extra:
        extra = {f"extra{i}": b.problems(f"{prefix}extra{i}", source) for i, source in enumerate(data.extra)}
        train = b.add(Stage("join", f"{prefix}joined", {}, {"train": train, **extra}))
    held = {f"eval{i}": problems for i, (_, problems) in enumerate(sets)}
    if data.validation and not any(x.source.source == "validation" for x, _ in sets):
        held["validation"] = _validation(whole)
    config = {"ngram": data.ngram, "lcs_ratio": data.lcs_ratio}
    if not data.decontaminate:
        held = {}
    if held:
        train = b.add(Stage("decontaminate", f"{prefix}clean", config, {"train": train, **held}))
    if any(getattr(data, name) != getattr(general, name) for name in ("inverses", "variants", "variants_from")):
        prefix = f"problems/{phase}-"
    more = config if held else {}  # what is made of a problem may be like an evaluation problem though the problem is not
    if data.variants:
        wanted = {"count": data.variants} | ({"first": data.variants_from} if data.variants_from else {})
        train = b.add(Stage("variants", f"{prefix}variants", {**wanted, **more}, {"train": train, **held}))
    if data.inverses:
        train = b.add(Stage("inverses", f"{prefix}inverses", {"count": data.inverses, **more}, {"train": train, **held}))
    if data.solutions == "equations":
        train = b.add(Stage("rewrite", f"{prefix}equations", {"solutions": data.solutions}, {"train": train}))
    return train


def _iteration(
    b: Builder, i: int, label: str, train: Stage, latest: Stage | None, rewards: RewardModel
) -> Stage | None:
    """One iteration on the latest weights; its training stage, None where only a reward model is trained."""
    recipe = b.recipe
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
    online = None
    if recipe.iterations.online:
        online = {"total": (recipe.training.steps or 0) * recipe.iterations.count, "first": i == 1}
    if _human_only(recipe):
        return b.train(f"{label}/train", {"examples": b.human(f"{label}/select", train, slice_)}, start, online)
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
    return b.train(f"{label}/train", rows, start, online)


def _human_only(recipe: Recipe) -> bool:
    """Whether training learns from the problems' own solutions, and nothing else wants samples."""
    selected = recipe.training.method == "sft" and recipe.selection.max_per_problem == 0
    measured = recipe.exploration.measure or recipe.reward_model.kind != "none" or recipe.iterations.scheme == "bstar"
    return selected and not measured
