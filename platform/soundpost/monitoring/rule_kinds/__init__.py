"""The kinds of rules, one file a family; `registry` makes them by name."""
