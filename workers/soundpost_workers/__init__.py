"""Workers: Celery tasks over the platform."""
