"""The rows that stages exchange: msgspec structs, each with an Arrow schema derived from its fields.

Every row has `id` (unique in its artefact), `parents` (ids of the rows it was made from) and `stage`
(the type of the stage that made it). Token ids travel beside text, because encoding a decoded text
again does not always give the same ids.
"""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Common fields of all rows."""

    id: str
    parents: list[str]
    stage: str


class Problem(Row, frozen=True, kw_only=True):
    """A question with a checkable answer. `core` identifies generated problems beyond their wording."""

    source: str
    split: str
    question: str
    answer: str
    solution: str | None = None
    level: str | None = None
    subject: str | None = None
    core: str | None = None


class Sample(Row, frozen=True, kw_only=True):
    """One completion of one problem.

    `token_ids` are the generated ids with the end token, if one was produced; `logprobs` are natural
    logs of the model's untempered probabilities of these ids, same length; `logprob` is their sum.
    `finish_reason` is "stop" (an end token) or "length" (cut off: never a positive example).
    """

    problem: str
    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    logprobs: list[float]
    logprob: float
    finish_reason: str
    temperature: float
    top_p: float
    seed: int
    model: str
    adapter: str | None = None


class VerdictRow(Row, frozen=True, kw_only=True):
    """The verifier's judgement of one sample. Seconds are in the manifest: rows hold no clock readings."""

    sample: str
    problem: str
    outcome: str
    extracted: str | None
    detail: str


class Example(Row, frozen=True, kw_only=True):
    """One supervised example: learn `token_ids` after `prompt_ids`. `kind` is "model" or "human".

    `weight` counts the whole example, `token_weights` (none below 0) each of `token_ids` besides; None: all alike.
    """

    problem: str
    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    kind: str
    weight: float = 1.0
    token_weights: list[float] | None = None


class Edit(Row, frozen=True, kw_only=True):
    """One attempt to put one error into one step of a right solution (RISE, arXiv 2410.06638).

    The step is tokens `start` to `end` of the sample and reads `original`; the edit reads `edited` and its tokens are
    `token_ids` (both empty where the editor gave nothing). `editor` is "self" or "programmatic". `outcome` is "kept",
    "undecided" (rollouts may tell) or the reason of the rejection; `certificate` says why a kept edit is wrong.
    `distance` is the Levenshtein distance in characters.
    """

    problem: str
    sample: str
    step: int
    start: int
    end: int
    last: bool
    error: str
    editor: str
    original: str
    edited: str
    token_ids: list[int]
    outcome: str
    certificate: str | None
    distance: int


class Pair(Row, frozen=True, kw_only=True):
    """A preference: after `context_ids` (prompt and shared steps), `chosen_ids` rather than `rejected_ids`.

    `kind`: "full" (whole solutions), "edited" (a step and its wrong edit), "pit" or "step" (from rollouts);
    `error` is the error type of an edit. `first_difference` is the index of the first token that differs; the
    ids before it are equal on both sides. `chosen_eos` and `rejected_eos` say whether a side ends with the end
    token: only where a solution ends.
    """

    problem: str
    context_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen: str
    rejected: str
    kind: str
    error: str | None
    first_difference: int
    chosen_eos: bool
    rejected_eos: bool


class PairLogprobs(Row, frozen=True, kw_only=True):
    """What a reference model says of one pair: natural log-probabilities of both sides, summed over their tokens."""

    pair: str
    chosen: float
    rejected: float


class Rollout(Row, frozen=True, kw_only=True):
    """One continuation from a state: a prompt and the first steps of a solution, whose content hash is `prefix`.

    `token_ids` and `text` are the continuation alone, `outcome` is the verdict on the whole solution, `index` counts
    the continuations of the state. A `check` is drawn afresh to test a pit that was found, and counts in no value.
    """

    problem: str
    prefix: str
    index: int
    token_ids: list[int]
    text: str
    finish_reason: str
    seed: int
    outcome: str
    check: bool = False


