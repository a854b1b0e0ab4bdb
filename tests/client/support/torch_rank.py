"""What one rank of a group of torch.distributed reads, through a ``DataLoader`` with a worker process, as JSON.

python torch_rank.py DATASET MEETING_FILE RANK RANKS
"""

import json
import sys
from pathlib import Path

import torch

from dataset_client import Dataset


def main(path: str, meeting: str, rank: str, ranks: str) -> None:
    where = {"init_method": f"file://{meeting}", "rank": int(rank), "world_size": int(ranks)}
    torch.distributed.init_process_group("gloo", **where)
    loader = (
        Dataset.open(Path(path)).as_torch_dataset("train", batch_size=3, shuffle=True, seed=6).loader(num_workers=1)
    )
    keys, consumed = [], 0
    for batch in loader:
        keys.append(batch["key"])
        consumed = loader.state_dict()["consumed"]
    torch.distributed.destroy_process_group()
    print(json.dumps({"keys": keys, "consumed": consumed}))


main(*sys.argv[1:])
