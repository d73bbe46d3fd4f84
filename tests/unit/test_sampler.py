"""Sample keys are a function of (seed, step): compared with the definition, laid out in full."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from trainers.sampler import BatchKeys

small = st.integers(1, 7)


@settings(deadline=None, max_examples=25)
@given(length=small, batch=small, world=st.integers(1, 4), start=st.integers(0, 20), seed=st.integers(0, 99))
def test_batches_cut_the_row_of_permutations(length: int, batch: int, world: int, start: int, seed: int) -> None:
    # Oracle: the whole row from one process with batches of one.
    row = [keys[0] for keys in islice(BatchKeys(length=length, batch_size=1, seed=seed), (start + 3) * batch * world)]
    for number in range(len(row) // length):
        passed = row[number * length : (number + 1) * length]
        assert {p for p, _ in passed} == {number} and sorted(i for _, i in passed) == list(range(length))
    for rank in range(world):
        keys = BatchKeys(length=length, batch_size=batch, seed=seed, start_step=start, rank=rank, world_size=world)
        for step, got in enumerate(islice(keys, 3), start):
            first = step * batch * world + rank * batch
            assert got == row[first : first + batch]


def test_passes_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, number: int) -> list[int]:
        keys = islice(BatchKeys(length=50, batch_size=50, seed=seed), number + 1)
        return [index for _, index in list(keys)[number]]

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    assert order(0, 1) == order(0, 1)


def test_starting_late_costs_nothing() -> None:
    keys = BatchKeys(length=1000, batch_size=4, seed=0, start_step=10**12)
    assert next(iter(keys))[0][0] == 4 * 10**12 // 1000


def test_drives_a_data_loader() -> None:
    class Keys:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, key: tuple[int, int]) -> np.ndarray:
            return np.array(key)

    keys = BatchKeys(length=3, batch_size=2, seed=5, start_step=4)
    batches = list(islice(DataLoader(Keys(), batch_sampler=keys), 3))  # type: ignore[arg-type]
    assert [[tuple(row) for row in batch.tolist()] for batch in batches] == list(islice(keys, 3))


def test_empty_data_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to sample"):
        BatchKeys(length=0, batch_size=1, seed=0)
