"""A model, or the data it is trained and measured on, cannot be used."""

from __future__ import annotations

from soundpost.errors.root import SoundpostError


class ModelError(SoundpostError):
    """The model cannot be used."""

    code = "model"


class ModelNotFoundError(ModelError):
    """No such model."""

    code = "model-not-found"
    remedy = "Use 'compact', a folder with a CLAP checkpoint, or a hub name that can be reached."


class BrokenCheckpointError(ModelError):
    """The checkpoint fails its self-check."""

    code = "broken-checkpoint"
    remedy = "Use another checkpoint: this one gives wrong or useless vectors."


class EncoderUnavailableError(ModelError):
    """The encoder does not answer."""

    code = "encoder-unavailable"
    remedy = "Try again in a moment: it is started anew. If it goes on, see the service's log."


class RerankerError(ModelError):
    """The second stage of the search cannot be used."""

    code = "reranker"
    remedy = "Search without it (rerank off), and see what soundpost doctor says."


class NoRerankerError(RerankerError):
    """There are no weights for reranking what this encoder finds."""

    code = "no-reranker"
    remedy = "Name a folder in SOUNDPOST_RERANKER, or train one: soundpost train diffatr"


class RerankerNotFoundError(RerankerError):
    """No reranker is there."""

    code = "reranker-not-found"
    remedy = "Set SOUNDPOST_RERANKER to 'auto', 'off', or a folder with a trained reranker."


class RerankerMismatchError(RerankerError):
    """The reranker was made for another encoder."""

    code = "reranker-mismatch"
    remedy = "Set SOUNDPOST_RERANKER to 'auto', or train one for this encoder."


class RerankTimeoutError(RerankerError):
    """Reranking did not end in time."""

    code = "rerank-timeout"
    remedy = "Ask for fewer candidates, or raise SOUNDPOST_RERANK_BUDGET_S."


class ExplainerNotFoundError(ModelError):
    """This explainer was not found."""

    code = "explainer-not-found"
    remedy = "Set SOUNDPOST_EXPLAINER to 'auto', 'off', or a folder that its training wrote."


class ExplainerMismatchError(ModelError):
    """The explainer does not fit this encoder."""

    code = "explainer-mismatch"
    remedy = "Use the encoder that it was trained over, or train one over this encoder."


class CaptionerError(ModelError):
    """Captions cannot be written."""

    code = "captioner"
    remedy = "Go on without captions (SOUNDPOST_CAPTIONS=off), or set SOUNDPOST_CAPTIONER."


class CaptionerUnavailableError(CaptionerError):
    """There is no captioner for what this encoder hears."""

    code = "captioner-unavailable"
    remedy = "Name a folder in SOUNDPOST_CAPTIONER, or take the encoder 'compact'."


class CaptionerMismatchError(CaptionerError):
    """The captioner was made for another encoder."""

    code = "captioner-mismatch"
    remedy = "Set SOUNDPOST_CAPTIONER to 'auto', or train one for this encoder."


class DataMissingError(SoundpostError):
    """The training and evaluation data is not there."""

    code = "data-missing"
    remedy = "Set SOUNDPOST_DATA to the folder that holds audio.csv."


class PairsMissingError(SoundpostError):
    """There is no finished set of pairs."""

    code = "pairs-missing"
    remedy = "Make it, or let it finish, with python -m soundpost.training.pair_store."
