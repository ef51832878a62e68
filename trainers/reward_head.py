"""The scalar head of reward models, and the scores that it gives to marked tokens of packed sequences.

As in the Qwen2.5-Math report (arXiv 2409.12122, section 3.1): the language-model head is replaced by two linear
layers with a ReLU between them. The head is float32 whatever the backbone is, and is saved as
`reward_head.safetensors` beside the adapter or the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from configs.errors import InputError
from configs.keys import derive_seed
from configs.schema import TrainingSection
from trainers.loop import memory_errors, open_policy
from trainers.packing import TokenSequence, budgeted, unique_tokens
from trainers.policy import Policy

FILE = "reward_head.safetensors"
_NAME = "reward_head"


class RewardHead:
    """A head as a part of a training (`trainers.loop.Part`), or one that was trained. `kind`: outcome or process."""

    def __init__(self, kind: str, seed: int = 0, trained: Path | None = None) -> None:
        self.kind, self.seed, self.trained = kind, seed, trained

    def attach(self, policy: Policy) -> None:
        """Put the head into `policy.model`: new and seeded, or as it was saved."""
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(self.seed, _NAME))
            head = torch.nn.Sequential(
                torch.nn.Linear(policy.size, policy.size), torch.nn.ReLU(), torch.nn.Linear(policy.size, 1)
            )
        if self.trained is not None:
            path = self.trained / FILE
            if not path.is_file():
                raise InputError(f"{self.trained} holds no reward model: there is no {FILE}")
            with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
                head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        policy.model.add_module(_NAME, head.to(policy.device))

    def save(self, policy: Policy, folder: Path) -> None:
        """Write the head, and leave `policy.model` the language model that it was."""
        tensors = {name: t.detach().cpu().contiguous() for name, t in getattr(policy.model, _NAME).state_dict().items()}
        save_file(tensors, folder / FILE, metadata={"kind": self.kind})
        delattr(policy.model, _NAME)


def saved_kind(folder: Path) -> str:
    """"outcome" or "process", of a saved reward model. Raises InputError where there is none."""
    if not (folder / FILE).is_file():
        raise InputError(f"{folder} holds no reward model: there is no {FILE}")
    with safe_open(folder / FILE, "pt") as file:  # type: ignore[no-untyped-call]
        return file.metadata()["kind"]


class Response(NamedTuple):
    """A solution after its prompt; `marks` are the indices into `token_ids` at which it is scored (at least one)."""

    prompt_ids: list[int]
    token_ids: list[int]
    marks: Sequence[int]

    @property
    def sequence(self) -> TokenSequence:
        """The whole as packed: no log-probabilities are wanted."""
        ids, prompt = self.prompt_ids + self.token_ids, len(self.prompt_ids)
        return TokenSequence(ids, len(ids), [prompt + m for m in self.marks])


def mark_scores(policy: Policy, groups: Sequence[Sequence[Response]]) -> list[list[torch.Tensor]]:
    """Raw scores of every response of every group, [marks] float32 each. One forward pass; responses of a group
    share their prompt."""
    packed = policy.pack([[r.sequence for r in group] for group in groups])
    hidden = policy.hidden(packed).float()
    with torch.autocast(policy.device.type, enabled=False):
        flat: torch.Tensor = getattr(policy.model, _NAME)(hidden)[:, 0]
    each = iter(flat.split([len(r.marks) for group in groups for r in group]))
    return [[next(each) for _ in group] for group in groups]


class Scorer:
    """A trained reward model in `folder`, ready to score. `settings` as in its training."""

    def __init__(self, folder: Path, settings: TrainingSection, base: Path, dtype: str) -> None:
        kind = saved_kind(folder)
        self.kind, self.settings = kind, settings.model_copy(update={"gradient_checkpointing": False})
        full = settings.adapter == "full"
        with memory_errors(settings):
            self.policy = open_policy(self.settings, folder if full else base, dtype, None if full else folder, 0)
            RewardHead(kind, trained=folder).attach(self.policy)

    def score(self, responses: Sequence[Response], report: Callable[[int], None] | None = None) -> list[list[float]]:
        """Raw scores at the marks of each response, in the order given.

        Responses of one prompt go together, up to `micro_batch_tokens` distinct tokens in a forward pass, long ones
        with long ones. `report` is called with the number of responses done.
        """
        parts = self._parts(responses)
        sizes = [unique_tokens([responses[i].sequence for i in part], self.settings.prefix_sharing) for part in parts]
        result: list[list[float]] = [[] for _ in responses]
        done = 0
        with self.policy.evaluating(), memory_errors(self.settings):
            for batch in budgeted(sizes, self.settings.micro_batch_tokens):
                scores = mark_scores(self.policy, [[responses[i] for i in parts[p]] for p in batch])
                values = iter(torch.cat([v for group in scores for v in group]).tolist())  # one wait for the GPU
                for i in (i for p in batch for i in parts[p]):
                    result[i] = [next(values) for _ in responses[i].marks]
                    done += 1
                if report:
                    report(done)
        return result

    def _parts(self, responses: Sequence[Response]) -> list[list[int]]:
        """Numbers of responses by prompt; a prompt with too many for one forward pass gives several parts."""
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for i, response in enumerate(responses):
            by_prompt.setdefault(tuple(response.prompt_ids), []).append(i)
        parts: list[list[int]] = []
        for prompt, numbers in by_prompt.items():
            room = 0
            for i in sorted(numbers, key=lambda i: len(responses[i].token_ids)):
                room -= len(responses[i].token_ids)
                if room < 0:
                    parts.append([])
                    room = self.settings.micro_batch_tokens - len(prompt) - len(responses[i].token_ids)
                parts[-1].append(i)
        return parts
