"""The commands of `soundpost`, one subject a file; nothing heavy is imported before one runs."""
