"""An encoder and its reranker in a process of their own, for programs that must stay light.

The service answers hundreds of requests at once and holds no model: its models live here. Texts
that wait together are embedded together. A process that dies is started again, and only what it
had in hand fails.
"""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.config import Settings
from soundpost.errors import EncoderUnavailableError, NoRerankerError, SoundpostError
from soundpost.models.encoder import (
    AudioEncoding,
    AudioTextEncoder,
    EncoderSpec,
    FloatArray,
    TextEncoding,
)
from soundpost.models.reranker import Candidates, Reranker, RerankerSpec

# Loading a model from a slow disk takes its time; an answer does not.
_LOAD_S = 300.0
_ANSWER_S = 60.0
_MOST_TOGETHER = 64
# The states of one text's tokens take up to 100 kB.
_REMEMBERED_TEXTS = 64
# A process of its own, started afresh: one forked from a program with threads may hang.
_CONTEXT = multiprocessing.get_context("spawn")

_Request = tuple[int, str, tuple[Any, ...]]


class EncoderProcess:
    """An AudioTextEncoder whose model lives in a child process; may be used by many threads.

    Nothing is started before `start` or the first use. Its methods raise what the encoder raises,
    and EncoderUnavailableError where the child died or does not answer. `close` ends the child.
    """

    def __init__(self, settings: Settings, answer_s: float = _ANSWER_S) -> None:
        self._settings = settings
        self._answer_s = answer_s
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._spec: EncoderSpec | None = None

    def start(self) -> None:
        """Start the child, if none lives; its model loads in the background."""
        self._living()

    @property
    def ready(self) -> bool:
        """Whether the model is loaded; never waits."""
        child = self._child
        loaded = child is not None and child.alive and child.loaded.done()
        return loaded and child is not None and child.loaded.exception() is None

    @property
    def process_id(self) -> int | None:
        """The child's process id, None before it is started."""
        return self._child.process.pid if self._child else None

    @property
    def spec(self) -> EncoderSpec:
        """What the encoder is; waits for the model the first time."""
        if self._spec is None:
            self._spec = self._ask_for_spec()
        return self._spec

    def encode_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        """Encode as the encoder does."""
        encoding: AudioEncoding = self._ask("encode_audio", waves, lengths)
        return encoding

    def embed_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> FloatArray:
        """Embed as the encoder does."""
        vectors: FloatArray = self._ask("embed_audio", waves, lengths)
        return vectors

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Embed as the encoder does; texts of several callers share a batch."""
        vectors: FloatArray = self._ask("embed_text", list(texts))
        return vectors

    def encode_text(self, texts: Sequence[str]) -> TextEncoding:
        """Encode as the encoder does."""
        encoding: TextEncoding = self._ask("encode_text", list(texts))
        return encoding

    def relevance(self, text_vectors: FloatArray, similarities: FloatArray) -> FloatArray:
        """Judge as the encoder does."""
        relevance: FloatArray = self._ask("relevance", text_vectors, similarities)
        return relevance

    def load_reranker(self) -> Reranker:
        """Return the reranker of the settings, which lives in the same child.

        Waits until it is loaded. Raises what `registry.load_reranker` raises there.
        """
        known: _KnownReranker = _wait(self._living().reranker, _LOAD_S)
        return _RemoteReranker(self, known)

    def applies_to(self, text: str) -> bool:
        """Say what the child's reranker says. Raises NoRerankerError where it has none."""
        return bool(self._ask("applies_to", text))

    def joint_probability(
        self, text: str, similarities: FloatArray, candidates: Candidates
    ) -> FloatArray:
        """Judge as the child's reranker does. Raises NoRerankerError where it has none."""
        probability: FloatArray = self._ask("joint_probability", text, similarities, candidates)
        return probability

    def close(self) -> None:
        """End the child; what waits for it fails."""
        with self._lock:
            if self._child is not None:
                self._child.end()
                self._child = None

    def _living(self) -> _Child:
        with self._lock:
            if self._child is None or not self._child.alive:
                self._child = _Child(self._settings)
            return self._child

    def _ask_for_spec(self) -> EncoderSpec:
        spec: EncoderSpec = _wait(self._living().loaded, _LOAD_S)
        return spec

    def _ask(self, method: str, *arguments: Any) -> Any:
        child = self._living()
        _wait(child.loaded, _LOAD_S)
        return _wait(child.ask(next(self._numbers), method, arguments), self._answer_s)


