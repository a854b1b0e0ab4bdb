"""Randomness as a function of (seed, sample key, purpose): never of worker, time or order."""

import hashlib

import numpy as np


def _digest(seed: int, key: str, purpose: str, size: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0{purpose}\0{key}".encode(), digest_size=size).digest()


def rank(seed: int, key: str, purpose: str) -> bytes:
    """A sort key that shuffles: uniform in 16 bytes, different for each purpose, the same on every machine."""
    return _digest(seed, key, purpose, 16)


class SampleRandom:
    """The randomness of one sample: one independent generator for each variation."""

    def __init__(self, seed: int, key: str) -> None:
        self._seed, self._key = seed, key

    def variation(self, number: int) -> np.random.Generator:
        """A fresh ``Generator(seed, sample key, number)``; the same each time it is asked for."""
        entropy = int.from_bytes(_digest(self._seed, self._key, f"variation {number}", 16), "little")
        return np.random.Generator(np.random.PCG64(entropy))
