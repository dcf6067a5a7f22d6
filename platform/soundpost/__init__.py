"""Soundpost: search sound archives by text, and know when a source sounds different."""

__version__ = "0.1.0"
