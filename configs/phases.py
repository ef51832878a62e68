"""Runs of several phases.

A phase is the recipe with some settings changed, going on from the weights that the phase before ended with: supervised
learning first, then preference pairs, then reinforcement learning, say. What is measured and what the weights are (model,
prompt, adapter, evaluation) belongs to the whole run, so that the models of all phases can be compared.
"""

from __future__ import annotations

from typing import Any

from configs.merge import merge
from configs.phase_section import PhaseSection
from configs.schema import Recipe


def phase_data(recipe: Recipe, phase: PhaseSection) -> dict[str, Any]:
    """Plain data of the recipe that a phase stands for."""
    return merge(recipe.model_dump(exclude={"phases"}), phase.settings)


def phases_of(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """Name and recipe of each phase; a recipe without phases is one phase without a name."""
    if not recipe.phases:
        return [("", recipe)]
    return [(p.name, Recipe.model_validate(phase_data(recipe, p))) for p in recipe.phases]


def model_names(phase: str, count: int) -> list[str]:
    """What the models of a phase's `count` iterations are called: iteration1, ...; of a named phase NAME or NAME1, ..."""
    if phase and count == 1:
        return [phase]
    return [f"{phase or 'iteration'}{i}" for i in range(1, count + 1)]
