"""The processes of a running system: the handler, the agents' supervisor, the reaper, the sentinel."""
