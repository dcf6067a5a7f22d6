"""Ui: the command line, and the dashboard to come."""
