"""Which samples a step trains on: a pure function of (seed, step), so that a run can start at any step at no cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

from util.seeds import derive_seed


class BatchKeys(Iterable[list[tuple[int, int]]]):
    """Batches of sample keys (epoch, index), endless; a `batch_sampler` for a `DataLoader`.

    The seeded permutations of epoch 0, 1, 2, ... are joined into one endless row of keys. Step t (from 0) takes
    the positions [t*B*W, (t+1)*B*W), B the batch of one process and W the number of processes; rank r takes rows
    [r*B, (r+1)*B) of them. No sample is left out and none comes twice in an epoch, whatever B and W.

    Args:
        length: number of pictures.
        batch_size: pictures per process and step, B.
        seed: seed of the run.
        start_step: first step to yield.
        rank: number of this process.
        world_size: number of processes, W.
    """

    def __init__(
        self, *, length: int, batch_size: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if length < 1:
            raise ValueError(f"length is {length}: there is nothing to sample from")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start_step, self.rank, self.world_size = start_step, rank, world_size
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.start_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Return this rank's keys of one step."""
        first = (step * self.world_size + self.rank) * self.batch_size
        return [self._key(position) for position in range(first, first + self.batch_size)]

    def _key(self, position: int) -> tuple[int, int]:
        number, offset = divmod(position, self.length)
        return number, int(self._order(number)[offset])

    def _permutation(self, number: int) -> np.ndarray:
        return np.random.RandomState(derive_seed(self.seed, "order", number)).permutation(self.length)
