"""Audio: from a file on disk to windows, features and measurements."""
