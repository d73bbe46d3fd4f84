"""Where pictures are edited: windows cover every masked pixel, stay inside, and share what they can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers

from util.regions import CONTEXT, Box, bounding_box, plan_regions, window_around


def blobs(seed: int, count: int) -> np.ndarray:
    """A mask of 40..200 pixels a side with some rectangles."""
    rng = np.random.RandomState(seed)
    height, width = rng.randint(40, 200, 2)
    mask = np.zeros((height, width), bool)
    for _ in range(count):
        y, x = rng.randint(height), rng.randint(width)
        mask[y : y + rng.randint(1, height), x : x + rng.randint(1, width // 2 + 1)] = True
    return mask


@given(seed=integers(0, 10_000), count=integers(1, 8))
@settings(deadline=None, max_examples=40)
def test_windows_cover_the_mask_and_stay_inside(seed: int, count: int) -> None:
    mask = blobs(seed, count)
    height, width = mask.shape
    regions = plan_regions(mask, 64)
    assert np.array_equal(np.sum([r.mask for r in regions], axis=0), mask)  # each pixel in exactly one region
    for region in regions:
        seen = np.zeros_like(mask)
        length = bounding_box(region.mask).length
        for window in region.windows:
            assert 0 <= window.top <= window.top + window.side <= height
            assert 0 <= window.left <= window.left + window.side <= width
            assert window.side == min(max(64, int(np.ceil(CONTEXT * length))), height, width)
            seen[window.slices] = True
        assert not (region.mask & ~seen).any()


def test_parts_far_apart_have_windows_of_their_own_and_near_ones_share() -> None:
    mask = np.zeros((256, 512), bool)
    mask[10:30, 10:30] = mask[20:40, 32:52] = True  # together 42 pixels, with context within 64
    mask[200:220, 400:500] = True
    first, second = plan_regions(mask, 64)
    assert [(w.side, w.top) for w in first.windows] == [(64, 0)]
    assert [(w.side, w.left) for w in second.windows] == [(150, 362)]


def test_parts_do_not_share_a_window_that_neither_needs() -> None:
    mask = np.zeros((256, 512), bool)
    mask[10:30, 10:30] = mask[10:30, 90:110] = True  # together 100 pixels, which would take a window of 150
    assert [(w.side, w.left) for region in plan_regions(mask, 64) for w in region.windows] == [(64, 0), (64, 68)]


def test_speckles_do_not_multiply_windows() -> None:
    mask = np.zeros((64, 64), bool)
    mask[::4, ::4] = True
    assert len(plan_regions(mask, 64)) == 1


@pytest.mark.parametrize(
    ("columns", "starts"),
    [
        ((85, 200), [53, 85, 117, 136]),  # a panorama: half of every window is known
        ((0, 115), [83, 51, 19, 0]),  # the same to the left
        ((60, 130), [28, 60, 92]),  # too long, both ends known
        ((60, 110), [53]),  # fits
        ((180, 200), [136]),  # a short extension
    ],
)
def test_a_long_region_is_walked_from_where_the_picture_is_known(columns: tuple[int, int], starts: list[int]) -> None:
    mask = np.zeros((64, 200), bool)
    mask[:, columns[0] : columns[1]] = True
    (region,) = plan_regions(mask, 64)
    assert [w.left for w in region.windows] == starts
    (turned,) = plan_regions(mask.T, 64)
    assert [w.top for w in turned.windows] == starts


def test_a_window_is_centred_as_far_as_borders_allow() -> None:
    assert window_around(Box(100, 100, 120, 140), (300, 300), 64).left == 88
    assert window_around(Box(0, 290, 20, 300), (300, 300), 64).left == 236
    assert window_around(Box(0, 0, 10, 10), (40, 300), 64).side == 40  # a picture smaller than the crop
