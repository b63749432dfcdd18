"""The table of all agents. It belongs to no process."""

from __future__ import annotations

import threading

from penstock.actors.agent.record import AgentRecord
from penstock.errors import AgentExists

__all__ = ["AgentTable"]


class AgentTable:
    """All agents of a system by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, AgentRecord] = {}
        self._count = 0

    def add(self, record: AgentRecord) -> None:
        """Add a record.

        Raises:
            AgentExists: an agent has that name.
        """
        with self._lock:
            if record.name in self._records:
                raise AgentExists(record.name)
            self._records[record.name] = record
            self._count += 1
            record.serial = self._count

    def check(self, name: str) -> None:
        """Raise `AgentExists` if an agent has that name."""
        if name in self._records:
            raise AgentExists(name)

    def forget(self, record: AgentRecord) -> None:
        """Remove a record, so that its name is free."""
        with self._lock:
            if self._records.get(record.name) is record:
                del self._records[record.name]

    def all(self) -> list[AgentRecord]:
        """All records, oldest first."""
        with self._lock:
            return list(self._records.values())
