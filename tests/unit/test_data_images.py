import io

import numpy as np
import pytest
import torch
from PIL import Image

from data.records import Maps
from data.transforms import nearest, scale_short_side
from util.errors import DataError
from util.images import (
    colour_labels,
    default_palette,
    picture_grid,
    read_id_map,
    read_image,
    read_labels_coloured,
    read_map,
    save_labels,
    save_png,
    to_tensor,
    to_uint8,
)


def picture(seed=0, size=(40, 48)):
    return np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)


def test_all_levels_survive_the_way_to_tensors_and_back():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = to_tensor(levels)
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.min() == -1
    assert tensor.max() == 1
    assert torch.equal(tensor[0, 0, 1], (torch.tensor(1.0) / 255 - 0.5) / 0.5)
    assert np.array_equal(to_uint8(tensor), levels)
    assert np.array_equal(to_uint8(torch.stack([tensor, -tensor])), np.stack([levels, 255 - levels]))


def test_values_beyond_the_range_are_clamped():
    assert to_uint8(torch.tensor([-1.2, 1.3, 0.0]).reshape(3, 1, 1)).ravel().tolist() == [0, 255, 128]


def test_png_round_trip_is_exact(tmp_path):
    save_png(picture(), tmp_path / "deep" / "a.png")
    assert np.array_equal(read_image(tmp_path / "deep" / "a.png"), picture())


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("keep", [0.6, 0.95])
def test_truncated_pictures_are_refused(tmp_path, ending, keep):
    stream = io.BytesIO()
    Image.fromarray(picture(size=(96, 96))).save(stream, format={"jpg": "JPEG", "png": "PNG"}[ending])
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(stream.getvalue()[: int(keep * len(stream.getvalue()))])
    with pytest.raises(DataError, match=rf"cut\.{ending}: the picture cannot be decoded"):
        read_image(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.jpg"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match=r"absent\.png: the label map does not exist"):
        read_map(tmp_path / "absent.png", "label map")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(deep)
    with pytest.raises(DataError, match="8 bit RGB"):
        read_image(deep)


def test_a_flipped_byte_in_a_png_is_found(tmp_path):
    path = tmp_path / "a.png"
    save_png(picture(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(path)


def test_maps_keep_their_ids_and_depth(tmp_path):
    ids = np.random.RandomState(0).randint(0, 30000, (9, 7)).astype(np.uint16)
    Image.fromarray(ids).save(tmp_path / "deep.png")
    deep = read_id_map(tmp_path / "deep.png", "instance map")
    assert deep.bits == 16
    assert deep.ids.dtype == np.int32
    assert np.array_equal(deep.ids, ids)
    small = (ids % 256).astype(np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    assert read_id_map(tmp_path / "small.png", "label map").bits == 8
    assert np.array_equal(read_map(tmp_path / "small.png", "label map"), small)


def test_palette_files_give_indices_not_colours(tmp_path):
    ids = np.array([[0, 3], [7, 200]], np.uint8)
    coloured = Image.new("P", (2, 2))
    coloured.putpalette(np.random.RandomState(0).randint(0, 256, 768).astype(np.uint8).tobytes())
    coloured.putdata(ids.ravel().tolist())
    coloured.save(tmp_path / "p.png")
    assert np.array_equal(read_map(tmp_path / "p.png", "label map"), ids)


def test_colours_are_refused_unless_they_are_ids(tmp_path):
    colours = np.array([[[1, 2, 3], [255, 0, 1]]], np.uint8)
    save_png(colours, tmp_path / "c.png")
    with pytest.raises(DataError, match=r"c\.png: the label map has colours"):
        read_map(tmp_path / "c.png", "label map")
    assert read_map(tmp_path / "c.png", "map", rgb_ids=True).tolist() == [[1 + 512 + 3 * 65536, 255 + 65536]]


def test_colour_labels():
    palette = default_palette(40)
    assert palette.shape == (40, 3)
    assert len({tuple(c) for c in palette.tolist()}) == 40
    coloured = colour_labels(np.array([[0, 39, 40, 255, -1]]), palette)
    assert coloured[0, :2].tolist() == palette[[0, 39]].tolist()
    assert coloured[0, 2:].tolist() == [[0, 0, 0]] * 3


@pytest.mark.parametrize("ids", [[0, 3, 8, 255], [0, 3, 8, -1], [0, 300, 8, 255]])
def test_saved_labels_are_ids_and_show_colours(ids, tmp_path):
    palette = default_palette(9)
    save_labels(np.array([ids]), palette, tmp_path / "l.png")
    found = read_map(tmp_path / "l.png", "label map")[0]
    assert found.tolist() == [255 if i < 0 else i for i in ids]
    shown = read_labels_coloured(tmp_path / "l.png")[0]
    assert np.array_equal(shown[0], palette[0])
    assert np.array_equal(shown[2], palette[8])
    assert max(ids) > 255 or not shown[3].any(), "what is no class is black"


def test_grid_enlarges_small_pictures_by_whole_pixels():
    small = picture(size=(64, 64))
    grid = picture_grid([[small, small[..., 0]], [small]], titles=["input", "mask"])
    assert grid.shape == (22 + 2 * 132 + 4, 2 * 132 + 4, 3)
    cell = grid[26 : 26 + 128, 4 : 4 + 128]
    assert np.array_equal(cell, small.repeat(2, 0).repeat(2, 1))
    assert (grid[:22] < 128).any(), "titles are drawn"
    assert (grid[160:, 140:] == 255).all(), "a missing cell stays white"


def test_grid_keeps_large_pictures():
    large = picture(size=(256, 341))
    assert picture_grid([[large]]).shape == (264, 349, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_nearest_takes_the_id_under_the_centre(dtype):
    ids = np.random.RandomState(0).randint(0, 250, (36, 48)).astype(dtype)
    assert np.array_equal(nearest(ids, 12, 16), ids[1::3, 1::3])
    assert np.array_equal(nearest(ids, 72, 96), ids.repeat(2, 0).repeat(2, 1))
    assert nearest(ids, 25, 33).dtype == dtype


def test_short_side():
    maps = Maps(picture(size=(120, 160)), np.zeros((120, 160), np.int32), None)
    assert scale_short_side(maps, 0) is maps
    assert scale_short_side(maps, 120) is maps
    scaled = scale_short_side(maps, 60)
    assert scaled.image.shape == (60, 80, 3)
    assert scaled.label.shape == (60, 80)
    stripes = Maps(np.tile(np.array([0, 255], np.uint8)[None, :, None], (120, 80, 3)), maps.label, None)
    assert abs(scale_short_side(stripes, 60).image.astype(int) - 127).max() < 40, "antialiased"
