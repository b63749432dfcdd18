"""The kinds of subscribers: actors (push), iterators (pull) and functions (callback)."""
