"""Watching: what is normal for a source, when it no longer is, and who is told."""
