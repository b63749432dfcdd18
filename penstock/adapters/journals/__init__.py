"""Journals and log stores, which keep the events of streams. Each implements `ports.Journal` or `ports.LogStore`."""
