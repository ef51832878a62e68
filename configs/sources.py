"""Where problems come from, as a section of the recipe; and what all sections have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys and infinite numbers forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class ColumnsSection(Section):
    """Which column of a table holds what; `outer.inner` is a field of a struct, None is not read."""

    question: str = "question"
    answer: str = "answer"
    solution: str | None = None
    level: str | None = None
    subject: str | None = None
    id: str | None = None


class SourceSection(Section):
    """Where problems come from. `levels` and `max_number` belong to `procedural`, `path` to `jsonl` and `datasets`.

    `datasets`: `path` is a local file or folder or a name on the hub, `config`, `split` and `revision` are the library's;
    `extract` takes the answer out of its column: after `####` (`gsm8k`) or in the last box. `revision` is settled to a
    commit before anything is keyed. `bad_rows: skip` leaves out rows without a usable question or answer.
    """

    source: Literal["gsm8k", "math", "math500", "jsonl", "datasets", "procedural"] = "procedural"
    split: Annotated[str, Field(min_length=1)] = "train"
    limit: Positive | None = None
    offset: Annotated[int, Field(ge=0)] = 0
    seed: int | None = None
    path: str | None = None
    levels: list[Annotated[int, Field(ge=1, le=6)]] | None = None
    max_number: Annotated[int, Field(ge=5)] | None = None
    config: str | None = None
    revision: str | None = None
    columns: ColumnsSection = ColumnsSection()
    extract: Literal["none", "gsm8k", "boxed"] = "none"
    bad_rows: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _options_fit_source(self) -> SourceSection:
        tables = ("config", "revision", "columns", "extract", "bad_rows")
        if self.source != "datasets" and (
            given := [f"`{k}`" for k in tables if getattr(self, k) != SourceSection.model_fields[k].default]
        ):
            raise ValueError(f"{', '.join(given)} belong to source `datasets` only, not to `{self.source}`")
        if self.source != "datasets" and self.split not in ("train", "test"):
            raise ValueError(f"`split` of source `{self.source}` is `train` or `test`, not `{self.split}`")
        if (self.source in ("jsonl", "datasets")) != (self.path is not None):
            raise ValueError("`path` is required by sources `jsonl` and `datasets` and belongs to no other source")
        if self.source == "procedural" and self.limit is None:
            raise ValueError("source `procedural` is endless: set `limit`")
        if self.source != "procedural" and (self.levels or self.max_number):
            raise ValueError("`levels` and `max_number` belong to source `procedural` only")
        return self
