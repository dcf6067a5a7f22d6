"""Indexer: vector indexes that can always be rebuilt from the store."""
