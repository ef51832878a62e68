"""DPO: golden values, TRL's trainer as reference, zero gradient before the first difference, resume, the gate."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from configs.errors import InputError, RatchetError
from configs.rows import Pair
from configs.schema import DpoSection, TrainingSection
from trainers.dpo import (
    DirectPreferenceOptimization,
    micro_batches,
    pair_logprobs,
    preference_loss,
    reference_logprobs,
    split_by_problem,
)
from trainers.loop import Record, memory_errors, open_policy, train
from trainers.policy import Policy


def make_pair(i: int, problem: int, context: int, equal: int, chosen: int, rejected: int, kind: str = "edited") -> Pair:
    """A pair of random ids; pairs of one problem have the beginning of their contexts in common."""
    shared = torch.Generator().manual_seed(problem)
    own = torch.Generator().manual_seed(1000 + i)
    begin = torch.randint(3, 95, (context + equal,), generator=shared).tolist()
    good, bad = (torch.randint(3, 95, (n,), generator=own).tolist() for n in (chosen, rejected))
    bad[0] = good[0] % 90 + 4
    return Pair(
        id=f"pair{i}", parents=[], stage="pairs", problem=f"p{problem}", context_ids=begin[:context],
        chosen_ids=begin[context:] + good, rejected_ids=begin[context:] + bad, chosen="", rejected="", kind=kind,
        error=None, first_difference=equal, chosen_eos=False, rejected_eos=False,
    )


PAIRS = [
    make_pair(0, 0, 9, 0, 14, 17, "full"), make_pair(1, 0, 12, 3, 5, 4), make_pair(2, 1, 20, 2, 3, 7),
    make_pair(3, 2, 6, 0, 9, 8, "full"), make_pair(4, 2, 8, 1, 2, 2), make_pair(5, 3, 15, 4, 6, 6),
]


def test_losses_by_hand() -> None:
    """Two pairs: D = (1, -1) on 2 and 4 tokens, D = (0.5, 1) on 1 and 1; beta 0.5."""
    change, lengths = torch.tensor([[1.0, -1.0], [0.5, 1.0]]), torch.tensor([[2, 4], [1, 1]])

    def loss(**options: object) -> list[float]:
        return preference_loss(change, lengths, DpoSection.model_validate({"beta": 0.5, **options})).tolist()

    assert loss() == pytest.approx([math.log1p(math.exp(-1.0)), math.log1p(math.exp(0.25))])
    smooth = [0.9 * math.log1p(math.exp(-1.0)) + 0.1 * math.log1p(math.exp(1.0))]
    assert loss(label_smoothing=0.1)[:1] == pytest.approx(smooth)
    assert loss(loss="sigmoid_norm") == pytest.approx([math.log1p(math.exp(-0.375)), math.log1p(math.exp(0.25))])
    assert loss(loss="ipo") == pytest.approx([(0.75 - 1.0) ** 2, (-0.5 - 1.0) ** 2])


def _ours(model: torch.nn.Module, settings: TrainingSection, reference: dict[str, tuple[float, float]]) -> float:
    policy = Policy(model, "sdpa", settings.prefix_sharing)
    method = DirectPreferenceOptimization(PAIRS, reference, settings, 0)
    total = 0.0
    for micro in micro_batches(PAIRS, settings):
        loss, _ = method.loss(policy, micro)
        loss.backward()
        total += loss.item()
    return total


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {"loss_type": ["sigmoid"]}),
        ({"nll": 0.7}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}),
        ({"loss": "ipo"}, {"loss_type": ["ipo"]}),
        ({"loss": "sigmoid_norm"}, {"loss_type": ["sigmoid_norm"]}),
    ],
    ids=["sigmoid", "nll", "ipo", "sigmoid_norm"],
)
def test_loss_and_gradients_equal_trl(
    tiny_model: Path, tmp_path: Path, ours: dict[str, object], theirs: dict[str, object], sharing: bool
) -> None:
    """TRL's DPOTrainer on the same batch, all weights trainable, float32; the model has moved from its reference."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    def moved() -> torch.nn.Module:
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(5)
            for p in model.parameters():
                p.add_(0.02 * torch.randn_like(p))
        return model

    settings = TrainingSection.model_validate(
        {"method": "dpo", "micro_batch_tokens": 64, "prefix_sharing": sharing, "dpo": {"beta": 0.3, **ours}}
    )
    start = Policy(AutoModelForCausalLM.from_pretrained(tiny_model), "sdpa", True)
    model = moved()
    loss = _ours(model, settings, reference_logprobs(start, PAIRS, settings))

    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    config = DPOConfig(
        output_dir=str(tmp_path), beta=0.3, report_to="none", use_cpu=True, bf16=False, max_length=None,
        per_device_train_batch_size=len(PAIRS), disable_dropout=True, **theirs,
    )
    trainer = DPOTrainer(
        model=moved(), ref_model=AutoModelForCausalLM.from_pretrained(tiny_model), args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(tiny_model),
    )
    batch = trainer.data_collator(
        [{"prompt_ids": p.context_ids, "chosen_ids": p.chosen_ids, "rejected_ids": p.rejected_ids} for p in PAIRS]
    )
    expected = trainer._compute_loss(trainer.model, batch, False)
    expected.backward()

    assert loss == pytest.approx(expected.item(), rel=1e-4)
    gradients = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    assert len(gradients) > 5
    for name, p in model.named_parameters():
        if p.grad is not None:
            difference = (p.grad - gradients[name]).norm() / gradients[name].norm()
            assert difference < 1e-4, (name, difference)


