"""Rules: when something is to be noticed, for which sources, and what each remembers of a source.

What a rule's settings mean is known to its kind, in `monitoring.rule_kinds`; here they are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from soundpost.errors import InvalidValueError, RuleNameTakenError, UnknownRuleError
from soundpost.store import audit
from soundpost.store.session import insert_new
from soundpost.store.sources import check_tag
from soundpost.store.tables import Source
from soundpost.store.watch_tables import Rule, SourceTag, WatchState

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
MAX_NAME_LENGTH = 200
# A century, as everywhere; every number before it is exact.
LONGEST_S = 3.2e9
_TIMES_S = ("for_s", "keep_firing_s", "cooldown_s", "escalate_after_s")
_CHANGEABLE = frozenset({"name", "settings", "severity", "enabled", *_TIMES_S})


@dataclass(frozen=True)
class NewRule:
    """A rule to be added, for one source, for every source with a tag, or for all."""

    name: str
    kind: str
    created_by: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    source_id: int | None = None
    tag: str | None = None
    severity: Severity = "warning"
    for_s: float = 0.0
    keep_firing_s: float = 300.0
    cooldown_s: float = 0.0
    escalate_after_s: float | None = None
    enabled: bool = True


def add(session: Session, new: NewRule, *, now: datetime) -> Rule:
    """Add a rule whose settings were checked by its kind.

    Raises RuleNameTakenError, and InvalidValueError for a scope, a time or a name that is wrong.
    """
    _check(asdict(new))
    if new.source_id is not None and new.tag is not None:
        raise InvalidValueError(new.tag, "a rule is for one source or for a tag, not for both")
    rule = Rule(**{**asdict(new), "settings": dict(new.settings)}, created_at=now)
    with _name_is_free(session, rule.name):
        session.add(rule)
    audit.note(session, new.created_by, "added", "rule", rule.id, now=now, detail=_facts(rule))
    return rule


def get(session: Session, rule_id: int) -> Rule:
    """Return a rule. Raises UnknownRuleError."""
    rule = session.get(Rule, rule_id)
    if rule is None:
        raise UnknownRuleError(rule_id)
    return rule


def by_name(session: Session, name: str) -> Rule:
    """Return the rule of this name. Raises UnknownRuleError."""
    rule = session.scalar(select(Rule).where(Rule.name == name))
    if rule is None:
        raise UnknownRuleError(name)
    return rule


def is_taken(session: Session, name: str) -> bool:
    """Whether a rule has this name."""
    return session.scalar(select(Rule.id).where(Rule.name == name)) is not None


def find(
    session: Session,
    *,
    kind: str | None = None,
    source_id: int | None = None,
    tag: str | None = None,
    enabled: bool | None = None,
    after_id: int | None = None,
    newest_first: bool = False,
    limit: int | None = 100,
) -> list[Rule]:
    """Return the rules that meet every filter and come after `after_id`, by id or newest_first.

    source_id finds every rule that holds for a source, also by its tags.
    """
    statement = select(Rule).order_by(Rule.id.desc() if newest_first else Rule.id).limit(limit)
    if after_id is not None:
        statement = statement.where(Rule.id < after_id if newest_first else Rule.id > after_id)
    if kind is not None:
        statement = statement.where(Rule.kind == kind)
    if tag is not None:
        statement = statement.where(Rule.tag == tag)
    if enabled is not None:
        statement = statement.where(Rule.enabled.is_(enabled))
    if source_id is not None:
        statement = statement.where(_holds_for(source_id))
    return list(session.scalars(statement))


def for_source(session: Session, source_id: int) -> list[Rule]:
    """Return the enabled rules that hold for a source: its own, those of its tags and of all."""
    return find(session, source_id=source_id, enabled=True, limit=None)


def sources_of(session: Session, rule: Rule) -> list[Source]:
    """Return the sources that a rule holds for, by name."""
    statement = select(Source).order_by(Source.name)
    if rule.source_id is not None:
        statement = statement.where(Source.id == rule.source_id)
    elif rule.tag is not None:
        tagged = select(SourceTag.source_id).where(SourceTag.tag == rule.tag)
        statement = statement.where(Source.id.in_(tagged))
    return list(session.scalars(statement))


def change(session: Session, rule_id: int, actor: str, *, now: datetime, **values: Any) -> Rule:
    """Change a rule: name, settings (checked by its kind), severity, times, enabled.

    New settings begin with a fresh memory. Raises UnknownRuleError, RuleNameTakenError, and
    InvalidValueError for another member or a wrong value.
    """
    rule = get(session, rule_id)
    if unknown := values.keys() - _CHANGEABLE:
        raise InvalidValueError(min(unknown), "not a member of a rule that can be changed")
    _check(values)
    changed = {name: value for name, value in values.items() if getattr(rule, name) != value}
    with _name_is_free(session, values.get("name", rule.name)):
        for name, value in changed.items():
            setattr(rule, name, value)
    if "settings" in changed:
        forget(session, rule_id)
    if changed:
        audit.note(session, actor, "changed", "rule", rule_id, now=now, detail=_facts(rule))
    return rule


def remove(session: Session, rule_id: int, actor: str, *, now: datetime) -> None:
    """Delete a rule and what it remembers; its incidents stay, and end by themselves.

    Raises UnknownRuleError.
    """
    rule = get(session, rule_id)
    audit.note(session, actor, "removed", "rule", rule_id, now=now, detail=_facts(rule))
    session.execute(delete(Rule).where(Rule.id == rule_id))


def count(session: Session) -> int:
    """How many rules there are."""
    return session.scalar(select(func.count()).select_from(Rule)) or 0


# --- what rules remember ----------------------------------------------------------------------


def states(session: Session, source_id: int) -> dict[int, WatchState]:
    """Return what each rule remembers of a source, by the rule's id, as it is in the database."""
    statement = select(WatchState).where(WatchState.source_id == source_id)
    found = session.scalars(statement, execution_options={"populate_existing": True})
    return {state.rule_id: state for state in found}


