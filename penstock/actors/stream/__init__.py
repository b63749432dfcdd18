"""One token stream: the actor, its record, the log, the cursors and the subscribers."""
