"""Token sequences laid out for one forward pass: no padding between them, equal prefixes computed once.

The sequences of a row form a trie. Its nodes are laid out in depth-first order, so that node k is an ancestor
of node q (or q itself) exactly when k <= q < end[k], with end[k] the first place after k's subtree: one integer
a token describes the whole attention mask. A token's position id is its depth, so each sequence sees just what
it would see alone.

Where sequences part after L equal tokens, the later one begins with a second copy of token L - 1. It sees the
same ancestors and so has the same hidden state; every place thus predicts one next token at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

PAD = -100


class TokenSequence(NamedTuple):
    """Ids of one sequence; the log-probabilities of ids[start:] are wanted (start >= 1), and the hidden states at
    the indices `marks`."""

    ids: list[int]
    start: int
    marks: Sequence[int] = ()


class Row(NamedTuple):
    """One packed row of n tokens: ids, depths, subtree ends and next-token labels (PAD where none is wanted), each int64
    [n], and for each of its sequences the places whose labels are its targets, and the places of its marks."""

    ids: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    label: np.ndarray
    places: list[np.ndarray]
    marks: list[np.ndarray]


class Packed(NamedTuple):
    """Rows [rows, width] for one forward pass: `ids`, `depth`, `end`.

    `wanted` are the flat indices (row * width + place) of the places that predict a target, `labels` these targets, both
    [distinct]. `places` are indices into them, of all targets of all sequences, sequence after sequence in the order
    in which they were given; `owner` says whose they are. `marks` are the flat indices of all marks in the same order."""

    ids: torch.Tensor
    depth: torch.Tensor
    end: torch.Tensor
    wanted: torch.Tensor
    labels: torch.Tensor
    places: torch.Tensor
    owner: torch.Tensor
    sequences: int
    tokens: int
    marks: torch.Tensor

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        return self._replace(**{k: to_device(v, device) for k, v in self._asdict().items() if isinstance(v, torch.Tensor)})


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on `device`. From pinned memory, so that the host need not wait until the GPU has done all that was
    asked of it before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def pack_row(sequences: Sequence[TokenSequence], share: bool = True) -> Row:
    """Lay out `sequences` in one row; with `share=False` each keeps a copy of its prefix."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].ids) if share else range(len(sequences))
    most = sum(len(s.ids) for s in sequences)
    ids, depth = np.empty(most, np.int64), np.empty(most, np.int64)
    end, label = np.empty(most, np.int64), np.full(most, PAD, np.int64)
    places: list[np.ndarray] = [np.empty(0, np.int64) for _ in sequences]
    marks: list[np.ndarray] = [np.empty(0, np.int64) for _ in sequences]
    path = np.empty(0, np.int64)  # places of the last sequence's tokens
    last: list[int] = []
    n = 0
    for i in order:
        current, start, marked = sequences[i]
        if not 1 <= start <= len(current):
            raise ValueError(f"sequence {i} has {len(current)} tokens and targets from {start}: the first cannot be a target")
        equal = _common_prefix(last, current) if share else 0
        keep = equal if equal == len(current) else max(0, equal - 1)
        end[path[keep:]] = n
        new = slice(n, n + len(current) - keep)
        path = np.concatenate([path[:keep], np.arange(new.start, new.stop)])
        tokens = np.array(current, np.int64)
        ids[new], depth[new] = tokens[keep:], np.arange(keep, len(current))
        places[i] = path[start - 1 : len(current) - 1]
        label[places[i]] = tokens[start:]
        marks[i] = path[list(marked)]
        last, n = current, new.stop
    end[path] = n
    return Row(ids[:n], depth[:n], end[:n], label[:n], places, marks)


def stack(rows: Sequence[Row], indices: Sequence[Sequence[int]], multiple: int = 1) -> Packed:
    """Rows of one forward pass, padded to the widest (rounded up to `multiple`).

    `indices[r]` are the numbers, in the caller's order, of the sequences in row r.
    """
    width = -(-max(len(r.ids) for r in rows) // multiple) * multiple
    shape = (len(rows), width)
    ids, depth = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    end = np.tile(np.arange(1, width + 1), (len(rows), 1))  # padding sees itself alone
    label = np.full(shape, PAD, np.int64)
    count = sum(len(mine) for mine in indices)
    places, marks = [np.empty(0, np.int64)] * count, [np.empty(0, np.int64)] * count
    for r, row in enumerate(rows):
        n = len(row.ids)
        ids[r, :n], depth[r, :n], end[r, :n], label[r, :n] = row.ids, row.depth, row.end, row.label
        for number, mine, marked in zip(indices[r], row.places, row.marks, strict=True):
            places[number], marks[number] = r * width + mine, r * width + marked
    wanted = np.flatnonzero(label != PAD)
    into = np.searchsorted(wanted, np.concatenate(places))
    owner = np.repeat(np.arange(count), [len(p) for p in places])
    tensor = torch.from_numpy
    return Packed(
        tensor(ids), tensor(depth), tensor(end), tensor(wanted), tensor(label.ravel()[wanted]), tensor(into),
        tensor(owner), count, sum(len(r.ids) for r in rows), tensor(np.concatenate(marks)),
    )


def pack(groups: Sequence[Sequence[TokenSequence]], capacity: int | None, share: bool, multiple: int = 1) -> Packed:
    """All sequences of all groups for one forward pass; a group (whose sequences share a prefix) stays together.

    `capacity` None puts everything into one row. Otherwise groups are put into rows of at most `capacity`
    tokens, first fit in decreasing size (one row for a group that is larger): dense masks cost the square of
    a row's width. Sequences are numbered through the groups in the order given.
    """
    first = [0]
    for group in groups:
        first.append(first[-1] + len(group))
    bins: list[list[int]] = [list(range(len(groups)))]
    if capacity is not None:
        sizes = [unique_tokens(g, share) for g in groups]
        room: list[int] = []
        bins = []
        for g in sorted(range(len(groups)), key=lambda g: -sizes[g]):
            b = next((b for b, left in enumerate(room) if left >= sizes[g]), None)
            if b is None:
                b = len(bins)
                bins.append([])
                room.append(capacity)
            bins[b].append(g)
            room[b] -= sizes[g]
    rows = [pack_row([s for g in b for s in groups[g]], share) for b in bins]
    numbers = [[first[g] + k for g in b for k in range(len(groups[g]))] for b in bins]
    return stack(rows, numbers, multiple)


def unique_tokens(group: Sequence[TokenSequence], share: bool = True) -> int:
    """Tokens that a group takes in a row."""
    if not share:
        return sum(len(s.ids) for s in group)
    total, last = 0, []
    for ids in sorted(s.ids for s in group):
        equal = _common_prefix(last, ids)
        total += len(ids) - (equal if equal == len(ids) else max(0, equal - 1))
        last = ids
    return total


def budgeted(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Numbers of items put together so that each part's sizes sum to at most `budget` (or it has one item):
    first fit in decreasing size, so that a batch needs few forward passes."""
    parts: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        p = next((p for p, left in enumerate(room) if left >= sizes[i]), None)
        if p is None:
            p = len(parts)
            parts.append([])
            room.append(budget)
        parts[p].append(i)
        room[p] -= sizes[i]
    return parts


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])
