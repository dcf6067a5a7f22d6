"""`python -m soundpost_ui` is the command line, for programs that start others of the same install."""

from soundpost_ui.cli import main

main()