class Step(Row, frozen=True, kw_only=True):
    """One step of a sample: tokens `start` to `end` (exclusive) of its `token_ids`, which read `text`.

    `value` is the share of `rollouts` continuations after this step that end right (`successes` of them), with the 95 %
    interval from `low` to `high`; None where none were drawn. `best_of` is the chance that one of K continuations ends
    right, `advantage` its change over this step; None where there are too few rollouts. After a `final` step nothing
    can be drawn: its value is the verdict, of 0 rollouts. `stopped`: drawing ended at a success, so that the value is
    too high on average. `pit`: the first step of a wrong `sample` with the lowest value; `check_successes` of
    `check_rollouts` fresh continuations after it ended right. `spurious`: a step of a right sample without progress.
    `prefix` is the state after the step, as in Rollout.
    """

    sample: str
    index: int
    text: str
    start: int
    end: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    successes: int | None = None
    rollouts: int | None = None
    best_of: float | None = None
    advantage: float | None = None
    correct: bool = False
    final: bool = False
    stopped: bool = False
    pit: bool = False
    spurious: bool = False
    prefix: str = ""
    check_successes: int | None = None
    check_rollouts: int | None = None


class Group(Row, frozen=True, kw_only=True):
    """Solutions of one problem from which a reward model learns.

    `token_ids` holds the solutions one after another, `lengths` says how many ids each has. A solution is scored at
    its `marks` (indices into its own ids, `counts` of them each): the last token for an outcome model, the last token
    of each step for a process model. `labels` belong to the marks: 1 right, 0 wrong, or a step's value in between.
    `models` are the keys of the models that the `samples` were drawn from; `solve_rate` is the share of right ones
    among all of the problem's samples. `split` is "train" or "validation".
    """

    problem: str
    split: str
    prompt_ids: list[int]
    samples: list[str]
    models: list[str]
    token_ids: list[int]
    lengths: list[int]
    marks: list[int]
    labels: list[float]
    counts: list[int]
    solve_rate: float


class Score(Row, frozen=True, kw_only=True):
    """What a scorer, a reward model say, thinks of one sample; higher is better. `value` is an outcome model's raw score,
    or a process model's probabilities of its steps put together; `steps` are a process model's raw logits, one for each
    step, else empty. `reward_model` is the key of the training artefact that scored, or of the model itself."""

    sample: str
    problem: str
    reward_model: str
    value: float
    steps: list[float]


class RewardedProblem(Row, frozen=True, kw_only=True):
    """How a reward model did on one problem: its samples, the right ones among them, the mean scores of right and
    wrong ones (None where there are none), and the accuracy of the answer that it picks from all of them."""

    problem: str
    samples: int
    correct: int
    right_score: float | None
    wrong_score: float | None
    picked: float


class ProblemScore(Row, frozen=True, kw_only=True):
    """How one problem of a benchmark went: `correct` of `samples` answers; text and verdict of the first."""

    problem: str
    question: str
    answer: str
    samples: int
    correct: int
    extracted: str | None
    outcome: str
    text: str


class SampledProblem(Row, frozen=True, kw_only=True):
    """The sampled answers to one problem of a benchmark: `correct` of `samples`, in `answers` different values. The most
    frequent one, `majority` (None where none gives an answer), has `votes` of them."""

    problem: str
    samples: int
    correct: int
    answers: int
    votes: int
    majority: str | None
    majority_correct: bool


_ARROW: dict[Any, str] = {str: "string", int: "int64", float: "float64", bool: "bool_"}


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    """Arrow type and nullability of a field annotation: scalars, lists of scalars, and either or None."""
    import pyarrow as pa

    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _arrow_type(inner[0])[0], True
    if origin is list:
        item = typing.get_args(annotation)[0]
        return pa.list_(pa.int32() if item is int else _arrow_type(item)[0]), False
    return getattr(pa, _ARROW[annotation])(), False


def arrow_schema(row: type[Row]) -> pa.Schema:
    """The Arrow schema of a row type, fields in declaration order."""
    import pyarrow as pa

    hints = typing.get_type_hints(row)
    fields = []
    for name in row.__struct_fields__:
        kind, nullable = _arrow_type(hints[name])
        fields.append(pa.field(name, kind, nullable=nullable))
    return pa.schema(fields, metadata={"row": row.__name__})
