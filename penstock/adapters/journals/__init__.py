"""Journals: where the events of streams are stored before a subscriber gets them. Each implements `ports.Journal`."""
