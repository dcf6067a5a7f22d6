"""Configuration: the one place that reads SOUNDPOST_* settings from the environment."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are and how much of the machine may be used.

    Every field is set by the environment variable SOUNDPOST_<FIELD>; sizes in bytes, times in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="SOUNDPOST_", frozen=True, extra="ignore")

    home: Path = Field(
        default=Path.home() / ".local" / "share" / "soundpost",
        description="Folder of the database, the index and copied audio.",
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL; empty means SQLite in the home folder."
    )
    objects_url: str = Field(
        default="",
        description="Where copied audio goes (file://, s3://, gs://, az://); empty: home.",
    )
    data: Path = Field(
        default=Path("../shared/data"), description="Training and evaluation data (audio.csv)."
    )
    encoder: str = Field(
        default="compact", description="'compact', or a CLAP checkpoint: folder or hub name."
    )
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1', ...")
    threads: int = Field(default=0, ge=0, description="Compute threads; 0 takes every core.")
    batch_size: int = Field(default=16, ge=1, le=1024, description="Windows an encoder batch.")
    index: Literal["faiss", "exact"] = Field(default="faiss", description="Vector index engine.")
    index_memory_bytes: int = Field(
        default=4 * 1024**3, ge=1, description="What the index may take of memory."
    )

    reranker: str = Field(
        default="auto",
        description="'auto' (the shipped one that fits the encoder), 'off', or a folder.",
    )
    rerank_candidates: int = Field(
        default=64, ge=1, le=1000, description="Hits that a search reranks, if it does not say."
    )
    rerank_budget_s: float = Field(
        default=0.1, gt=0, description="Reranking that takes longer is left out of the answer."
    )

    explainer: str = Field(
        default="auto",
        description="'auto' (the shipped one), 'off' (measurements alone), or a folder.",
    )
    explain_timeout_s: float = Field(
        default=30.0, gt=0, description="How long the service works on one explanation."
    )
    captions: Literal["off", "on"] = Field(
        default="off", description="Whether recordings are put in words once they are embedded."
    )
    captioner: str = Field(
        default="auto", description="'auto' (the shipped one), 'off', or a folder."
    )
    captions_a_window: int = Field(
        default=3, ge=1, le=20, description="Wordings that are kept of each window."
    )

    broker_url: str = Field(
        default="", description="Celery broker, such as redis://host/0; empty: a folder in home."
    )
    worker_processes: int = Field(
        default=1, ge=1, le=256, description="Processes of one worker; each loads the model."
    )
    worker_memory_bytes: int = Field(
        default=6 * 1024**3, ge=2**28, description="A worker process that took more is replaced."
    )
    job_limit_s: float = Field(
        default=6 * 3600.0, gt=0, description="A job that takes longer is ended and tried again."
    )
    lease_s: float = Field(
        default=60.0, ge=1, description="After so long without a sign a job's worker is lost."
    )
    reconcile_s: float = Field(
        default=10.0, ge=0.1, description="How often jobs are looked after whose message was lost."
    )
    tick_s: float = Field(
        default=5.0, ge=0.1, description="How often incidents that are over are looked for."
    )
    resend_s: float = Field(
        default=60.0, ge=1, description="A message without effect is sent again after so long."
    )
    queue_limit: int = Field(
        default=100_000, ge=1, description="Unfinished jobs that one source may have."
    )
    embed_together_s: float = Field(
        default=160.0, gt=0, description="Seconds of waiting audio that a worker takes at once."
    )
    disk_reserve_bytes: int = Field(
        default=512 * 1024**2, ge=0, description="With less free space nothing new is taken in."
    )
    upload_bytes: int = Field(
        default=2 * 1024**3, ge=1, description="Largest upload the service accepts."
    )
    upload_s: float = Field(
        default=86_400.0, gt=0, description="Longest recording the service accepts as an upload."
    )
    stretch_s: float = Field(
        default=3_600.0, gt=0, description="Longest clip or spectrogram the service makes."
    )
    example_s: float = Field(
        default=60.0, gt=0, le=600, description="How much of an example the service searches by."
    )
    search_timeout_s: float = Field(
        default=10.0, gt=0, description="How long the service works on one search."
    )
    search_threads: int = Field(
        default=4, ge=1, le=64, description="Searches the service works on at once."
    )
    search_waiting: int = Field(
        default=128, ge=1, description="Searches that may wait in the service for their turn."
    )
    stretch_timeout_s: float = Field(
        default=60.0, gt=0, description="How long the service works on one clip or spectrogram."
    )

    public_url: str = Field(
        default="", description="Address of the dashboard for links in notifications; empty: none."
    )
    notify_group_wait_s: float = Field(
        default=30.0, ge=0, description="How long a group waits for more after its first incident."
    )
    notify_group_interval_s: float = Field(
        default=300.0, ge=0, description="Least time between two notifications of a group."
    )
    notify_repeat_s: float = Field(
        default=4 * 3600.0, gt=0, description="What goes on and nobody acknowledged is told again."
    )
    notify_timeout_s: float = Field(
        default=30.0, ge=0.1, description="How long one delivery of a notification may take."
    )
    notify_tick_s: float = Field(
        default=2.0, ge=0.1, description="How often is looked for notifications that are due."
    )

    @property
    def broker_dir(self) -> Path:
        """Folder of the messages, where no broker is configured."""
        return self.home / "broker"

    @property
    def resolved_database_url(self) -> str:
        """The database URL, with the default filled in."""
        return self.database_url or f"sqlite:///{(self.home / 'soundpost.db').resolve()}"

    @property
    def resolved_objects_url(self) -> str:
        """The object store URL, with the default filled in."""
        return self.objects_url or (self.home / "objects").resolve().as_uri()

    @property
    def requests_dir(self) -> Path:
        """Folder of files that live as long as a request: uploads on their way in, clips out."""
        return self.home / "requests"

    @property
    def spool_dir(self) -> Path:
        """Folder of live recordings on their way into the archive, one a source."""
        return self.home / "spool"

    @property
    def fetch_dir(self) -> Path:
        """Folder of what is fetched from object stores, while it is embedded."""
        return self.home / "fetch"

    @property
    def index_dir(self) -> Path:
        """Folder of index snapshots."""
        return self.home / "index"


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Return the settings of this process, read once from the environment."""
    return Settings()
