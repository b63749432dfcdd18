"""The HTTP reader: requests on a pool of threads, one thread for each call under way."""
