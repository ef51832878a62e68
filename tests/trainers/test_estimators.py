"""Estimators against numbers: by hand, and as verl's and TRL's formulas give them on the same tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import TrainingSection
from trainers.estimators import grpo, reinforce, remax, rloo, t1, token_advantages
from trainers.rollouts import Greedy, Group, Trajectory, advantages, batch_mean, useful

REWARDS = torch.tensor([1.0, 0.0, 0.0, -1.0])
FLOATS = st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=16)


def group(rewards: list[float], greedy: float | None = None) -> Group:
    samples = [Trajectory([5, 1], [-0.5, -0.1], r, r > 0, False) for r in rewards]
    return Group("p", [2, 3], samples, None if greedy is None else Greedy(greedy, 2))


def settings(method: str, **rl: object) -> TrainingSection:
    return TrainingSection.model_validate({"method": method, "rl": rl})


def test_remax_by_hand() -> None:
    assert remax(REWARDS, 0.0).tolist() == [1.0, 0.0, 0.0, -1.0]
    assert remax(REWARDS, 1.0).tolist() == [0.0, -1.0, -1.0, -2.0]
    # the published code clips the difference, not the reward: remax_trainer.py, clip to +-5
    assert remax(torch.tensor([9.0, -7.0, 3.0]), 1.0, clip=5.0).tolist() == [5.0, -5.0, 2.0]


@pytest.mark.parametrize("greedy", [0.0, 1.0])
def test_remax_equal_rewards_teach_exactly_nothing(greedy: float) -> None:
    equal = group([greedy] * 3, greedy)
    assert advantages(equal, settings("remax")).tolist() == [0.0, 0.0, 0.0]
    assert not useful(equal, settings("remax"))
    assert useful(group([0.0, 0.0], 1.0), settings("remax"))


def test_remax_without_a_greedy_completion_is_an_error() -> None:
    with pytest.raises(ValueError, match="no greedy baseline"):
        advantages(group([1.0]), settings("remax"))


def test_kl_penalties_by_hand_and_as_in_verl() -> None:
    """verl's compute_remax_outcome_advantage: score 1 at the last of four tokens, kl_coef 0.1, baseline 0.25. Its
    returns are the reversed cumulative sums of token rewards: [0.98, 1.0, 0.97, 1.01], less 0.25."""
    k = torch.tensor([0.2, -0.3, 0.4, -0.1])
    advantage = remax(torch.tensor([1.0]), 0.25)[0]
    expected = [0.73, 0.75, 0.72, 0.76]
    assert token_advantages(advantage, k, 0.1, "to_go").tolist() == pytest.approx(expected, abs=1e-6)
    # ReMax's own code: the penalty of the token alone (gamma 1)
    assert token_advantages(advantage, k, 0.1, "token").tolist() == pytest.approx([0.73, 0.78, 0.71, 0.76], abs=1e-6)
    assert token_advantages(advantage, k, 0.1, "none").tolist() == [0.75] * 4


def test_rloo_by_hand_as_in_verl_and_trl() -> None:
    """verl: r * n/(n-1) - mean * n/(n-1); TRL: r - (sum - r)/(n - 1). Both give these."""
    assert rloo(REWARDS).tolist() == pytest.approx([4 / 3, 0.0, 0.0, -4 / 3])
    assert rloo(torch.tensor([1.0, 1.0, 0.0, 0.0])).tolist() == pytest.approx([2 / 3, 2 / 3, -2 / 3, -2 / 3])
    assert rloo(torch.tensor([1.0])).tolist() == [0.0]


def test_grpo_as_in_verl_and_trl() -> None:
    """One right of four: mean 0.25, sample deviation 0.5. verl divides by 0.500001, TRL by 0.5001."""
    ours = grpo(torch.tensor([1.0, 0.0, 0.0, 0.0])).tolist()
    assert ours == pytest.approx([1.499997, -0.499999, -0.499999, -0.499999], abs=2e-6)
    assert ours == pytest.approx([1.4997001, -0.4999, -0.4999, -0.4999], abs=4e-4)
    assert grpo(torch.tensor([1.0, 0.0, 0.0, 0.0]), std=False).tolist() == [0.75, -0.25, -0.25, -0.25]
    assert grpo(torch.ones(4)).tolist() == [0.0] * 4


def test_reinforce_by_hand() -> None:
    assert reinforce(REWARDS).tolist() == [1.0, 0.0, 0.0, -1.0]
    groups = [group([1.0, 0.0]), group([1.0, 1.0])]
    assert batch_mean(groups, settings("reinforce", baseline="batch")) == 0.75
    assert batch_mean(groups, settings("reinforce")) == 0.0


def test_t1_by_hand_and_equal_to_trl_rloo_with_the_kl_in_the_reward() -> None:
    kl = torch.tensor([2.0, 0.0, 1.0, 5.0])
    # rloo(r) = [4/3, 0, 0, -4/3]; rloo(kl) = [0, -8/3, -4/3, 4]
    expected = [4 / 3, 0.1 * 8 / 3, 0.1 * 4 / 3, -4 / 3 - 0.4]
    assert t1(REWARDS, kl, 0.1).tolist() == pytest.approx(expected, abs=1e-6)
    assert rloo(REWARDS - 0.1 * kl).tolist() == pytest.approx(expected, abs=1e-6)


@given(FLOATS, FLOATS)
def test_leave_one_out_sums_to_zero(rewards: list[float], kl: list[float]) -> None:
    n = min(len(rewards), len(kl))
    r, k = torch.tensor(rewards[:n]), torch.tensor(kl[:n])
    assert rloo(r).sum().item() == pytest.approx(0.0, abs=1e-4)
    assert t1(r, k, 0.5).sum().item() == pytest.approx(0.0, abs=1e-4)


@given(FLOATS)
def test_grpo_without_std_is_rloo_up_to_a_factor(rewards: list[float]) -> None:
    r = torch.tensor(rewards)
    torch.testing.assert_close(grpo(r, std=False), rloo(r) * (len(r) - 1) / len(r), rtol=1e-4, atol=1e-4)
