"""Rules: what is to be noticed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from soundpost.archive.search import example_from_embedding
from soundpost.errors import (
    InvalidValueError,
    MalformedRequestError,
    RuleNameTakenError,
    RuleSettingsError,
    UnknownRuleError,
    UnknownSourceError,
    UnknownWindowError,
)
from soundpost.monitoring.rule_kinds.listening import write_vector
from soundpost.monitoring.rule_kinds.registry import check_rule
from soundpost.monitoring.rules import model_key
from soundpost.service.cursors import read_cursor, write_cursor
from soundpost.service.parts import Parts, ServiceParts
from soundpost.service.problems import answers
from soundpost.service.routes.recordings import Cursor, Limit, NewestFirst
from soundpost.service.schemas import LARGEST_ID, Name, Page
from soundpost.service.watch_schemas import NewRule, Rule, RuleChange, RuleKind
from soundpost.service.watch_views import show_rule
from soundpost.store import rules, sources
from soundpost.store.tables import utc_now

router = APIRouter(prefix="/v1/rules", tags=["rules"])

RuleId = Annotated[int, Path(ge=1, le=LARGEST_ID)]
# null is a value of this one.
_NULLABLE = frozenset({"escalate_after_s"})


@router.get("", responses=answers(UnknownSourceError))
def list_rules(
    parts: ServiceParts,
    kind: Annotated[RuleKind | None, Query()] = None,
    source: Annotated[Name | None, Query(description="That hold for it, by tag too.")] = None,
    enabled: Annotated[bool | None, Query()] = None,
    newest_first: NewestFirst = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Rule]:
    """List rules."""
    after_id = read_cursor(cursor, "rules", newest_first)
    with parts.store.reading() as session:
        rows = rules.find(
            session,
            kind=kind,
            source_id=sources.by_name(session, source).id if source is not None else None,
            enabled=enabled,
            after_id=after_id,
            newest_first=newest_first,
            limit=limit + 1,
        )
        items = [show_rule(session, row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(
        items=items, next=write_cursor("rules", items[-1].id, newest_first) if more else None
    )


@router.post(
    "",
    status_code=201,
    responses=answers(
        MalformedRequestError,
        RuleSettingsError,
        RuleNameTakenError,
        UnknownSourceError,
        UnknownWindowError,
    ),
)
def create_rule(new: NewRule, parts: ServiceParts) -> Rule:
    """Add a rule."""
    settings = _complete(parts, new.kind, new.settings)
    check_rule(new.kind, settings, new.for_s)
    given = new.model_dump(exclude={"actor", "source", "settings"})
    with parts.store.session() as session:
        source_id = sources.by_name(session, new.source).id if new.source is not None else None
        row = rules.add(
            session,
            rules.NewRule(**given, settings=settings, source_id=source_id, created_by=new.actor),
            now=utc_now(),
        )
        return show_rule(session, row)


@router.get("/{rule_id}", responses=answers(UnknownRuleError))
def get_rule(rule_id: RuleId, parts: ServiceParts) -> Rule:
    """Look at a rule."""
    with parts.store.reading() as session:
        return show_rule(session, rules.get(session, rule_id))


@router.patch(
    "/{rule_id}",
    responses=answers(
        UnknownRuleError,
        MalformedRequestError,
        RuleSettingsError,
        RuleNameTakenError,
        UnknownWindowError,
    ),
)
def change_rule(rule_id: RuleId, change: RuleChange, parts: ServiceParts) -> Rule:
    """Change a rule; one with new settings begins with a fresh memory."""
    values = change.model_dump(exclude={"actor"}, exclude_unset=True)
    for member, value in values.items():
        if value is None and member not in _NULLABLE:
            raise InvalidValueError(f"body.{member}", "it cannot be null")
    with parts.store.reading() as session:
        kind = rules.get(session, rule_id).kind
    if "settings" in values:
        values["settings"] = _complete(parts, kind, values["settings"])
    with parts.store.session() as session:
        row = rules.get(session, rule_id)
        check_rule(kind, values.get("settings", row.settings), values.get("for_s", row.for_s))
        row = rules.change(session, rule_id, change.actor, now=utc_now(), **values)
        return show_rule(session, row)


@router.delete("/{rule_id}", status_code=204, responses=answers(UnknownRuleError))
def delete_rule(
    rule_id: RuleId, actor: Annotated[Name, Query(description="Who does it.")], parts: ServiceParts
) -> None:
    """Delete a rule; its incidents stay, and end by themselves."""
    with parts.store.session() as session:
        rules.remove(session, rule_id, actor, now=utc_now())


def _complete(parts: Parts, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Add the vector of a text or of an example, and which model made it."""
    spec = parts.encoder.spec
    if kind == "text":
        check_rule(kind, settings)
        vector = parts.encoder.embed_text([str(settings["text"])])[0]
    elif kind == "exemplar" and "embedding_id" in settings:
        embedding_id = settings["embedding_id"]
        if type(embedding_id) is not int or not 1 <= embedding_id <= LARGEST_ID:
            raise RuleSettingsError(f"embedding_id={embedding_id!r}"[:100], "the id of a window")
        vector = example_from_embedding(embedding_id, parts.encoder, parts.store).vector
    else:
        return settings
    rest = {name: value for name, value in settings.items() if name != "embedding_id"}
    return {**rest, "vector": write_vector(vector), "model": model_key(spec.name, spec.revision)}
