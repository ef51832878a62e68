"""The trainer's weights in the sampler, and the proof that they have arrived.

Adapters are saved into a fresh folder each time, which the engine serves unmerged under a fresh id; the base is never
touched, so nothing drifts. Full weights are copied into the engine in place. After every swap the canary asks the
engine to complete a few fixed prompts greedily and compares its log-probabilities with the trainer's:

- mean |difference| a token must not exceed a tolerance;
- the engine must have moved from the start as the trainer has. With d = trainer now - trainer at the start, the
  projection of (engine - trainer at the start) on d is 1 for a sampler in step and 0 for one that never got the
  adapter. Below 1/2 the run stops, as soon as d stands out of the noise measured before the first update. This finds
  a stale sampler while all differences are still below any tolerance that bfloat16 allows.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from configs.errors import RatchetError
from data_gen.engine import Completion, Engine, Request
from trainers.model import save_trained
from trainers.policy_gradient import PolicyGradient

_TOKENS = 24  # a canary completion
_TOLERANCE = {"float32": 0.005, "bfloat16": 0.05}  # nats a token, mean; see docs/policy_gradient.md
_CERTAIN = 0.1  # standard error of the projection below which it is believed


class WeightSync:
    """Keeps `engine` at the weights of `trainer`. `floor` is the noise (root mean square, nats) before any update;
    it goes into the checkpoint."""

    def __init__(
        self, trainer: PolicyGradient, engine: Engine, base: Path, dtype: str, folder: Path, prompts: Sequence[list[int]]
    ) -> None:
        self.trainer, self.engine, self.base, self.dtype = trainer, engine, base, dtype
        self.folder, self.prompts = folder, list(prompts)
        self.tolerance = trainer.rl.canary_tolerance or _TOLERANCE[dtype]
        self.floor: float | None = None
        for leftover in folder.glob("adapter-*"):
            shutil.rmtree(leftover)
        self._served: Path | None = None

    def publish(self, version: int) -> dict[str, float]:
        """Give the engine the weights of `version` (steps done) and check them; the canary's figures."""
        if self.trainer.settings.adapter == "full":
            self._copy()
        else:
            self._swap(version)
        return self.check(version)

    def _swap(self, version: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f"adapter-{version:06d}-", dir=self.folder))
        save_trained(self.trainer.policy.model, fresh, self.base, self.dtype)
        self.engine.set_adapter(fresh)
        if self._served is not None:
            shutil.rmtree(self._served)
        self._served = fresh

    def _copy(self) -> None:
        weights = self.trainer.policy.model.state_dict()
        self.engine.set_weights({name: value.detach() for name, value in weights.items()})

    def check(self, version: int) -> dict[str, float]:
        """Compare engine and trainer. Raises RatchetError when they do not have the same weights."""
        completions = self._complete()
        ids = [c.token_ids for c in completions]
        engine = [x for c in completions for x in c.logprobs]
        trainer = [x for part in self.trainer.logprobs_of(self.prompts, ids) for x in part]
        differences = [e - t for e, t in zip(engine, trainer, strict=True)]
        mean = sum(map(abs, differences)) / len(differences)
        spread = math.sqrt(sum(d * d for d in differences) / len(differences))
        if self.floor is None:
            self.floor = spread
        # a quantised trainer differs from its sampler by design: what it may differ by is what it did at the start
        allowed = self.tolerance + (2.0 * self.floor if self.trainer.settings.adapter == "qlora" else 0.0)
        found = {"canary": mean}
        if version and self.trainer.initial is not None:
            with self.trainer.holding(self.trainer.initial):
                start = [x for part in self.trainer.logprobs_of(self.prompts, ids) for x in part]
            found |= _arrival(engine, trainer, start, max(self.floor, 1e-6))
        if not mean <= allowed:
            what = f"differ by {mean:.4f} nats a token on the canary, {allowed:.4f} are allowed"
            raise RatchetError(self._failure(version, what))
        if "canary_arrived" in found and not found["canary_arrived"] >= 0.5:
            share = found["canary_arrived"]
            raise RatchetError(self._failure(version, f"show only {share:.0%} of what the training has changed so far"))
        return found

    def _complete(self) -> list[Completion]:
        requests = [
            Request(id=f"canary{i}", prompt_ids=p, seeds=[0], temperature=0.0, top_p=1.0, max_tokens=_TOKENS)
            for i, p in enumerate(self.prompts)
        ]
        found = {c.request: c for group in self.engine.generate(requests) for c in group}
        return [found[r.id] for r in requests]

    def _failure(self, version: int, what: str) -> str:
        return (
            f"the sampler does not have the trainer's weights: after step {version} its log-probabilities {what}. "
            "Learning from such samples would be learning from another model. Try sampling.engine=transformers; if the "
            "numbers of both engines are merely further apart than usual, raise training.rl.canary_tolerance"
        )


def _arrival(
    engine: Sequence[float], trainer: Sequence[float], start: Sequence[float], noise: float
) -> dict[str, float]:
    """The share of the trainer's way from the start that the engine has gone; nothing while noise hides it."""
    way = [t - s for t, s in zip(trainer, start, strict=True)]
    length = sum(w * w for w in way)
    if length == 0.0 or noise / math.sqrt(length) > _CERTAIN:
        return {}
    return {"canary_arrived": sum((e - s) * w for e, s, w in zip(engine, start, way, strict=True)) / length}