@dataclass(frozen=True)
class _KnownReranker:
    """What the child says of its reranker."""

    spec: RerankerSpec
    weight: float


class _RemoteReranker:
    """The reranker of a child."""

    def __init__(self, process: EncoderProcess, known: _KnownReranker) -> None:
        self._process = process
        self._known = known

    @property
    def spec(self) -> RerankerSpec:
        """Name and revision, and the encoder it belongs to."""
        return self._known.spec

    @property
    def weight(self) -> float:
        """How much the joint probability counts."""
        return self._known.weight

    def applies_to(self, text: str) -> bool:
        """Say whether there is anything to judge about a text."""
        return self._process.applies_to(text)

    def joint_probability(
        self, text: str, similarities: FloatArray, candidates: Candidates
    ) -> FloatArray:
        """Judge as the reranker does."""
        return self._process.joint_probability(text, similarities, candidates)


def _wait(future: Future[Any], patience_s: float) -> Any:
    try:
        return future.result(patience_s)
    except FutureTimeoutError as error:
        raise EncoderUnavailableError(None, f"no answer in {patience_s:.0f} s") from error


class _Child:
    """One life of the child process."""

    def __init__(self, settings: Settings) -> None:
        self.loaded: Future[EncoderSpec] = Future()
        self.reranker: Future[_KnownReranker] = Future()
        ours, theirs = _CONTEXT.Pipe()
        self._pipe = ours
        self._sending = threading.Lock()
        self._open: dict[int, Future[Any]] = {}
        self._over = False
        self.process = _CONTEXT.Process(
            target=_serve, args=(theirs, settings), name="encoder", daemon=True
        )
        self.process.start()
        theirs.close()
        threading.Thread(target=self._receive, name="encoder answers", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can still answer."""
        return not self._over and self.process.is_alive()

    def ask(self, number: int, method: str, arguments: tuple[Any, ...]) -> Future[Any]:
        """Send a request; the answer comes in the future."""
        future: Future[Any] = Future()
        try:
            with self._sending:
                self._open[number] = future
                self._pipe.send((number, method, arguments))
        except OSError:
            self._fail_all()
        if self._over:
            self._fail_all()
        return future

    def end(self) -> None:
        """Kill it: it holds nothing that could be lost."""
        self.process.kill()
        self.process.join()
        self._fail_all()

    def _receive(self) -> None:
        try:
            self._settle(self.loaded, self._pipe.recv())
            self._settle(self.reranker, self._pipe.recv())
            while True:
                number, answer = self._pipe.recv()
                self._settle(self._open.pop(number), answer)
        except (EOFError, OSError):
            self._fail_all()

    def _settle(self, future: Future[Any], answer: Any) -> None:
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _fail_all(self) -> None:
        self._over = True
        asked = [self._open.pop(number) for number in list(self._open)]
        waiting: list[Future[Any]] = [self.loaded, self.reranker, *asked]
        for future in waiting:
            if not future.done():
                future.set_exception(EncoderUnavailableError(None, "its process ended"))


def _serve(pipe: Connection, settings: Settings) -> None:
    """Load the models and answer until the other end is closed."""
    from soundpost.models.registry import load_encoder

    try:
        encoder = load_encoder(settings)
    # Whatever it is, the other side has to know: it waits for the model.
    except Exception as error:  # noqa: BLE001
        pipe.send(_portable(error))
        return
    pipe.send(encoder.spec)
    remembering = _RememberingEncoder(encoder)
    reranker = _load_reranker(settings, remembering)
    if isinstance(reranker, Exception):
        pipe.send(reranker)
        models = _Models(encoder, None)
    else:
        pipe.send(_KnownReranker(reranker.spec, reranker.weight))
        models = _Models(remembering, reranker)
    try:
        while True:
            for number, answer in _answers(models, _waiting(pipe)):
                pipe.send((number, answer))
    except (EOFError, OSError):
        return


@dataclass(frozen=True)
class _Models:
    """What the child has."""

    encoder: AudioTextEncoder
    reranker: Reranker | None

    def having(self, method: str) -> AudioTextEncoder | Reranker:
        """Return the model that has a method."""
        if method not in ("applies_to", "joint_probability"):
            return self.encoder
        if self.reranker is None:
            raise NoRerankerError
        return self.reranker


def _load_reranker(settings: Settings, encoder: AudioTextEncoder) -> Reranker | Exception:
    from soundpost.models.registry import load_reranker

    try:
        return load_reranker(settings, encoder)
    # The other side says it to those who search; texts are embedded all the same.
    except Exception as error:  # noqa: BLE001
        return _portable(error)


class _RememberingEncoder:
    """An encoder that reads a text once for both stages of a search.

    It reads each by itself: in a batch its numbers would depend, in their last bits, on the others.
    """

    def __init__(self, encoder: AudioTextEncoder) -> None:
        self._encoder = encoder
        self._read = lru_cache(_REMEMBERED_TEXTS)(lambda text: encoder.encode_text([text]))

    @property
    def spec(self) -> EncoderSpec:
        """What the encoder is."""
        return self._encoder.spec

    def encode_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> AudioEncoding:
        """Encode as the encoder does."""
        return self._encoder.encode_audio(waves, lengths)

    def embed_audio(
        self, waves: FloatArray, lengths: NDArray[np.int64] | None = None
    ) -> FloatArray:
        """Embed as the encoder does."""
        return self._encoder.embed_audio(waves, lengths)

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Embed as the encoder does, one text after the other."""
        if not texts:
            return self._encoder.embed_text(texts)
        return np.concatenate([self._read(text).embedding for text in texts])

    def encode_text(self, texts: Sequence[str]) -> TextEncoding:
        """Encode as the encoder does; a single text may be known."""
        return self._read(texts[0]) if len(texts) == 1 else self._encoder.encode_text(texts)

    def relevance(self, text_vectors: FloatArray, similarities: FloatArray) -> FloatArray:
        """Judge as the encoder does."""
        return self._encoder.relevance(text_vectors, similarities)


def _waiting(pipe: Connection) -> list[_Request]:
    """Wait for a request, and take along what came at the same time."""
    requests: list[_Request] = [pipe.recv()]
    while len(requests) < _MOST_TOGETHER and pipe.poll():
        requests.append(pipe.recv())
    return requests


def _answers(models: _Models, requests: list[_Request]) -> list[tuple[int, Any]]:
    texts = [request for request in requests if request[1] == "embed_text"]
    others = [request for request in requests if request[1] != "embed_text"]
    answers = _embed_together(models, texts)
    for number, method, arguments in others:
        answers.append((number, _answer(models, method, arguments)))
    return answers


def _embed_together(models: _Models, requests: list[_Request]) -> list[tuple[int, Any]]:
    counts = [len(arguments[0]) for _, _, arguments in requests]
    texts = [text for _, _, arguments in requests for text in arguments[0]]
    if not texts:
        return [(number, _answer(models, method, args)) for number, method, args in requests]
    vectors = _answer(models, "embed_text", (texts,))
    if isinstance(vectors, Exception):
        # One of them is at fault: each gets its own answer.
        return [(number, _answer(models, method, args)) for number, method, args in requests]
    parts = np.split(vectors, np.cumsum(counts)[:-1])
    return [(request[0], part) for request, part in zip(requests, parts, strict=True)]


def _answer(models: _Models, method: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(models.having(method), method)(*arguments)
    # The caller raises it where it can be understood.
    except Exception as error:  # noqa: BLE001
        return _portable(error)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: ours as they are, others by their words."""
    if isinstance(error, SoundpostError):
        error.__cause__ = error.__context__ = None
        return error
    return EncoderUnavailableError(None, f"{type(error).__name__}: {error}")
