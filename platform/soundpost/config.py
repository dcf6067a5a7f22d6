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

    @property
    def resolved_database_url(self) -> str:
        """The database URL, with the default filled in."""
        return self.database_url or f"sqlite:///{(self.home / 'soundpost.db').resolve()}"

    @property
    def resolved_objects_url(self) -> str:
        """The object store URL, with the default filled in."""
        return self.objects_url or (self.home / "objects").resolve().as_uri()

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
