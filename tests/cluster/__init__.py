"""The log store for many nodes, on real servers, with faults."""
