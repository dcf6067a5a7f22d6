"""The sound kinds that can be synthesised, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from soundpost.audio.sounds.creatures import CREATURES
from soundpost.audio.sounds.impacts import IMPACTS
from soundpost.audio.sounds.kind import SoundKind
from soundpost.audio.sounds.machines import MACHINES
from soundpost.audio.sounds.signals import SIGNALS
from soundpost.audio.sounds.weather import WEATHER

KINDS: Final[Mapping[str, SoundKind]] = MappingProxyType(
    {kind.name: kind for kind in (*MACHINES, *SIGNALS, *WEATHER, *CREATURES, *IMPACTS)}
)
