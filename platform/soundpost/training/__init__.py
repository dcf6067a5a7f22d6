"""Training: how every shipped weight was made."""
