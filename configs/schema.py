"""The recipe: everything a user can set. Strict: an unknown key is an error (see `configs.load`).

Values named "auto" are resolved for the machine at hand before anything is keyed, so that the resolved
recipe in a run folder says what was really done.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from configs.balance_section import BalanceSection, ExplorationSection
from configs.evaluation_section import EvaluationSection, SourceSection
from configs.phase_section import PhaseSection
from configs.reward_section import RewardModelSection
from configs.section import Fraction, Positive, Section


class ModelSection(Section):
    """Which weights to start from. `name`: `bundled:smollm2-135m-instruct`, a local folder, a hub id, or
    RUN@ITERATION: what an iteration of an earlier run has trained."""

    name: str = "bundled:smollm2-135m-instruct"
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class PromptSection(Section):
    """How a question becomes a prompt.

    `style: chat` uses the model's chat template; `plain` joins the parts with blank lines. `prefill` begins the
    model's answer. Training and evaluation see this prompt; sampling may show worked examples before it.
    """

    style: Literal["chat", "plain"] = "chat"
    system: str | None = None
    template: str = "{question}"
    prefill: str = ""

    @model_validator(mode="after")
    def _template_has_question(self) -> PromptSection:
        if "{question}" not in self.template:
            raise ValueError("`template` must contain {question}")
        return self


class DataSection(Section):
    """Training problems, the prompt, and the protection of the evaluation sets.

    With `fresh_per_iteration`, iteration i samples the i-th slice of `train.limit` / `iterations.count`
    problems instead of all of them each time. `validation` problems are taken out of the training problems, by a seeded
    hash of their text, and are the source `validation` of benchmarks.

    `extra` are further sources of training problems; `variants` adds up to so many problems with other numbers to each one
    whose solution has calculator marks (GSM8K's), without the first `variants_from`, which an earlier phase may have had.
    `inverses` adds to each such problem, but not to its variants, up to so many that give the answer and ask for a number
    of the question.
    `solutions: equations` leaves of the human solutions the calculations alone (see `data_gen/rewriting.py`).
    """

    train: SourceSection = SourceSection(source="procedural", limit=256)
    extra: list[SourceSection] = []
    variants: Annotated[int, Field(ge=0)] = 0
    variants_from: Annotated[int, Field(ge=0)] = 0
    inverses: Annotated[int, Field(ge=0)] = 0
    solutions: Literal["full", "equations"] = "full"
    prompt: PromptSection = PromptSection()
    validation: Annotated[int, Field(ge=0)] = 0
    fresh_per_iteration: bool = False
    decontaminate: bool = True
    ngram: Positive = 13
    lcs_ratio: Fraction = 0.6

    @model_validator(mode="after")
    def _validation_fits(self) -> DataSection:
        if self.validation and not self.decontaminate:
            raise ValueError("`validation` needs `decontaminate: true`, which keeps those problems out of the training")
        if any(source.source == "validation" for source in (self.train, *self.extra)):
            raise ValueError("source `validation` is for `evaluation.benchmarks`: training must not see it")
        return self

    @model_validator(mode="after")
    def _variants_exist(self) -> DataSection:
        if self.variants_from and not self.variants:
            raise ValueError("`variants_from` leaves out the first ones of `variants`: set `variants` too")
        return self

    @model_validator(mode="after")
    def _slices_are_of_one_source(self) -> DataSection:
        if self.fresh_per_iteration and (self.extra or self.variants or self.inverses):
            others = "`extra`, `variants` or `inverses`"
            raise ValueError(f"`fresh_per_iteration` takes slices of `train` alone: it does not go with {others}")
        return self


class SamplingSection(Section):
    """How completions are drawn. `batch_size` counts sequences decoded at once by the transformers engine.

    `shard_size` is the number of problems in one shard: the unit of resumption and of parallel work. It fixes
    which sequences are decoded together, so it is part of what an artefact is.

    `shots` are worked examples (question, solution) shown before each question in the first `shots_iterations`
    iterations, as STaR does: the model learns to answer so without them.
    """

    engine: Literal["auto", "transformers", "vllm"] = "auto"
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    n: Positive = 4
    max_tokens: Positive = 256
    batch_size: Positive = 128
    shard_size: Positive = 64
    stop: list[str] = []
    shots: list[tuple[str, str]] = []
    shots_iterations: Positive = 1
    gpu_memory: Annotated[float, Field(gt=0.0, le=1.0)] = 0.6
    max_model_len: Positive = 2048


class RewardsSection(Section):
    """The verifier that decides which samples may be learned from."""

    mode: Literal["strict", "lenient"] = "lenient"
    timeout: Annotated[float, Field(gt=0.0)] = 1.0
    max_failure_rate: Fraction = 0.05


class SelectionSection(Section):
    """Rejection sampling: which correct samples become training examples. With `max_per_problem: 0` and `include_human`,
    plain supervised fine-tuning on the solutions that came with the problems; nothing is sampled for it.

    `advantage_weights` rolls out the steps of right samples (see `rollouts`) and weighs their tokens with exp(A / this).
    """

    max_per_problem: Annotated[int, Field(ge=0)] = 4
    label: Literal["verified", "weighted_vote"] = "verified"
    prefer: Literal["random", "shortest", "reward"] = "random"
    min_reward: float | None = None
    include_human: bool = False
    min_examples: Positive = 1
    advantage_weights: Annotated[float, Field(gt=0.0)] | None = None

    @property
    def by_reward(self) -> bool:
        """Whether a reward model's scores are needed."""
        return self.prefer == "reward" or self.min_reward is not None or self.label == "weighted_vote"

    @model_validator(mode="after")
    def _something_is_selected(self) -> SelectionSection:
        if self.max_per_problem == 0 and not self.include_human:
            raise ValueError("`max_per_problem: 0` selects no sample: set `include_human: true` too, or a number above 0")
        if self.max_per_problem == 0 and (self.by_reward or self.advantage_weights is not None):
            raise ValueError(
                "`max_per_problem: 0` selects no sample: `prefer: reward`, `min_reward`, `label: weighted_vote` and "
                "`advantage_weights` have none to choose or to weigh"
            )
        return self


ErrorType = Literal[
    "change_value", "change_values", "wrong_substitution", "drop_term", "change_operator", "swap_terms", "misread"
]


class RiseSection(Section):
    """Error-injected pairs (RISE, arXiv 2410.06638): one whole-solution pair and `edits` edited steps a problem.

    The first `samples` samples of a problem are looked at. `attempts` steps are edited for each problem, so that there
    is a choice among the edits that are shown wrong. `certify`: by exact arithmetic, by `rollouts` continuations of each
    prefix, or by rollouts where arithmetic does not decide (`both`).
    """

    editor: Literal["self", "programmatic", "auto"] = "auto"
    arm: Literal["both", "full_only", "edited_only"] = "both"
    samples: Positive = 5
    edits: Positive = 1
    attempts: Positive = 8
    errors: Annotated[list[ErrorType], Field(min_length=1)] = list(get_args(ErrorType))
    prompt: Literal["instruction", "few_shot", "auto"] = "auto"
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.0
    distance: Fraction = 0.5
    certify: Literal["arithmetic", "rollouts", "both"] = "arithmetic"
    rollouts: Positive = 8
    significance: Annotated[float, Field(gt=0.0, le=0.5)] = 0.05
    without_wrong: bool = False
    truncated_negatives: bool = False


class PerStepSection(Section):
    """Per-step pairs (arXiv 2406.14532): `pit`, a right solution against the steps up to the first pit; `step`, after the
    same steps, a continuation that ends right against the pit; `full`, whole solutions (the control, without rollouts)."""

    variant: Literal["pit", "step", "both", "full"] = "pit"


class PairsSection(Section):
    """Preference pairs, if any. A pair of more than `max_length` tokens is dropped and counted, never cut."""

    kind: Literal["none", "rise", "per_step"] = "none"
    max_length: Positive = 1024
    min_pairs: Positive = 1
    rise: RiseSection = RiseSection()
    per_step: PerStepSection = PerStepSection()


class RolloutsSection(Section):
    """Step values: `n` continuations after each step, with the settings of `sampling`, from a policy that stays the same.

    At most `negatives` wrong and `positives` right samples of a problem are valued; problems without a right sample are
    not. `sequential` looks for the first pit of wrong samples only, `batch` continuations at a time. `best_of` is K of the
    paper's policy, best of K. `recheck` is the share of pits that 4 n fresh continuations test.
    """

    n: Positive = 8
    allocation: Literal["fixed", "sequential"] = "fixed"
    batch: Positive = 2
    policy: Literal["initial", "latest"] = "initial"
    best_of: Positive = 5
    negatives: Annotated[int, Field(ge=0)] = 8
    positives: Annotated[int, Field(ge=0)] = 1
    recheck: Fraction = 0.0
    unparsable_negatives: bool = False
    truncated_negatives: bool = False

    @model_validator(mode="after")
    def _enough_rollouts(self) -> RolloutsSection:
        if self.best_of > self.n:
            raise ValueError(f"`best_of: {self.best_of}` cannot be estimated from `n: {self.n}` rollouts")
        return self


class LoraSection(Section):
    """Low-rank adapters (Hu et al. 2021): W + alpha/r * B A on the named projections."""

    r: Positive = 16
    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    dropout: Fraction = 0.0
    targets: list[str] | Literal["all-linear"] = "all-linear"


class DpoSection(Section):
    """Direct preference optimisation: see `trainers/dpo.py` for the formulas. `nll` weighs the chosen tokens' NLL."""

    beta: Annotated[float, Field(gt=0.0)] = 0.1
    loss: Literal["sigmoid", "sigmoid_norm", "ipo"] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    nll: Annotated[float, Field(ge=0.0)] = 0.0
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    stop_if_worse_than_start: bool = False

    @model_validator(mode="after")
    def _options_fit(self) -> DpoSection:
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError("`label_smoothing` does not exist for loss `ipo`")
        if self.stop_if_worse_than_start and not self.validation_fraction:
            raise ValueError("`stop_if_worse_than_start` needs `validation_fraction` > 0")
        return self


class PolicyGradientSection(Section):
    """Online reinforcement learning: see docs/policy_gradient.md, and `trainers/estimators/` for the formulas."""

    steps: Positive = 100
    updates: Positive = 1
    loss: Literal["sequence_sum", "token_mean", "sequence_mean"] = "token_mean"
    clip: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    clip_high: Annotated[float, Field(gt=0.0)] | None = None
    difference_clip: Annotated[float, Field(gt=0.0)] | None = None
    std: bool = True
    baseline: Literal["none", "batch"] = "none"
    kl: Literal["none", "token", "to_go", "sequence", "loss"] = "none"
    kl_coefficient: Annotated[float, Field(ge=0.0)] = 0.001
    anchor_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    entropy: Annotated[float, Field(ge=0.0)] = 0.0
    importance_cap: Annotated[float, Field(ge=1.0)] | None = 2.0
    min_p: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    penalties: list[Literal["overlong", "repetition", "garbage"]] = []
    step_rollouts: Annotated[int, Field(ge=0)] = 0
    oversampling: Annotated[float, Field(ge=1.0)] = 1.0
    curriculum: bool = False
    validation: Annotated[int, Field(ge=0)] = 0
    validate_every: Positive = 20
    canary_tolerance: Annotated[float, Field(gt=0.0)] | None = None
    share_gpu: Literal["sleep", "split"] = "sleep"

    @model_validator(mode="after")
    def _options_fit(self) -> PolicyGradientSection:
        if self.anchor_decay is not None and self.kl == "none":
            raise ValueError("`anchor_decay` moves the reference of the KL term: set `kl` too")
        if self.step_rollouts and self.baseline != "none":
            raise ValueError("the baseline of a step is the value before it (`step_rollouts`): set `baseline: none`")
        return self


ONLINE = ("remax", "rloo", "grpo", "reinforce")


class InfiniteSection(Section):
    """The schedule that needs no end: warm-up to the peak, cosine cool-down to `constant` times the peak, constant, and an
    exponential anneal to `minimum` times the peak. Ratios are shares of the planned steps; the anneal is the last part
    of the whole training (`last`), or of each iteration, whose successor goes on from before the anneal (`each`)."""

    cooldown_ratio: Fraction = 0.2
    constant: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    anneal_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    minimum: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    anneal: Literal["last", "each"] = "last"


class TrainingSection(Section):
    """One training stage. `batch_size` is in examples or pairs, for online methods in problems;
    `micro_batch_tokens` bounds one forward pass.

    `steps`: so many optimiser steps in each iteration, over as many epochs as they need; null: `epochs` passes. `average`: the
    share of the last steps whose weights are averaged into the result (see `trainers/averaging.py`).
    """

    method: Literal["sft", "dpo", "remax", "rloo", "grpo", "reinforce", "reward_model"] = "sft"
    adapter: Literal["lora", "qlora", "full"] = "lora"
    lora: LoraSection = LoraSection()
    dpo: DpoSection = DpoSection()
    rl: PolicyGradientSection = PolicyGradientSection()
    optimizer: Literal["adamw", "paged_adamw_8bit"] = "adamw"
    attention: Literal["auto", "sdpa", "flex", "flash"] = "auto"
    prefix_sharing: bool = True
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-4
    schedule: Literal["cosine", "linear", "constant", "infinite"] = "cosine"
    infinite: InfiniteSection = InfiniteSection()
    warmup_ratio: Fraction = 0.1
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    prompt_weight: Fraction = 0.0
    average: Fraction = 0.0
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    epochs: Positive = 3
    steps: Positive | None = None
    batch_size: Positive = 16
    micro_batch_tokens: Positive = 4096
    gradient_checkpointing: bool = False
    compile: bool = False
    checkpoint_every: Positive | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _method_fits(self) -> TrainingSection:
        if self.method in ONLINE and self.rl.kl == "sequence" and self.method != "rloo":
            raise ValueError("`rl.kl: sequence` (T1's leave-one-out of the KL) belongs to method `rloo`")
        if self.rl.step_rollouts and self.method != "reinforce":
            raise ValueError(
                "`rl.step_rollouts` compares with the value before each step, not with `remax`'s greedy solution, `rloo`'s "
                f"other samples or `grpo`'s mean and standard deviation: set `method: reinforce` instead of `{self.method}`"
            )
        if self.prompt_weight and self.method != "sft":
            raise ValueError(f"`prompt_weight` belongs to `method: sft`: method `{self.method}` has no loss on prompts")
        if self.average and self.method in ONLINE:
            raise ValueError(
                f"`average` belongs to methods `sft`, `dpo` and `reward_model`; for method `{self.method}`, `rl.anchor_decay` "
                "has a moving average of the weights as the reference"
            )
        if self.compile and self.adapter == "qlora":
            raise ValueError("`compile` does not know the 4-bit layers of `adapter: qlora`: set `adapter: lora`")
        if self.steps is not None and self.method != "sft":
            raise ValueError("`steps` belongs to `method: sft`; set `epochs`, or `rl.steps` for online methods")
        if self.method in ONLINE and self.schedule == "infinite":
            raise ValueError(f"`schedule: infinite` does not exist for method `{self.method}`: take another one")
        return self


class IterationsSection(Section):
    """How often, and from which weights each iteration trains.

    star: from the initial weights, one solution a problem (Zelikman et al. 2022, without rationalisation).
    rest_em: from the initial weights, up to `selection.max_per_problem` solutions (Singh et al. 2023).
    iterative_rft: from the latest weights (Yuan et al. 2023, repeated).
    online_rft: from the latest weights with the optimiser's state, schedule and order of the data carried over.
    bstar: online, and temperature and reward threshold are chosen anew each time (`balance`; Zeng et al. 2024).
    """

    count: Annotated[int, Field(ge=0)] = 1
    scheme: Literal["star", "rest_em", "iterative_rft", "online_rft", "bstar"] = "iterative_rft"

    @property
    def online(self) -> bool:
        """Whether one training goes through all iterations."""
        return self.scheme in ("online_rft", "bstar")


class ExecutorSection(Section):
    """Where stages run. `threads: auto` shares the cores among the workers. `workers_per_gpu` workers of Ray share each GPU and
    `sampling.gpu_memory` of it: the engine of a small model leaves most of a GPU idle.

    Nothing here changes what is computed. The number of threads changes roundings on a CPU, above all in bfloat16, as other
    hardware does: a run keeps its number, so that a resumed one draws the same.
    """

    kind: Literal["local", "ray"] = "local"
    workers: Positive = 1
    workers_per_gpu: Positive = 1
    threads: Positive | Literal["auto"] = "auto"
    attempts: Positive = 3
    address: str | None = None


class Recipe(Section):
    """A self-improvement pipeline. `track` copies metrics to a tracker (an extra) besides metrics.jsonl."""

    name: str = "run"
    track: Literal["none", "trackio", "wandb", "tensorboard"] = "none"
    seed: int = 0
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    sampling: SamplingSection = SamplingSection()
    rewards: RewardsSection = RewardsSection()
    selection: SelectionSection = SelectionSection()
    pairs: PairsSection = PairsSection()
    rollouts: RolloutsSection = RolloutsSection()
    training: TrainingSection = TrainingSection()
    reward_model: RewardModelSection = RewardModelSection()
    evaluation: EvaluationSection = EvaluationSection()
    iterations: IterationsSection = IterationsSection()
    balance: BalanceSection = BalanceSection()
    exploration: ExplorationSection = ExplorationSection()
    phases: list[PhaseSection] = []
    executor: ExecutorSection = ExecutorSection()

    @model_validator(mode="after")
    def _validation_exists(self) -> Recipe:
        if not self.data.validation and any(b.source.source == "validation" for b in self.evaluation.benchmarks):
            raise ValueError("source `validation` needs `data.validation`: how many training problems are held out")
        return self

    @model_validator(mode="after")
    def _phases_have_names(self) -> Recipe:
        names = [p.name for p in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"the names of `phases` must differ: {names}")
        return self

    @model_validator(mode="after")
    def _online_can_work(self) -> Recipe:
        method, sampling = self.training.method, self.sampling
        if method not in ONLINE:
            return self
        if sampling.n < 2 and (method in ("rloo", "grpo") or self.training.rl.step_rollouts):
            who = f"training.method `{method}`" if method in ("rloo", "grpo") else "`training.rl.step_rollouts`"
            raise ValueError(f"{who} compares the samples of a problem: set `sampling.n` to 2 or more")
        if sampling.temperature == 0.0:
            raise ValueError(f"training.method `{method}` learns from random samples: set `sampling.temperature` above 0")
        if sampling.top_p < 1.0:
            raise ValueError(
                f"training.method `{method}` needs `sampling.top_p: 1`: the trainer's log-probabilities know nothing of "
                "tokens that the sampler may not draw (`training.rl.min_p` cuts off the tail with less of a bias)"
            )
        if sampling.shots:
            raise ValueError(f"training.method `{method}` trains on the prompt it samples with: remove `sampling.shots`")
        return self

    @model_validator(mode="after")
    def _slices_fit(self) -> Recipe:
        limit, count = self.data.train.limit, self.iterations.count
        if self.data.fresh_per_iteration and (limit is None or (count and limit < count)):
            raise ValueError("`data.fresh_per_iteration` needs `data.train.limit` >= `iterations.count`")
        return self

    @model_validator(mode="after")
    def _pairs_fit_method(self) -> Recipe:
        if (self.training.method == "dpo") != (self.pairs.kind != "none"):
            raise ValueError("`training.method: dpo` needs `pairs.kind`, and pairs are for it alone")
        if self.selection.advantage_weights is not None and self.training.method != "sft":
            raise ValueError("`selection.advantage_weights` weighs the tokens of `training.method: sft`")
        return self

    @model_validator(mode="after")
    def _reward_model_fits(self) -> Recipe:
        none = self.reward_model.kind == "none"
        if none and (self.selection.by_reward or self.training.method == "reward_model"):
            raise ValueError(
                "`selection.prefer: reward`, `selection.min_reward`, `selection.label: weighted_vote` and "
                "`training.method: reward_model` need `reward_model.kind`"
            )
        if self.reward_model.run is not None and (none or self.reward_model.retrain):
            raise ValueError("`reward_model.run` is another run's model: set `reward_model.kind` to its kind, not `retrain`")
        if none and self.balance.scorer == "reward_model":
            raise ValueError("`balance.scorer: reward_model` needs `reward_model.kind`")
        if self.reward_model.kind == "process" and self.reward_model.run is None and self.rollouts.allocation != "fixed":
            raise ValueError(
                "`reward_model.kind: process` learns from the values of steps, which a search leaves out or draws too high: "
                "set `rollouts.allocation: fixed`"
            )
        if self.training.method == "reward_model" and self.iterations.count > 1:
            raise ValueError("`training.method: reward_model` leaves the sampled model as it is: set `iterations.count: 1`")
        return self

    @model_validator(mode="after")
    def _online_is_planned(self) -> Recipe:
        scheme, training = self.iterations.scheme, self.training
        if not self.iterations.online:
            return self
        if training.method != "sft":
            raise ValueError(f"`iterations.scheme: {scheme}` trains with `training.method: sft`")
        if scheme == "bstar" and (self.selection.by_reward or self.selection.advantage_weights is not None):
            raise ValueError(
                "`iterations.scheme: bstar` selects by its own reward: `selection.prefer: reward`, `selection.min_reward`, "
                "`selection.label: weighted_vote` and `selection.advantage_weights` do not go with it; a reward model has its "
                "say by `balance.scorer: reward_model`"
            )
        if training.steps is None and (training.schedule != "constant" or training.warmup_ratio > 0):
            raise ValueError(
                f"`iterations.scheme: {scheme}` has one schedule over all iterations: set `training.steps` (of each "
                "iteration), or `training.schedule: constant` and `training.warmup_ratio: 0`"
            )
        return self
