"""Migrations: the database schema, version by version."""
