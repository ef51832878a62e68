"""Problems whose answers the tiny model hits now and then, with wrong and right samples of several steps, and the stages
from rollouts to pairs on them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.rows import Problem
from configs.schema import RolloutsSection
from pipelines.stage import Stage
from pipelines.store import Store
from tests.pipelines.rise_world import HINTS, PROMPT, World

ANSWER = "9"


def solved(count: int) -> list[tuple[Problem, list[tuple[str, str]]]]:
    """Problems with two right and three wrong samples each; two of the wrong ones have their first steps in common."""
    found = []
    for i in range(count):
        problem = Problem(
            id=f"own:{i}", parents=[], stage="problems", source="own", split="train", question=f"{i} eggs?", answer=ANSWER
        )
        begin = f"{i} + 1 = {i + 1}\n"
        texts = [
            f"{begin}So it is 9\n#### 9", f"All in all:\n{i} and more\n#### 9", f"{begin}2 + 2 = 5\nand one\n#### 6",
            f"{begin}2 + 2 = 5\nand two\nor three\n#### 7", f"{i}\n{i}\n#### 8",
        ]  # fmt: skip
        found.append((problem, [(t, "stop") for t in texts]))
    return found


class StepWorld(World):
    """A World with the stages of step values; `section` settings are those of `rollouts`."""

    def __init__(self, root: Path, base: Path, solutions: Sequence[Any] | None = None, size: int = 2) -> None:
        super().__init__(root, base, solutions or solved(4), size)

    @classmethod
    def reopened(cls, root: Path, base: Path) -> StepWorld:
        """The world that another process made: its store."""
        world = cls.__new__(cls)
        world.store, world.base = Store(root), base
        return world

    def value_stages(self, roots: bool = True, earlier: Sequence[Stage] = (), **section: Any) -> tuple[Stage, Stage]:
        """The rollouts and steps stages."""
        settings = RolloutsSection(**{"n": 4, "best_of": 2, **section}).model_dump()
        common = {"rollouts": settings, "root_from_samples": roots, "prompt": PROMPT, "model": "m", "seed": 3}
        config = {
            **common, "dtype": "float32", "engine": "transformers", "batch_size": 8, "max_model_len": 2048, "stop": [],
            "temperature": 0.5, "top_p": 1.0, "max_tokens": 64, "adapter": None, "policy": "m", "mode": "lenient",
            "timeout": 1.0, "max_failure_rate": 0.05,
        }  # fmt: skip
        inputs = self.inputs | {f"earlier{i}": s for i, s in enumerate(earlier)}
        paths = {"base": str(self.base)}
        rollouts = Stage("rollouts", "rollouts", config, inputs, paths, HINTS)
        return rollouts, Stage("steps", "steps", common, self.inputs | {"rollouts": rollouts}, paths)

    def step_pairs(self, rollouts: Stage, steps: Stage, variant: str = "pit", **settings: Any) -> Stage:
        config = {
            "variant": variant, "rollouts": rollouts.config["rollouts"], "max_length": 1024, "min_pairs": 1, "prompt": PROMPT,
            "model": "m", "seed": 3, **settings,
        }  # fmt: skip
        inputs = self.inputs | ({} if variant == "full" else {"rollouts": rollouts, "steps": steps})
        return Stage("step_pairs", "pairs", config, inputs, {"base": str(self.base)})


if __name__ == "__main__":  # the rollouts stage alone, for a test that kills it: ROOT MODEL
    made = StepWorld(Path(sys.argv[1]), Path(sys.argv[2]))
    made.run(made.value_stages(n=12, best_of=5)[0])
