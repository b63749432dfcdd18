"""Several systems on one log store: each stream is run by one of them, and read and commanded from all."""
