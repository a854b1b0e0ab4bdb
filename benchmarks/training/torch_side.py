"""The same step in plain PyTorch, with the references of our tests.

    python -m benchmarks.training.torch_side NUMBER [--size S] [--threads N]

Eager, float32, Adam, the loss' mean over the batch; models with several outputs learn from the sum over all.
"""

import argparse
import os

import torch
from torch.nn import functional

from benchmarks.training.steps import LEARNING_RATE, serve
from benchmarks.training.works import WORKS, Work, batch_of


def reference_of(work: Work) -> torch.nn.Module:
    """The module with the weights that ours has, too."""
    from tests.training.references import compare, with_encoders

    if with_encoders.has_encoder(work.name):
        reference = work.options if work.reference is None else work.reference
        return with_encoders.reference_of(with_encoders.Case(work.name, work.options, reference, (), work.channels))
    return compare.reference_of(compare.Comparison(work.name, work.options, (), work.channels))


def make(work: Work):
    from tests.training.references.compare import as_list

    module = reference_of(work)
    photos, masks = (torch.from_numpy(array.transpose(0, 3, 1, 2).copy()) for array in batch_of(work))
    with torch.no_grad():
        loss = functional.binary_cross_entropy(as_list(module(photos))[0], masks).item()
    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)

    def step() -> float:
        optimizer.zero_grad()
        losses = [functional.binary_cross_entropy(output, masks) for output in as_list(module(photos))]
        total = torch.stack(losses).sum()
        total.backward()
        optimizer.step()
        return total.item()

    return loss, step, sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = WORKS[options.number]
    serve(lambda: make(work.smaller(options.size) if options.size else work))


if __name__ == "__main__":
    main()
