"""The section of a recipe that holds one phase of a longer run; `configs.phases` makes recipes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What a phase may change; what belongs to the whole run; and of the former, what belongs to the whole run all the same.
PHASED = (
    "data", "sampling", "rewards", "selection", "pairs", "rollouts", "training", "reward_model", "iterations", "balance",
    "exploration",
)  # fmt: skip
WHOLE = ("name", "track", "seed", "model", "evaluation", "phases", "executor")
UNPHASED = {
    "data": ("prompt", "validation", "decontaminate", "ngram", "lcs_ratio"), "sampling": ("engine",),
    "training": ("adapter", "lora"),
}  # fmt: skip


class PhaseSection(BaseModel):
    """One part of a run that goes on from the weights of the part before: a name, and the settings that differ from the
    recipe's, in their sections (`PHASED`)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9_]*[a-z])?$")]  # iterations are numbered: sft, rft1, rft2

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that differ, by section."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _of_a_phase(self) -> PhaseSection:
        if self.name in ("initial", "problems", "iteration"):
            raise ValueError(f"a phase cannot be called `{self.name}`, which means something else in reports")
        for section, keys in self.settings.items():
            if section in WHOLE:
                raise ValueError(f"`{section}` belongs to the whole run: set it beside `phases`, not in phase `{self.name}`")
            if keys is not None and section in PHASED and not isinstance(keys, Mapping):
                raise ValueError(f"`{section}` is a section with keys of its own, not {keys!r}")
            for key in UNPHASED.get(section, ()):
                if key in (keys or {}):
                    raise ValueError(f"`{section}.{key}` belongs to the whole run, not to phase `{self.name}`")
        return self
