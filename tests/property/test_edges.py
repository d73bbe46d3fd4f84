import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from instance_edges import instance_edges

quick = settings(deadline=None, max_examples=25)
maps = st.builds(
    lambda seed, h, w, n: torch.from_numpy(np.random.RandomState(seed).randint(0, n, (h, w))),
    st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4),
)  # fmt: skip


def plain_edges(inst):
    """The rule word by word: 1 iff the id differs from at least one 4-neighbour inside the image."""
    height, width = inst.shape
    edge = torch.zeros(1, height, width)
    for y in range(height):
        for x in range(width):
            for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= ny < height and 0 <= nx < width and inst[ny, nx] != inst[y, x]:
                    edge[0, y, x] = 1
    return edge


@quick
@given(maps)
def test_edges_equal_the_plain_rule(inst):
    assert torch.equal(instance_edges(inst), plain_edges(inst))


@quick
@given(maps)
def test_edges_commute_with_flips_and_ignore_the_names_of_ids(inst):
    assert torch.equal(instance_edges(inst.flip(-1)), instance_edges(inst).flip(-1))
    assert torch.equal(instance_edges(inst * 1000 + 7), instance_edges(inst))


@quick
@given(maps)
def test_a_batch_is_its_pictures(inst):
    batch = torch.stack([inst, inst.flip(0)])
    edges = instance_edges(batch)
    assert edges.shape == (2, 1, *inst.shape)
    assert edges.dtype == torch.float32
    assert torch.equal(edges[1], instance_edges(inst.flip(0)))


def test_one_instance_has_no_edge():
    assert instance_edges(torch.full((5, 7), 3)).sum() == 0