def states_of(session: Session, rule_id: int) -> dict[int, WatchState]:
    """Return what a rule remembers of each source, by the source's id."""
    found = session.scalars(select(WatchState).where(WatchState.rule_id == rule_id))
    return {state.source_id: state for state in found}


def remember(
    session: Session,
    rule_id: int,
    source_id: int,
    state: Mapping[str, Any],
    *,
    seen_until: datetime | None,
    now: datetime,
) -> None:
    """Keep what a rule remembers of a source, and up to when it has heard it."""
    values = {"state": dict(state), "seen_until": seen_until, "updated_at": now}
    statement = insert_new(session, WatchState).values(
        rule_id=rule_id, source_id=source_id, **values
    )
    session.execute(
        statement.on_conflict_do_update(index_elements=["rule_id", "source_id"], set_=values)
    )


def forget(session: Session, rule_id: int, source_id: int | None = None) -> None:
    """Let a rule begin anew, for one source or for all; up to when it has heard them is kept."""
    statement = select(WatchState).where(WatchState.rule_id == rule_id)
    if source_id is not None:
        statement = statement.where(WatchState.source_id == source_id)
    for row in session.scalars(statement, execution_options={"populate_existing": True}):
        row.state = {}
    session.flush()


def seen_until(session: Session, source_id: int) -> datetime | None:
    """Return up to when any rule has heard a source: what ends before it is late."""
    statement = select(func.max(WatchState.seen_until)).where(WatchState.source_id == source_id)
    return session.scalar(statement)


# --- checks -----------------------------------------------------------------------------------


def _holds_for(source_id: int) -> Any:
    tags = select(SourceTag.tag).where(SourceTag.source_id == source_id)
    everywhere = Rule.source_id.is_(None) & Rule.tag.is_(None)
    return or_(Rule.source_id == source_id, Rule.tag.in_(tags), everywhere)


def _check(values: Mapping[str, Any]) -> None:
    name = values.get("name", "-")
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidValueError(name, f"a rule's name has 1 to {MAX_NAME_LENGTH} characters")
    if values.get("severity", "info") not in SEVERITIES:
        raise InvalidValueError(values["severity"], f"a severity is one of {', '.join(SEVERITIES)}")
    for member in _TIMES_S:
        time_s = values.get(member)
        if time_s is not None and not 0.0 <= time_s <= LONGEST_S:
            raise InvalidValueError(f"{member}={time_s}", "a time in seconds, from 0")
    if (tag := values.get("tag")) is not None:
        check_tag(tag)


@contextmanager
def _name_is_free(session: Session, name: str) -> Iterator[None]:
    try:
        with session.begin_nested():
            yield
            session.flush()
    except IntegrityError as error:
        raise RuleNameTakenError(name) from error


def _facts(rule: Rule) -> dict[str, Any]:
    members = ("name", "kind", "source_id", "tag", "settings", "severity", "enabled", *_TIMES_S)
    return {member: getattr(rule, member) for member in members}
