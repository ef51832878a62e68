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

import torch

PAD = -100


class TokenSequence(NamedTuple):
    """Ids of one sequence; the log-probabilities of ids[start:] are wanted (start >= 1), and the hidden states at
    the indices `marks`."""

    ids: list[int]
    start: int
    marks: Sequence[int] = ()


class Row(NamedTuple):
    """One packed row of n tokens: ids, depths, subtree ends and next-token labels (PAD where none is wanted),
    and for each of its sequences the places whose labels are its targets, and the places of its marks."""

    ids: list[int]
    depth: list[int]
    end: list[int]
    label: list[int]
    places: list[list[int]]
    marks: list[list[int]]


class Packed(NamedTuple):
    """Rows [rows, width] for one forward pass. `places` are flat indices (row * width + place) of all targets of
    all sequences, sequence after sequence in the order in which they were given; `owner` says whose they are.
    `marks` are the flat indices of all marks in the same order."""

    ids: torch.Tensor
    depth: torch.Tensor
    end: torch.Tensor
    label: torch.Tensor
    places: torch.Tensor
    owner: torch.Tensor
    sequences: int
    tokens: int
    marks: torch.Tensor

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        moved = {k: v.to(device, non_blocking=True) for k, v in self._asdict().items() if isinstance(v, torch.Tensor)}
        return self._replace(**moved)


def pack_row(sequences: Sequence[TokenSequence], share: bool = True) -> Row:
    """Lay out `sequences` in one row; with `share=False` each keeps a copy of its prefix."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].ids) if share else range(len(sequences))
    ids: list[int] = []
    depth: list[int] = []
    end: list[int] = []
    label: list[int] = []
    places: list[list[int]] = [[] for _ in sequences]
    marks: list[list[int]] = [[] for _ in sequences]
    path: list[int] = []  # places of the last sequence's tokens
    last: list[int] = []
    for i in order:
        current, start, marked = sequences[i]
        if not 1 <= start <= len(current):
            raise ValueError(f"sequence {i} has {len(current)} tokens and targets from {start}: the first cannot be a target")
        equal = _common_prefix(last, current) if share else 0
        keep = equal if equal == len(current) else max(0, equal - 1)
        for place in path[keep:]:
            end[place] = min(end[place], len(ids))
        path = path[:keep]
        for d in range(keep, len(current)):
            path.append(len(ids))
            ids.append(current[d])
            depth.append(d)
            end.append(1 << 60)
            label.append(PAD)
        for target in range(start, len(current)):
            label[path[target - 1]] = current[target]
        places[i] = path[start - 1 : len(current) - 1]
        marks[i] = [path[t] for t in marked]
        last = current
    return Row(ids, depth, [min(e, len(ids)) for e in end], label, places, marks)


def stack(rows: Sequence[Row], indices: Sequence[Sequence[int]], multiple: int = 1) -> Packed:
    """Rows of one forward pass, padded to the widest (rounded up to `multiple`).

    `indices[r]` are the numbers, in the caller's order, of the sequences in row r.
    """
    width = -(-max(len(r.ids) for r in rows) // multiple) * multiple
    shape = (len(rows), width)
    ids, depth = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    end = torch.arange(1, width + 1).repeat(len(rows), 1)  # padding sees itself alone
    label = torch.full(shape, PAD)
    by_sequence: dict[int, list[int]] = {}
    marks: dict[int, list[int]] = {}
    for r, row in enumerate(rows):
        n = len(row.ids)
        ids[r, :n], depth[r, :n] = torch.tensor(row.ids), torch.tensor(row.depth)
        end[r, :n], label[r, :n] = torch.tensor(row.end), torch.tensor(row.label)
        for number, mine, marked in zip(indices[r], row.places, row.marks, strict=True):
            by_sequence[number] = [r * width + p for p in mine]
            marks[number] = [r * width + p for p in marked]
    numbers = range(len(by_sequence))
    places = torch.tensor([p for i in numbers for p in by_sequence[i]], dtype=torch.long)
    owner = torch.tensor([i for i in numbers for _ in by_sequence[i]], dtype=torch.long)
    flat = torch.tensor([p for i in numbers for p in marks[i]], dtype=torch.long)
    return Packed(ids, depth, end, label, places, owner, len(by_sequence), sum(len(r.ids) for r in rows), flat)


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
