"""The live terminal view of a running service, by its metrics."""
