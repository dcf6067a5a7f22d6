"""Store: the SQL database, the only truth, and the audio objects it points to."""