def _tokenizer(folder: Path) -> object:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


@pytest.mark.parametrize("sharing", [True, False])
def test_no_margin_gradient_from_tokens_before_the_first_difference(tiny_model: Path, sharing: bool) -> None:
    """Their log-probabilities cancel: the margin's gradient is that of the differing tails alone."""
    policy = Policy(AutoModelForCausalLM.from_pretrained(tiny_model), "sdpa", sharing)
    edited = [p for p in PAIRS if p.first_difference > 0]
    tails = [
        _replace(p, context_ids=p.context_ids + p.chosen_ids[: p.first_difference],
                 chosen_ids=p.chosen_ids[p.first_difference :], rejected_ids=p.rejected_ids[p.first_difference :])
        for p in edited
    ]
    gradients = []
    for pairs in (edited, tails):
        chosen, rejected = pair_logprobs(policy, [[p] for p in pairs])
        policy.model.zero_grad()
        (chosen - rejected).sum().backward()
        gradients.append([p.grad.clone() for p in policy.model.parameters() if p.grad is not None])
    for whole, tail in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, tail, rtol=1e-3, atol=1e-5 * tail.abs().max().item())


def _replace(pair: Pair, **changes: object) -> Pair:
    import msgspec

    return msgspec.structs.replace(pair, **changes)


def test_the_margins_of_the_reference_are_zero(tiny_model: Path) -> None:
    settings = TrainingSection(method="dpo", adapter="lora", micro_batch_tokens=64)
    policy = open_policy(settings, tiny_model, "float32", None, 0)
    method = DirectPreferenceOptimization(PAIRS, reference_logprobs(policy, PAIRS, settings), settings, 0)
    for micro in micro_batches(PAIRS, settings):
        _, stats = method.loss(policy, micro)
        assert all(abs(v.item()) < 1e-4 for k, v in stats.items() if k.endswith("/margin"))


class _Stop(Exception):
    pass


def _train(
    model: Path, folder: Path, settings: TrainingSection, stop_after: int | None = None, pairs: list[Pair] = PAIRS,
    dtype: str = "float32",
) -> list[Record]:
    def report(values: dict[str, float]) -> None:
        if stop_after is not None and values["done"] > stop_after:
            raise _Stop

    with memory_errors(settings):
        reference = reference_logprobs(open_policy(settings, model, dtype, None, 0), pairs, settings)
    return train(
        DirectPreferenceOptimization(pairs, reference, settings, 3), settings, base=model, dtype=dtype, start=None,
        seed=3, work=folder / "work", output=folder / "model", report=report,
    )


def test_training_prefers_the_chosen_and_reports_by_kind(tiny_model: Path, tmp_path: Path) -> None:
    settings = TrainingSection(method="dpo", learning_rate=5e-3, epochs=8, batch_size=3, schedule="constant")
    history = _train(tiny_model, tmp_path, settings)
    assert history[0]["loss"] == pytest.approx(math.log(2.0), rel=1e-4)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["accuracy"] == 1.0 and history[-1]["margin"] > 0.5
    both = [h for h in history if "full/margin" in h]
    assert both and all("edited/chosen" in h and "edited/rejected" in h for h in both)
    margins = [both[-1][f"{kind}margin"] for kind in ("full/", "edited/", "")]
    assert min(margins[:2]) <= margins[2] <= max(margins[:2])


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights wide enough for NF4 blocks of 64."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("wide")
    config = LlamaConfig(
        vocab_size=99, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("adapter", "dtype"), [("lora", "float32"), ("qlora", "bfloat16"), ("full", "bfloat16")])
