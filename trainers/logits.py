"""Logits where they are needed and nowhere else."""

from __future__ import annotations

import torch


def logits_before(
    model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Logits [targets, vocabulary] that predict the tokens of `ids` [rows, width] where `target` is true.

    `mask` marks real tokens (right padding). Position 0 cannot be a target. The selection happens in front
    of the output projection, by a hook, so that whatever a model does to its logits afterwards (scaling,
    soft-capping) is kept, and the projection sees one contiguous matrix: for a sliced three-dimensional
    input, PyTorch copies the whole vocabulary matrix once a row.
    """
    if bool(target[:, 0].any()):
        raise ValueError("the first token of a row has no context to be predicted from")
    before = torch.zeros_like(target)
    before[:, :-1] = target[:, 1:]

    def select(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][before], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)  # type: ignore[operator]
    try:
        return model(input_ids=ids, attention_mask=mask).logits
    finally:
        handle.remove()
