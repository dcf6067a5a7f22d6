"""Turn the settings' `encoder` into an encoder. Models are imported only when asked for."""

from __future__ import annotations

import re
from collections.abc import Callable

from soundpost.config import Settings
from soundpost.errors import InvalidValueError
from soundpost.models.encoder import AudioTextEncoder

_DEVICE = re.compile(r"cpu|cuda(?::\d+)?")


def load_encoder(settings: Settings) -> AudioTextEncoder:
    """Load the encoder that the settings name, on their device.

    "compact" is ours; "placeholder:tone" is the stand-in for tests and demonstrations without a
    model; anything else is a CLAP checkpoint, a folder or a hub name.

    Raises ModelNotFoundError, BrokenCheckpointError, or InvalidValueError for the device.
    """
    load = _BUILT_IN.get(settings.encoder, _load_clap)
    return load(settings)


def resolve_device(name: str) -> str:
    """Turn "auto" into "cuda" or "cpu", and check that a named device is there.

    Raises InvalidValueError for a name that torch does not know or a GPU that it cannot use.
    """
    import torch  # Takes a second, and the stand-in does without it.

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not _DEVICE.fullmatch(name):
        detail = "SOUNDPOST_DEVICE is 'auto', 'cpu', 'cuda' or 'cuda:N'"
        raise InvalidValueError(name, detail)
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        detail = f"torch sees {torch.cuda.device_count()} GPUs here"
        raise InvalidValueError(name, detail)
    return name


def _load_placeholder(settings: Settings) -> AudioTextEncoder:
    from soundpost.models.placeholder import ToneEncoder

    return ToneEncoder()


def _load_compact(settings: Settings) -> AudioTextEncoder:
    from soundpost.models.compact import CompactEncoder

    return CompactEncoder.load(device=resolve_device(settings.device), threads=settings.threads)


def _load_clap(settings: Settings) -> AudioTextEncoder:
    from soundpost.models.clap import ClapEncoder

    device = resolve_device(settings.device)
    return ClapEncoder.load(settings.encoder, device=device, threads=settings.threads)


_BUILT_IN: dict[str, Callable[[Settings], AudioTextEncoder]] = {
    "compact": _load_compact,
    "placeholder:tone": _load_placeholder,
}
