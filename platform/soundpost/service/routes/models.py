"""Models and the index: which weights made the vectors, and how many of them can be found."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from fastapi import APIRouter

from soundpost.service.parts import ServiceParts
from soundpost.service.problems import answers
from soundpost.service.schemas import Index, Model
from soundpost.service.views import show_model
from soundpost.store import embeddings, models

router = APIRouter(prefix="/v1", tags=["models"])


class IndexNumbers(Protocol):
    """What an engine can say of itself."""

    @property
    def engine(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def bytes(self) -> int: ...


@runtime_checkable
class DescribedIndex(Protocol):
    """An index that describes itself, as those of soundpost_indexer do."""

    def stats(self) -> IndexNumbers:
        """Return engine, layout and size."""
        ...


@router.get("/models", responses=answers())
def list_models(parts: ServiceParts) -> list[Model]:
    """List every model that made vectors, oldest first; the active one answers searches."""
    spec = parts.encoder.spec
    with parts.store.reading() as session:
        return [
            show_model(
                row,
                embeddings.count(session, row.id),
                active=(row.name, row.revision) == (spec.name, spec.revision),
            )
            for row in models.find_all(session)
        ]


@router.get("/index", responses=answers())
def get_index(parts: ServiceParts) -> Index:
    """Say how much the index holds and how far it is behind the database."""
    spec, index = parts.encoder.spec, parts.index
    lag = parts.lag.measure(parts.store, spec, index)
    stats = index.stats() if isinstance(index, DescribedIndex) else None
    return Index(
        model=spec.name,
        revision=spec.revision,
        dimension=index.dimension,
        vectors=lag.vectors,
        embeddings=lag.embeddings,
        behind=lag.behind,
        behind_s=round(lag.behind_s, 3),
        engine=stats.engine if stats else None,
        layout=stats.layout if stats else None,
        bytes=stats.bytes if stats else None,
    )
