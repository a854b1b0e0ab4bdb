"""The models again, in plain PyTorch, written from their papers: what ours are compared with.

Modules here import torch when they are imported; `compare` does not. Weights have the names of the authors' code where
there is one, so that what is compared is also what `training.models.torch_weights` takes over.
"""
