"""Finding windows by the words of their captions, on SQLite (FTS5) and PostgreSQL (tsvector).

What a person typed never reaches a database as query syntax: it is taken apart into words, and each
goes as a quoted word or a parameter. Both stem English words, so that `barking` finds `barks`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    bindparam,
    case,
    column,
    func,
    literal_column,
    select,
    table,
)
from sqlalchemy.orm import Session

from soundpost.store.clock import overlaps
from soundpost.store.explain_tables import Caption
from soundpost.store.tables import Embedding, Recording, Source, Window

# Words that say nothing of a sound. What both databases' dictionaries drop is among them.
_EMPTY_WORDS = frozenset(
    [
        "a",
        "about",
        "above",
        "after",
        "again",
        "against",
        "all",
        "also",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "away",
        "be",
        "because",
        "been",
        "before",
        "being",
        "below",
        "between",
        "both",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "doing",
        "don",
        "down",
        "during",
        "each",
        "few",
        "for",
        "from",
        "further",
        "had",
        "has",
        "have",
        "having",
        "he",
        "her",
        "here",
        "hers",
        "herself",
        "him",
        "himself",
        "his",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "itself",
        "just",
        "like",
        "me",
        "more",
        "most",
        "my",
        "myself",
        "near",
        "no",
        "nor",
        "not",
        "now",
        "of",
        "off",
        "on",
        "once",
        "one",
        "only",
        "or",
        "other",
        "our",
        "ours",
        "ourselves",
        "out",
        "over",
        "own",
        "s",
        "same",
        "she",
        "should",
        "so",
        "some",
        "someone",
        "something",
        "somewhere",
        "sound",
        "sounding",
        "sounds",
        "such",
        "t",
        "than",
        "that",
        "the",
        "their",
        "theirs",
        "them",
        "themselves",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "through",
        "to",
        "too",
        "under",
        "until",
        "up",
        "very",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "whom",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
        "yours",
        "yourself",
        "yourselves",
        "audio",
        "clip",
        "hear",
        "heard",
        "hearing",
        "noise",
        "recording",
    ]
)
_WORD = re.compile(r"[^\W_]+")
# A query of a thousand characters may hold hundreds; the first ones say what is meant.
MOST_WORDS = 32


@dataclass(frozen=True)
class Filters:
    """Where to look: the windows that an encoder model has embedded, of one source, in a time.

    after and before select the windows that meet [after, before) by the wall clock.
    """

    model_id: int
    source: str | None = None
    after: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True)
class CaptionMatch:
    """A window whose caption has words of a query.

    whole: the caption has every content word of it. start_s, end_s: seconds from the recording's
    start.
    """

    window_id: int
    embedding_id: int
    recording_id: int
    start_s: float
    end_s: float
    text: str
    whole: bool


def content_words(query: str) -> list[str]:
    """Return the words of a query that say something, lower case, each once."""
    words = dict.fromkeys(word.lower() for word in _WORD.findall(query))
    return [word for word in words if word not in _EMPTY_WORDS][:MOST_WORDS]


def find(session: Session, query: str, limit: int, filters: Filters) -> list[CaptionMatch]:
    """Return the windows whose captions share words with a query, best first, each once.

    Captions with every content word come before all others. A query without content words, or
    with a limit of 0, finds nothing.
    """
    words = content_words(query)
    if not words or limit < 1:
        return []
    statement = _statement(session, words, filters)
    found: dict[int, CaptionMatch] = {}
    rows = session.execute(statement, execution_options={"yield_per": 256})
    for row in rows:
        # Several captions of a window may match; the best of them comes first.
        found.setdefault(row.window_id, _match(row))
        if len(found) == limit:
            break
    rows.close()
    return list(found.values())


def _match(row: Row[Any]) -> CaptionMatch:
    return CaptionMatch(
        window_id=row.window_id,
        embedding_id=row.embedding_id,
        recording_id=row.recording_id,
        start_s=row.start_s,
        end_s=row.end_s,
        text=row.text,
        whole=bool(row.whole),
    )


def _statement(session: Session, words: Sequence[str], filters: Filters) -> Select[Any]:
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    ranked = _ranked_sqlite(words) if is_sqlite else _ranked_postgresql(words)
    statement = (
        select(
            Caption.window_id,
            Embedding.id.label("embedding_id"),
            Window.recording_id,
            Window.start_s,
            Window.end_s,
            Caption.text,
            ranked.c.whole,
        )
        .select_from(ranked)
        .join(Caption, Caption.id == ranked.c.caption_id)
        .join(Window, Window.id == Caption.window_id)
        .join(
            Embedding,
            (Embedding.window_id == Window.id) & (Embedding.model_id == filters.model_id),
        )
        .where(_wanted(filters))
        # Worth is the greater the better; equal ones in the order of time of their windows.
        .order_by(ranked.c.whole.desc(), ranked.c.worth.desc(), Caption.window_id, Caption.place)
    )
    if filters.source is not None or filters.after is not None or filters.before is not None:
        statement = statement.join(Recording, Recording.id == Window.recording_id).join(
            Source, Source.id == Recording.source_id
        )
    return statement


def _wanted(filters: Filters) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = Caption.model_id == filters.model_id
    if filters.source is not None:
        condition &= Source.name == filters.source
    if filters.after is not None or filters.before is not None:
        condition &= overlaps(
            Recording.started_at, Window.start_s, Window.end_s, filters.after, filters.before
        )
    return condition


def _ranked_sqlite(words: Sequence[str]) -> Any:
    """Captions with any of the words; FTS5 takes them quoted, and gives less for better."""
    quoted = [f'"{word}"' for word in words]
    any_word, every_word = " OR ".join(quoted), " AND ".join(quoted)
    index = table("caption_words", column("rowid"), column("text"))
    name: ColumnElement[Any] = literal_column("caption_words")
    every = select(index.c.rowid).where(name.op("MATCH")(bindparam(None, every_word)))
    return (
        select(
            index.c.rowid.label("caption_id"),
            (-func.bm25(name)).label("worth"),
            case((index.c.rowid.in_(every), 1), else_=0).label("whole"),
        )
        .where(name.op("MATCH")(bindparam(None, any_word)))
        .subquery("ranked")
    )


def _ranked_postgresql(words: Sequence[str]) -> Any:
    """Captions with any of the words; each word is a parameter that is parsed as text alone."""
    any_word, every_word = _joined(words, "||"), _joined(words, "&&")
    index: ColumnElement[Any] = literal_column("captions.caption_words")
    whole = case((index.op("@@")(every_word), 1), else_=0)
    return (
        select(
            Caption.id.label("caption_id"),
            func.ts_rank(index, any_word).label("worth"),
            whole.label("whole"),
        )
        .where(index.op("@@")(any_word))
        .subquery("ranked")
    )


def _joined(words: Sequence[str], operator: str) -> ColumnElement[Any]:
    parts: list[ColumnElement[Any]] = [func.plainto_tsquery("english", word) for word in words]
    return reduce(lambda left, right: left.op(operator)(right), parts)
