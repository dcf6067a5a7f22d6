"""The HTTP service: routes under /v1, problem details, metrics, logs. It never loads a model."""
