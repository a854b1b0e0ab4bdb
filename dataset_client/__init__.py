"""Asks a dataset server for a dataset, waits for it, and hands it over verified."""
