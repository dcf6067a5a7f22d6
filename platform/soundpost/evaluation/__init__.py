"""Evaluation: what every shipped weight is worth, on held-out data."""
