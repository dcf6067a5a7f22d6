"""Whether the process lives, whether it can do its work, and its metrics."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from soundpost import __version__
from soundpost.errors import DimensionError, SoundpostError
from soundpost.service.metrics import ServiceMetrics
from soundpost.service.parts import Parts, ServiceParts
from soundpost.service.schemas import Check, Health, Readiness

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> Health:
    """Say that the process is alive."""
    return Health(version=__version__)


@router.get(
    "/readyz",
    responses={503: {"model": Readiness, "description": "Something is missing: see the checks."}},
)
def readyz(parts: ServiceParts, response: Response) -> Readiness:
    """Say whether the service can do its work, and if not, what is missing and how to mend it."""
    checks = [_check(name, look, parts) for name, look in _LOOKS.items()]
    ready = all(check.ok for check in checks)
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, checks=checks)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(metrics: ServiceMetrics) -> Response:
    """Give the metrics in the text format of Prometheus."""
    return Response(metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _check(name: str, look: Callable[[Parts], str], parts: Parts) -> Check:
    try:
        return Check(name=name, ok=True, detail=look(parts))
    except SoundpostError as error:
        return Check(name=name, ok=False, code=error.code, detail=str(error), remedy=error.remedy)
    # An encoder or index in another process can fail in any way, and this is to say so.
    except Exception as error:  # noqa: BLE001  # reported, with its kind
        detail = f"{type(error).__name__}: {error}"
        return Check(name=name, ok=False, code="unexpected", detail=detail, remedy=_LOOK_AT_LOG)


_LOOK_AT_LOG = "See the log of the service and of the part that failed."


def _look_at_database(parts: Parts) -> str:
    with parts.store.reading() as session:
        session.connection()
    return parts.store.address


def _look_at_schema(parts: Parts) -> str:
    parts.store.check_schema()
    return f"revision {parts.store.revision()}"


def _look_at_encoder(parts: Parts) -> str:
    spec = parts.encoder.spec
    parts.encoder.embed_text(["ready"])
    return f"{spec.name} {spec.revision[:12]}"


def _look_at_index(parts: Parts) -> str:
    wanted, found = parts.encoder.spec.dimension, parts.index.dimension
    if wanted != found:
        raise DimensionError(found, f"the encoder makes {wanted} dimensions")
    return f"{len(parts.index)} vectors of {found} dimensions"


_LOOKS = {
    "database": _look_at_database,
    "schema": _look_at_schema,
    "encoder": _look_at_encoder,
    "index": _look_at_index,
}