def test_interrupted_training_ends_with_the_same_bytes(
    tiny_model: Path, wide_model: Path, tmp_path: Path, adapter: str, dtype: str
) -> None:
    model = wide_model if adapter == "qlora" else tiny_model
    settings = TrainingSection.model_validate({
        "method": "dpo", "adapter": adapter, "epochs": 4, "batch_size": 2, "checkpoint_every": 2, "learning_rate": 1e-3,
        "lora": {"dropout": 0.1, "r": 4}, "dpo": {"nll": 0.2, "validation_fraction": 0.25},
    })
    calm = _train(model, tmp_path / "calm", settings, dtype=dtype)
    for stop_after in (3, 7):
        with pytest.raises(_Stop):
            _train(model, tmp_path / "cut", settings, stop_after, dtype=dtype)
    assert _train(model, tmp_path / "cut", settings, dtype=dtype) == calm
    for file in sorted((tmp_path / "calm" / "model").iterdir()):
        assert file.read_bytes() == (tmp_path / "cut" / "model" / file.name).read_bytes(), file.name


def test_gradient_checkpointing_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    results = [
        _train(tiny_model, tmp_path / str(on), TrainingSection(method="dpo", epochs=2, batch_size=3, gradient_checkpointing=on))
        for on in (False, True)
    ]
    for plain, checkpointed in zip(*results, strict=True):
        assert plain["loss"] == pytest.approx(checkpointed["loss"], rel=1e-5)
        assert plain["gradient_norm"] == pytest.approx(checkpointed["gradient_norm"], rel=1e-4)


def test_a_training_that_gets_worse_is_stopped(tiny_model: Path, tmp_path: Path) -> None:
    many = [make_pair(10 + i, 10 + i, 6, 1, 4, 5) for i in range(16)]
    settings = TrainingSection.model_validate({
        "method": "dpo", "learning_rate": 0.3, "epochs": 3, "batch_size": 4,
        "dpo": {"beta": 2.0, "validation_fraction": 0.5, "stop_if_worse_than_start": True},
    })
    with pytest.raises(RatchetError, match=r"stopped after step \d+: .* on 8 held-out pairs .* it was 0\.6931"):
        _train(tiny_model, tmp_path, settings, pairs=many)
    assert not (tmp_path / "model").exists()


def test_what_is_measured_last_is_the_mean_that_is_saved(tiny_model: Path, tmp_path: Path) -> None:
    settings = TrainingSection.model_validate({
        "method": "dpo", "epochs": 3, "batch_size": 2, "learning_rate": 1e-2, "schedule": "constant", "average": 0.9,
        "adapter": "full", "dpo": {"validation_fraction": 0.4},
    })
    last = _train(tiny_model, tmp_path, settings)[-1]
    policy = Policy(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), "sdpa", True)
    _, held_out = split_by_problem(PAIRS, 0.4, 3)
    before = Policy(AutoModelForCausalLM.from_pretrained(tiny_model), "sdpa", True)
    with torch.no_grad():
        reference, after = (reference_logprobs(p, held_out, settings) for p in (before, policy))
    moved = [[a - b for a, b in zip(after[p.id], reference[p.id], strict=True)] for p in held_out]
    margins = torch.tensor([settings.dpo.beta * (chosen - rejected) for chosen, rejected in moved])
    assert last["validation/loss"] == pytest.approx(-torch.nn.functional.logsigmoid(margins).mean().item(), rel=1e-4)


def test_validation_holds_out_whole_problems() -> None:
    training, validation = split_by_problem(PAIRS, 0.5, 7)
    assert len(training) + len(validation) == len(PAIRS) and validation
    assert not {p.problem for p in training} & {p.problem for p in validation}


def test_batches_hold_every_pair_once_an_epoch_with_problems_together() -> None:
    settings = TrainingSection(method="dpo", epochs=3, batch_size=2)
    reference = {p.id: (0.0, 0.0) for p in PAIRS}
    method = DirectPreferenceOptimization(PAIRS, reference, settings, 1)
    for epoch in range(3):
        seen = [p.id for s in range(method.steps) for e, micro in [method.batch(s)] if e == epoch
                for m in micro for g in m.groups for p in g]
        assert sorted(seen) == sorted(reference)


def test_no_pairs_is_an_error() -> None:
    with pytest.raises(InputError, match="no preference pairs"):
        DirectPreferenceOptimization([], {}, TrainingSection(method="dpo"), 0)
