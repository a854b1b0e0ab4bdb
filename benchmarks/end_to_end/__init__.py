"""From the request to the first batch, and to a trained epoch."""
