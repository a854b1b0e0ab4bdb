"""Which samples are taken and where they go: near-duplicates, clusters."""
