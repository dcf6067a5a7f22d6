"""Baselines over the wire, and what a drill found."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from soundpost.service.schemas import Answer, Id, Moment, Name, Query, Seconds, Shown

BaselineState = Literal["learning", "preparing", "ready", "active", "retired", "failed"]
Method = Literal["fusion", "windows", "frames", "acoustics"]
ContextKind = Literal["none", "hours", "states"]


class BaselineFinding(Answer):
    """Something that a baseline lacks, and what to record next."""

    code: str
    summary: str
    remedy: str
    figures: dict[str, Any]


class Baseline(Answer):
    """A version of what is normal for a source.

    chosen: how its recordings were chosen. summary: figures of what it holds, with its false-alarm
    budget as stated and as measured; empty until it is prepared.
    """

    id: int
    source: Shown
    version: int
    state: BaselineState
    chosen: dict[str, Any]
    summary: dict[str, Any]
    quality: list[BaselineFinding]
    learn_until: Moment | None = None
    created_by: Shown
    created_at: Moment
    activated_at: Moment | None = None
    retired_at: Moment | None = None
    error_code: str | None = None
    error_detail: Shown | None = None


class NewBaseline(Query):
    """What a baseline is to be made of; everything embedded where nothing is chosen.

    after, before: recordings that begin between them. recordings: these. learn_s: what arrives for
    so long from now. budget_s: the time between false alarms. activate: use it once it is ready.
    """

    source: Name
    actor: Name
    after: Moment | None = None
    before: Moment | None = None
    recordings: list[Id] = Field(default=[], max_length=10_000)
    learn_s: Seconds | None = Field(default=None, gt=0)
    method: Method | None = None
    contexts: ContextKind = "none"
    budget_s: Seconds = Field(default=30 * 86_400.0, gt=0)
    activate: bool = True

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [bool(self.recordings), self.learn_s is not None, bool(self.after or self.before)]
        if sum(ways) > 1:
            raise ValueError("choose by time, by recordings, or by learning")
        return self


class Acceptance(Query):
    """Recordings that are a new normal, beside those of the active version."""

    source: Name
    actor: Name
    reason: Name
    recordings: list[Id] = Field(min_length=1, max_length=10_000)


class Decision(Query):
    """Who decides, and why."""

    actor: Name
    reason: Name | None = None
