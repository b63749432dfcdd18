"""Routes: what each path of the gateway does."""
