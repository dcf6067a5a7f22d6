"""Workers: Celery tasks over the platform (from the next release on)."""
