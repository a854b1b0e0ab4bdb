"""Random state that is in no variable of Keras.

On TensorFlow and JAX, random layers draw by seeds that are variables of the model. On torch, dropout without a seed of
its own draws from torch's global generators instead, one for the CPU and one for each GPU.
"""

from collections.abc import Mapping

import numpy as np


def random_state(backend: str) -> dict[str, np.ndarray]:
    """The states of ``backend``'s global generators by name, uint8 (N,); empty where it uses none."""
    if backend != "torch":
        return {}
    import torch

    states = {"torch": torch.get_rng_state().numpy()}
    if torch.cuda.is_available():
        states |= {f"cuda{number}": state.numpy() for number, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def set_random_state(backend: str, states: Mapping[str, np.ndarray]) -> None:
    """Put the generators where ``states`` says; one that this machine has not is passed over."""
    if backend != "torch":
        return
    import torch

    for name, state in states.items():
        if name == "torch":
            torch.set_rng_state(torch.from_numpy(state))
        elif (number := int(name.removeprefix("cuda"))) < torch.cuda.device_count():
            torch.cuda.set_rng_state(torch.from_numpy(state), number)
