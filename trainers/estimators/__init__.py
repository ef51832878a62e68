"""Advantage estimators: pure functions from the rewards of a problem's samples to what each sample is worth.

All take rewards [samples] of one problem, float32, and return advantages [samples]; `kl` spreads them over tokens.
"""

from trainers.estimators.grpo import grpo
from trainers.estimators.kl import token_advantages
from trainers.estimators.reinforce import reinforce
from trainers.estimators.remax import remax
from trainers.estimators.rloo import rloo
from trainers.estimators.t1 import t1

__all__ = ["grpo", "reinforce", "remax", "rloo", "t1", "token_advantages"]
