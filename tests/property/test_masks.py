import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_sets import mask_set_hash

from data.masks import (
    MASK_TYPES,
    class_mask,
    extension,
    instance_box,
    make_mask,
    mask_files,
    outpainting,
    read_mask,
)
from util.errors import DataError
from util.images import save_png

quick = settings(deadline=None, max_examples=25)
sizes = st.sampled_from([64, 128, 192, 256])
seeds = st.integers(0, 2**31)


def ids_map(seed, size=64, count=6):
    return np.random.RandomState(seed).randint(0, count, (size // 8, size // 8)).repeat(8, 0).repeat(8, 1)


@quick
@given(seeds, sizes, st.sampled_from(MASK_TYPES))
def test_masks_hold_zeros_and_ones_and_follow_their_seed(seed, size, task):
    ids = ids_map(seed, size)
    chosen = int(ids[0, 0])

    def draw():
        pair = random.Random(seed), np.random.RandomState(seed % 2**32)
        return make_mask(task, *pair, label=ids, inst=ids, chosen_label=chosen, chosen_inst=chosen)

    mask = draw()
    assert mask.shape == (size, size)
    assert set(np.unique(mask)) <= {0, 1}
    assert 0 < mask.sum() < size * size
    assert (mask == draw()).all()


@quick
@given(seeds, sizes)
def test_outpainting_keeps_one_square_of_half_the_side(seed, size):
    mask = outpainting(random.Random(seed), size)
    rows, columns = np.nonzero(mask == 0)
    assert mask.mean() == 0.75
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == size // 2
    assert size // 8 <= rows.min() <= 3 * size // 8
    assert size // 8 <= columns.min() <= 3 * size // 8


@quick
@given(sizes)
def test_extension_is_half(size):
    assert extension(size).mean() == 0.5


@quick
@given(seeds)
def test_class_mask_is_exactly_the_class(seed):
    ids = ids_map(seed)
    chosen = int(ids[-1, -1])
    assert np.array_equal(class_mask(ids, chosen) == 1, ids == chosen)


@quick
@given(seeds)
def test_instance_box_lacks_the_last_row_and_column(seed):
    ids = ids_map(seed)
    chosen = int(ids[20, 20])
    ys = [y for y in range(64) if chosen in ids[y].tolist()]
    xs = [x for x in range(64) if chosen in ids[:, x].tolist()]
    plain = [[int(ys[0] <= y < ys[-1] and xs[0] <= x < xs[-1]) for x in range(64)] for y in range(64)]
    assert instance_box(ids, chosen).tolist() == plain


def test_a_one_pixel_wide_instance_gives_an_empty_box():
    ids = np.zeros((8, 8), int)
    ids[2:6, 3] = 1
    assert instance_box(ids, 1).sum() == 0


def test_no_instance_falls_back_to_the_brush():
    ids = ids_map(0)
    pairs = [(random.Random(3), np.random.RandomState(3)) for _ in range(2)]
    box = make_mask("instance", *pairs[0], label=ids, inst=ids, chosen_label=0, chosen_inst=None)
    assert np.array_equal(box, make_mask("free_form", *pairs[1], label=ids, inst=ids, chosen_label=0, chosen_inst=None))


def test_none_erases_nothing():
    ids = ids_map(0)
    pair = random.Random(0), np.random.RandomState(0)
    assert make_mask("none", *pair, label=ids, inst=ids, chosen_label=0, chosen_inst=0).sum() == 0


@quick
@given(seeds)
def test_the_hash_sees_names_order_and_every_pixel(seed):
    mask = ids_map(seed) % 2
    other = mask.copy()
    other[seed % 64, seed // 64 % 64] ^= 1
    first = mask_set_hash([("a", mask), ("b", other)])
    assert len(first) == 12
    assert first == mask_set_hash([("a", mask.astype(np.float32)[None]), ("b", other)])
    others = ([("b", other), ("a", mask)], [("a", mask), ("c", other)], [("a", mask), ("b", mask)])
    assert len({first, *map(mask_set_hash, others)}) == 4


def test_mask_files(tmp_path):
    mask = extension(64)
    save_png(mask * 255, tmp_path / "1.png")
    save_png(mask, tmp_path / "0.png")
    files = mask_files(tmp_path, 2)
    assert [f.name for f in files] == ["0.png", "1.png"]
    assert all(np.array_equal(read_mask(f, 64), mask) for f in files)
    with pytest.raises(DataError, match="holds 2 PNG files, 3 samples"):
        mask_files(tmp_path, 3)
    with pytest.raises(DataError, match=r"0\.png: the mask is 64x64, --crop_size asks for 128x128"):
        read_mask(files[0], 128)
    save_png((np.arange(4096) % 256).astype(np.uint8).reshape(64, 64), files[1])
    with pytest.raises(DataError, match=r"1\.png: the mask holds 256 values"):
        read_mask(files[1], 64)
