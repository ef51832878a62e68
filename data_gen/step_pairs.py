"""Per-step pairs (Setlur et al., arXiv 2406.14532, algorithm 1).

`pit`: a whole right solution against the wrong one up to and with its first pit, after the prompt. `step`: after the steps
before the pit, a continuation that ended right against the pit, as theorem 6.1 has it: both sides continue one prefix of
the policy's own. `full`: whole solutions, the control that the paper finds no better than SFT.

The end token closes a side only where a solution ends: right solutions, and wrong ones whose pit is their last step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from configs.rows import Pair, Rollout, Sample, Step
from data_gen.certify import common_prefix

Target = Callable[[Sequence[int], str], list[int]]  # ids and text of a generation -> ids to train on, end token last


def whole_pair(right: Sample, wrong: Sample, prompt: list[int], target: Target) -> Pair:
    """Both solutions whole; a wrong one that was cut off has no end token."""
    rejected = target(wrong.token_ids, wrong.text) if wrong.finish_reason == "stop" else list(wrong.token_ids)
    return _pair(f"{wrong.id}/full", "full", [right.id, wrong.id], wrong.problem, prompt, (target(right.token_ids, right.text),
                 right.text, True), (rejected, wrong.text, wrong.finish_reason == "stop"))  # fmt: skip


def pit_pair(right: Sample, wrong: Sample, steps: Sequence[Step], prompt: list[int], target: Target) -> Pair | None:
    """The paper's pair; None if the right solution begins with the wrong one's steps: then the pit is none."""
    pit = _pit(steps)
    chosen = target(right.token_ids, right.text)
    rejected, ended = _until(wrong, pit, target)
    if common_prefix(chosen, rejected) == len(rejected):
        return None
    text = "".join(s.text for s in steps[: pit.index + 1])
    return _pair(f"{wrong.id}/pit", "pit", [right.id, wrong.id, pit.id], wrong.problem, prompt, (chosen, right.text, True),
                 (rejected, text, ended))  # fmt: skip


def step_pair(
    wrong: Sample, steps: Sequence[Step], rollouts: Mapping[str, Sequence[Rollout]], prompt: list[int], target: Target,
    seed: int,
) -> Pair | None:
    """The theorem's pair, its chosen side a random one of the right continuations of the state before the pit; None where
    there is none, or where all of them begin with the pit itself."""
    pit = _pit(steps)
    if not pit.index:  # the state before it is the prompt
        return None
    rejected, ended = _until(wrong, pit, target)
    rejected = rejected[pit.start :]
    found = []
    for r in rollouts.get(steps[pit.index - 1].prefix, ()):
        if r.outcome == "correct" and r.finish_reason == "stop" and not r.check:
            ids = target(r.token_ids, r.text)
            if common_prefix(ids, rejected) < len(rejected):
                found.append((r, ids))
    if not found:
        return None
    good, chosen = random.Random(seed).choice(found)
    return _pair(f"{wrong.id}/step", "step", [wrong.id, pit.id, good.id], wrong.problem,
                 [*prompt, *wrong.token_ids[: pit.start]], (chosen, good.text, True), (rejected, pit.text, ended))  # fmt: skip


def _pit(steps: Sequence[Step]) -> Step:
    return next(s for s in steps if s.pit)


def _until(wrong: Sample, pit: Step, target: Target) -> tuple[list[int], bool]:
    """Ids of a wrong solution up to and with its pit, and whether the end token is among them."""
    if pit.final and wrong.finish_reason == "stop":
        return target(wrong.token_ids, wrong.text), True
    return list(wrong.token_ids[: pit.end]), False


def _pair(
    name: str, kind: str, parents: list[str], problem: str, context: list[int], chosen: tuple[list[int], str, bool],
    rejected: tuple[list[int], str, bool],
) -> Pair:
    """A row; sides are (ids, text, whether the end token closes it)."""
    return Pair(
        id=name, parents=parents, stage="step_pairs", problem=problem, context_ids=context, chosen_ids=chosen[0],
        rejected_ids=rejected[0], chosen=chosen[1], rejected=rejected[1], kind=kind, error=None,
        first_difference=common_prefix(chosen[0], rejected[0]), chosen_eos=chosen[2], rejected_eos=rejected[2],
    )
