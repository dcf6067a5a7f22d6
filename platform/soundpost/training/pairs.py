"""Pairs of recordings whose difference is known exactly."""

from __future__ import annotations

from soundpost.training.pair_records import BANDS, Edit, EditKind, Heard, PairRecord

__all__ = ["BANDS", "Edit", "EditKind", "Heard", "PairRecord"]
