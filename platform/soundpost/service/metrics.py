"""Metrics for Prometheus: what the service does itself, and what the database says of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, cast

from fastapi import Depends
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session
from starlette.requests import Request

from soundpost.errors import SoundpostError
from soundpost.monitoring.delivery import is_open
from soundpost.service.parts import Parts
from soundpost.service.schemas import Reranking
from soundpost.store import channels, jobs, notifications, recordings
from soundpost.store.tables import utc_now

_LATENCIES_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_QUANTILES = (0.5, 0.9, 0.99)
# Durations are those of the jobs that ended last, workers those that did something lately.
_LAST_JOBS = 1000
_LATELY = timedelta(hours=1)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self, parts: Parts) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._searches = Histogram(
            "soundpost_search_seconds",
            "Time to answer a search, by kind (text, audio, window) and outcome.",
            ["kind", "outcome"],
            buckets=_LATENCIES_S,
            registry=self._registry,
        )
        self._rerankings = Histogram(
            "soundpost_rerank_seconds",
            "Time of the second stage of a search by text, by outcome.",
            ["outcome"],
            buckets=_LATENCIES_S,
            registry=self._registry,
        )
        self._requests = Counter(
            "soundpost_http_requests",
            "Requests, by method, route and status.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._request_s = Counter(
            "soundpost_http_request_seconds",
            "Time spent on requests, by method and route.",
            ["method", "route"],
            registry=self._registry,
        )
        self._registry.register(_FromDatabase(parts))

    def render(self) -> bytes:
        """Return everything in the text format of Prometheus; asks the database."""
        return generate_latest(self._registry)

    def observe_search(self, kind: str, outcome: str, took_s: float) -> None:
        """Note a search; the outcome is `ok` or the code of an error."""
        self._searches.labels(kind, outcome).observe(took_s)

    def observe_reranking(self, reranking: Reranking) -> None:
        """Note what became of the second stage: `ok`, or the reason why it did nothing."""
        self._rerankings.labels(reranking.reason or "ok").observe(reranking.took_s)

    def observe_request(self, method: str, route: str, status: int, took_s: float) -> None:
        """Note a request."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._request_s.labels(known, route).inc(took_s)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def metrics_of(request: Request) -> Metrics:
    """Return the metrics of the service that a request came to."""
    return cast(Metrics, request.app.state.metrics)


ServiceMetrics = Annotated[Metrics, Depends(metrics_of)]


class _FromDatabase(Collector):
    """Reads the rest at the moment it is asked for; a database that is away is itself a metric."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Yield what can be known now."""
        up = GaugeMetricFamily("soundpost_database_up", "Whether the database answers.")
        try:
            found = self._read()
        except SoundpostError:
            up.add_metric([], 0.0)
            yield up
            return
        up.add_metric([], 1.0)
        yield up
        yield from found

    def _read(self) -> list[Metric]:
        with self._parts.store.reading() as session:
            found = [_jobs_by_state(session), _durations(session), _audio_hours(session)]
            found += _workers(session)
            found += _notifications(session)
        return found + self._index()

    def _index(self) -> list[Metric]:
        parts = self._parts
        lag = parts.lag.measure(parts.store, parts.encoder.spec, parts.index)
        return [
            _gauge("soundpost_index_vectors", "Vectors that can be found.", lag.vectors),
            _gauge("soundpost_index_lag_embeddings", "Embeddings not yet found.", lag.behind),
            _gauge("soundpost_index_lag_seconds", "Since when there are some.", lag.behind_s),
        ]


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _jobs_by_state(session: Session) -> Metric:
    family = GaugeMetricFamily(
        "soundpost_jobs", "Jobs by kind and state.", labels=["kind", "state"]
    )
    for (kind, state), count in sorted(jobs.counts(session).items()):
        family.add_metric([kind, state], count)
    return family


def _durations(session: Session) -> Metric:
    text = f"Run time of the last {_LAST_JOBS} jobs that are done, by kind and quantile."
    family = GaugeMetricFamily("soundpost_job_seconds", text, labels=["kind", "quantile"])
    by_kind: dict[str, list[float]] = {}
    for kind, took_s in jobs.durations(session, _LAST_JOBS):
        by_kind.setdefault(kind, []).append(took_s)
    for kind, found in sorted(by_kind.items()):
        for quantile in _QUANTILES:
            family.add_metric([kind, f"{quantile:g}"], _quantile(found, quantile))
    return family


def _audio_hours(session: Session) -> Metric:
    hours = recordings.embedded_s(session) / 3600.0
    return _gauge("soundpost_embedded_audio_hours", "Audio that is embedded, in hours.", hours)


def _workers(session: Session) -> list[Metric]:
    seen = GaugeMetricFamily(
        "soundpost_worker_last_seen_timestamp_seconds",
        "When a worker last took, held or ended a job, for those of the last hour.",
        labels=["worker"],
    )
    held = GaugeMetricFamily(
        "soundpost_worker_running_jobs", "Jobs that a worker holds a lease on.", labels=["worker"]
    )
    now = utc_now()
    for sign in jobs.workers(session, now - _LATELY, now=now):
        seen.add_metric([sign.worker], _timestamp(sign.seen_at))
        held.add_metric([sign.worker], sign.running)
    return [seen, held]


def _notifications(session: Session) -> list[Metric]:
    waiting = GaugeMetricFamily(
        "soundpost_notifications", "Notifications by state.", labels=["state"]
    )
    for state, count in sorted(notifications.counts(session).items()):
        waiting.add_metric([state], count)
    circuit = GaugeMetricFamily(
        "soundpost_channel_circuit_open",
        "Whether a channel is left alone because it could not be reached.",
        labels=["channel"],
    )
    failures = GaugeMetricFamily(
        "soundpost_channel_failures", "Failures of a channel in a row.", labels=["channel"]
    )
    now = utc_now()
    for channel in channels.find_all(session):
        circuit.add_metric([channel.name], float(is_open(channel, now)))
        failures.add_metric([channel.name], channel.failures)
    return [waiting, circuit, failures]


def _timestamp(moment: datetime) -> float:
    return moment.timestamp()


def _quantile(values: Sequence[float], share: float) -> float:
    """The value that at least this share of values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
