"""The sections that say which problems there are and how models are measured on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.section import Positive, Section

KNIGHTS = ("people", "depth", "width", "variant", "solutions")  # keys of source `knights` alone
TABLES = {"config", "revision", "columns", "extract", "bad_rows"}  # keys of source `datasets` alone


class ColumnsSection(Section):
    """Which column of a table holds what; `outer.inner` is a field of a struct, None is not read."""

    question: str = "question"
    answer: str = "answer"
    solution: str | None = None
    level: str | None = None
    subject: str | None = None
    id: str | None = None


class SourceSection(Section):
    """Where problems come from. `levels` and `max_number` belong to `procedural`, `path` to `jsonl` and `datasets`,
    `people`, `depth`, `width`, `variant` and `solutions` to `knights` (see docs/memorisation.md).

    `datasets`: `path` is a local file or folder or a name on the hub, `config`, `split` and `revision` are the library's;
    `extract` takes the answer out of its column: after `####` (`gsm8k`) or in the last box. `revision` is settled to a
    commit before anything is keyed. `bad_rows: skip` leaves out rows without a usable question or answer.

    `validation` are the problems that `data.validation` takes out of the training problems.
    """

    source: Literal["gsm8k", "math", "math500", "jsonl", "datasets", "procedural", "knights", "validation"] = "procedural"
    split: Annotated[str, Field(min_length=1)] = "train"
    limit: Positive | None = None
    offset: Annotated[int, Field(ge=0)] = 0
    seed: int | None = None
    path: str | None = None
    levels: list[Annotated[int, Field(ge=1, le=6)]] | None = None
    max_number: Annotated[int, Field(ge=5)] | None = None
    people: Annotated[list[Annotated[int, Field(ge=2, le=8)]], Field(min_length=1)] | None = None
    depth: Annotated[int, Field(ge=2, le=3)] | None = None
    width: Annotated[int, Field(ge=2, le=3)] | None = None
    variant: Literal["leaf", "statement", "names", "order", "roles"] | None = None
    solutions: Literal["steps", "answer"] | None = None
    config: str | None = None
    revision: str | None = None
    columns: ColumnsSection = ColumnsSection()
    extract: Literal["none", "gsm8k", "boxed"] = "none"
    bad_rows: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _options_fit_source(self) -> SourceSection:
        if self.source != "datasets" and (
            given := [f"`{k}`" for k in sorted(TABLES) if getattr(self, k) != SourceSection.model_fields[k].default]
        ):
            raise ValueError(f"{', '.join(given)} belong to source `datasets` only, not to `{self.source}`")
        if self.source != "datasets" and self.split not in ("train", "test"):
            raise ValueError(f"`split` of source `{self.source}` is `train` or `test`, not `{self.split}`")
        if (self.source in ("jsonl", "datasets")) != (self.path is not None):
            raise ValueError("`path` is required by sources `jsonl` and `datasets` and belongs to no other source")
        if self.source in ("procedural", "knights") and self.limit is None:
            raise ValueError(f"source `{self.source}` is endless: set `limit`")
        if self.source != "procedural" and (self.levels or self.max_number):
            raise ValueError("`levels` and `max_number` belong to source `procedural` only")
        if self.source != "knights" and any(getattr(self, key) is not None for key in KNIGHTS):
            raise ValueError(f"`{'`, `'.join(KNIGHTS)}` belong to source `knights` only")
        if self.source == "validation" and (self.split, self.limit, self.offset, self.seed) != ("train", None, 0, None):
            raise ValueError("source `validation` takes no other key: `data.validation` says how many problems it has")
        return self

    @property
    def unread(self) -> set[str]:
        """Keys that came with other sources than this one."""
        own = {"datasets": TABLES, "knights": KNIGHTS}
        return {key for source, keys in own.items() if source != self.source for key in keys}

    def settings(self) -> dict[str, Any]:
        """What is set, without what belongs to other sources: the arguments of `data_gen.problems.load_problems`."""
        return self.model_dump(exclude=self.unread, exclude_none=True)


class BenchmarkSection(Section):
    """One evaluation set; `name` labels it in reports and folders.

    `when`: `each` model of the run is measured on it, or only the initial and the last one, at the `end` of the run.
    """

    name: Annotated[str, Field(pattern=r"^[^/]+$")]
    source: SourceSection
    when: Literal["each", "end"] = "each"


PromptName = Literal["chat", "plain", "few_shot"]


class EvaluationSection(Section):
    """How every model of the run is measured. Greedy always; `samples` > 0 adds sampled answers, with each of `seeds`
    (empty: the run's) so many to a problem.

    `prompt`: a prompt by name (see `data_gen/eval_prompts.py`) in place of `data.prompt`. `shots`: so many worked examples
    before each question, of the training split or of `shots_file`; None: what the prompt's name means.
    """

    benchmarks: list[BenchmarkSection] = []
    initial: bool = True
    mode: Literal["strict", "lenient"] = "lenient"
    prompt: PromptName | None = None
    shots: Annotated[int, Field(ge=0)] | None = None
    shots_file: str | None = None
    samples: Annotated[int, Field(ge=0)] = 0
    seeds: list[int] = []
    temperature: Annotated[float, Field(gt=0.0, le=5.0)] = 0.7
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: Positive | None = None

    @model_validator(mode="after")
    def _names_differ(self) -> EvaluationSection:
        names = [b.name for b in self.benchmarks]
        if len(set(names)) != len(names):
            raise ValueError(f"benchmark names must differ: {names}")
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> EvaluationSection:
        if self.seeds and not self.samples:
            raise ValueError("`seeds` are those of sampled answers: set `samples` too (greedy answers draw nothing)")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"`seeds` must differ: {self.seeds}")
        if self.shots_file is not None and (self.shots == 0 or (self.shots is None and self.prompt != "few_shot")):
            raise ValueError("`shots_file` is shown only with `prompt: few_shot`, or with `shots` > 0")
        return self
