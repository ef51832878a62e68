"""Packed rows: the layout's properties, and log-probabilities and gradients against one sequence at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from trainers.packing import PAD, TokenSequence, budgeted, pack, pack_row, unique_tokens
from trainers.policy import Policy

IDS = st.lists(st.integers(0, 2), min_size=2, max_size=9)
SEQUENCE = IDS.flatmap(
    lambda ids: st.builds(TokenSequence, st.just(ids), st.integers(1, len(ids)), st.lists(st.integers(0, len(ids) - 1)))
)
SEQUENCES = st.lists(SEQUENCE, min_size=1, max_size=6)


def _seen(row_end: list[int], place: int) -> list[int]:
    return [k for k in range(place + 1) if place < row_end[k]]


@given(SEQUENCES, st.booleans())
def test_every_sequence_sees_itself_and_nothing_else(sequences: list[TokenSequence], share: bool) -> None:
    row = pack_row(sequences, share)
    assert len(row.ids) == unique_tokens(sequences, share)
    assert len(row.ids) <= sum(len(s.ids) for s in sequences)
    for (ids, start, marks), places, marked in zip(sequences, row.places, row.marks, strict=True):
        for mark, place in zip(marks, marked, strict=True):
            assert [row.ids[k] for k in _seen(row.end, place)] == ids[: mark + 1]
        assert [row.label[p] for p in places] == ids[start:]
        for target, place in enumerate(places, start):
            seen = _seen(row.end, place)
            assert [row.ids[k] for k in seen] == ids[:target]
            assert [row.depth[k] for k in seen] == list(range(target))
    assert sum(x != PAD for x in row.label) <= sum(len(s.ids) - s.start for s in sequences)


def test_equal_prefixes_are_laid_out_once() -> None:
    context = list(range(100, 140))
    pair = [TokenSequence([*context, 1, 2, 3], 40), TokenSequence([*context, 1, 2, 4, 5], 40)]
    # the second side starts with a copy of the last equal token, which predicts its first own one
    assert unique_tokens(pair) == 40 + 3 + 1 + 2
    assert unique_tokens(pair, share=False) == 43 + 44


def test_a_sequence_without_context_is_refused() -> None:
    with pytest.raises(ValueError, match="the first cannot be a target"):
        pack_row([TokenSequence([1, 2], 0)])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 60))
def test_micro_batches_respect_the_budget(sizes: list[int], budget: int) -> None:
    parts = budgeted(sizes, budget)
    assert sorted(i for p in parts for i in p) == list(range(len(sizes)))
    assert all(len(p) == 1 or sum(sizes[i] for i in p) <= budget for p in parts)


def _groups() -> list[list[TokenSequence]]:
    generator = torch.Generator().manual_seed(3)

    def ids(n: int) -> list[int]:
        return torch.randint(3, 95, (n,), generator=generator).tolist()

    groups = []
    for size in (5, 12, 3, 30):
        context = ids(size)
        step = ids(4)
        groups.append([
            TokenSequence(context + step + ids(6), size), TokenSequence(context + step + ids(2), size),
            TokenSequence(context + ids(9), size), TokenSequence(context + step, size + 2),
        ])
    return groups


def _alone(model: torch.nn.Module, groups: list[list[TokenSequence]]) -> torch.Tensor:
    """Log-probabilities one sequence at a time from the model's own logits."""
    result = []
    for s in (s for g in groups for s in g):
        logits = model(input_ids=torch.tensor([s.ids])).logits[0, :-1].log_softmax(-1)
        result.append(logits.gather(1, torch.tensor(s.ids[1:])[:, None])[s.start - 1 :, 0])
    return torch.cat(result)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("frozen_head", [True, False])
def test_logprobs_and_gradients_equal_one_sequence_at_a_time(tiny_model: Path, share: bool, frozen_head: bool) -> None:
    groups = _groups()
    weights = torch.randn(sum(len(s.ids) - s.start for g in groups for s in g), generator=torch.Generator().manual_seed(1))
    results = []
    for packed in (True, False):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        if frozen_head:
            model.get_input_embeddings().requires_grad_(False)
        policy = Policy(model, "sdpa", share)
        logprobs = policy.logprobs(policy.pack(groups)) if packed else _alone(model, groups)
        (logprobs * weights).sum().backward()
        results.append((logprobs.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (ours, our_gradients), (plain, plain_gradients) = results
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    assert our_gradients.keys() == plain_gradients.keys() != set()
    for name, gradient in our_gradients.items():
        plain = plain_gradients[name]
        torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item())


def test_rows_are_filled_up_to_their_capacity() -> None:
    packed = pack(_groups(), 40, share=True)
    assert packed.ids.shape[0] > 1
    assert packed.tokens == sum(unique_tokens(g) for g in _groups())
    assert packed.owner.tolist() == sorted(packed.owner.tolist())
