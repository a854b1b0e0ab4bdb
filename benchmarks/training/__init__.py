"""How fast the models train: against plain PyTorch, and whether they wait for data."""
