"""Processes in general: mailboxes, dispatcher, timers, links, monitors, state machines. Streams are unknown here."""
