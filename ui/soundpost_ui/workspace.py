"""What commands work with: settings, database, encoder, index and audio, opened when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from soundpost.config import Settings, load_settings
from soundpost.errors import MissingExtraError, SchemaError, SoundpostError, StoreError

if TYPE_CHECKING:
    from soundpost.archive.rerank import SecondStage
    from soundpost.explain.caption import Captioner
    from soundpost.explain.difference import DifferenceExplainer
    from soundpost.jobs import JobQueue
    from soundpost.models.encoder import AudioTextEncoder
    from soundpost.store.files import AudioFiles
    from soundpost.store.session import Store
    from soundpost_indexer.interface import VectorIndex


class Workspace:
    """The parts of one archive, each made at its first use.

    An SQLite database is created and upgraded on the way. A server's is not: others use it, so
    its operator decides when.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def store(self) -> Store:
        """The open database. Raises StoreError, and SchemaError if a server needs an upgrade."""
        from soundpost.store.session import SCHEMA_REVISION, open_store

        url = self.settings.resolved_database_url
        store = open_store(url)
        try:
            if store.revision() != SCHEMA_REVISION:
                self._upgrade(store, url)
            store.check_schema()
        except SoundpostError:
            store.close()
            raise
        return store

    @cached_property
    def encoder(self) -> AudioTextEncoder:
        """The encoder of the settings."""
        from soundpost.models.registry import load_encoder

        return load_encoder(self.settings)

    @cached_property
    def second_stage(self) -> SecondStage:
        """The reranker of the settings, or why there is none."""
        from soundpost.archive.rerank import SecondStage
        from soundpost.models.registry import load_reranker

        settings, encoder = self.settings, self.encoder
        return SecondStage.load(settings, lambda: load_reranker(settings, encoder))

    @cached_property
    def explainer(self) -> DifferenceExplainer:
        """What explains differences; without a network, from measurements alone."""
        from soundpost.explain.difference import load_explainer

        return load_explainer(self.settings, self.encoder)

    @cached_property
    def captioner(self) -> Captioner:
        """What captions sounds. Raises a CaptionerError where there is none for this encoder."""
        from soundpost.explain.caption import load_captioner

        return load_captioner(self.settings, self.encoder)

    @cached_property
    def index(self) -> VectorIndex:
        """The index of the encoder's vectors, in step with the database."""
        from soundpost_indexer.build import open_index

        return open_index(self.settings, self.store, self.model_id)

    def forget_index(self) -> None:
        """Let the next search open the index anew, with what was embedded since."""
        vars(self).pop("index", None)

    @cached_property
    def model_id(self) -> int:
        """The id of the encoder's row, made if it is new."""
        from soundpost.store import models

        with self.store.session() as session:
            return models.ensure(session, self.encoder.spec).id

    @cached_property
    def objects(self) -> AudioFiles:
        """The audio files, in place and copied."""
        from soundpost.store.files import AudioFiles

        return AudioFiles(self.settings.resolved_objects_url)

    @cached_property
    def queue(self) -> JobQueue:
        """Where jobs are asked for; its messages go to the broker of the settings."""
        from soundpost.jobs import JobQueue
        from soundpost_workers.app import make_app
        from soundpost_workers.send import CelerySender

        return JobQueue.of(self.settings, CelerySender(make_app(self.settings)))

    def _upgrade(self, store: Store, url: str) -> None:
        from soundpost_migrations.upgrade import upgrade

        if store.engine.dialect.name != "sqlite":
            detail = "back it up, then run: soundpost upgrade"
            raise SchemaError(store.address, detail)
        upgrade(url)

    def close(self) -> None:
        """Let go of what was opened."""
        if "second_stage" in vars(self):
            self.second_stage.close()
        if "store" in vars(self):
            self.store.close()


@contextmanager
def open_workspace(settings: Settings | None = None) -> Iterator[Workspace]:
    """Open a workspace for the length of a command.

    Raises StoreError where the home folder cannot be made.
    """
    workspace = Workspace(settings or load_settings())
    try:
        workspace.settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(workspace.settings.home, error.strerror or "") from error
    try:
        yield workspace
    finally:
        workspace.close()


# What the extras install, by the names they are imported under.
_EXTRA_MODULES = frozenset(
    {
        "alembic",
        "apprise",
        "av",
        "celery",
        "faiss",
        "kombu",
        "numpy",
        "obstore",
        "paho",
        "psycopg",
        "safetensors",
        "soundfile",
    }
    | {"soxr", "sqlalchemy", "torch", "transformers", "watchfiles", "fastapi", "uvicorn"}
)


@contextmanager
def platform_needed() -> Iterator[None]:
    """Say which extra to install when a module of the platform is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA_MODULES:
            raise
        raise MissingExtraError(missing) from error
