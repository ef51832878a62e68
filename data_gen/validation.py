"""Problems held out of the training problems, to choose settings by without looking at a test set."""

from __future__ import annotations

from collections.abc import Sequence

from configs.errors import InputError
from configs.keys import derive_seed
from configs.rows import Problem
from data_gen.decontaminate import words_of


def held_out(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """`count` of `problems`, in their order: those whose text (or `core`) has the smallest hashes.

    Whether a problem is held out depends on the set, not on the order of the problems. Equal questions have equal
    hashes, so that they are held out together or not at all; where that would exceed `count`, the next ones are taken.
    Raises InputError when too few problems would be left to train on (fewer than are held out).
    """
    if 2 * count > len(problems):
        raise InputError(
            f"data.validation={count} is more than half of the {len(problems)} training problems: hold out fewer, or raise "
            "data.train.limit"
        )
    groups: dict[int, list[int]] = {}
    for i, problem in enumerate(problems):
        identity = [problem.core] if problem.core is not None else list(words_of(problem.question))
        groups.setdefault(derive_seed("validation", seed, identity), []).append(i)
    chosen: list[int] = []
    for key in sorted(groups):
        if len(chosen) + len(groups[key]) <= count:
            chosen += groups[key]
    return [problems[i] for i in sorted(chosen)]
