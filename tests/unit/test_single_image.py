"""A single picture and its layouts: classes, files, augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from single_images import GRASS, SKY, dataset, write_example

from data.single_image import Reader, find_classes, find_picture, find_targets, padded, read_opaque
from data.single_image_dataset import SingleImageDataset
from data.warps import Augmentation, warp, warp_coordinates
from util.errors import DataError
from util.images import read_image, save_png


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_example(tmp_path / "data")


# --- layouts ----------------------------------------------------------------------------------------------------------
def test_classes_are_frequent_colours_that_are_apart() -> None:
    layout = np.zeros((50, 40, 3), np.uint8)
    layout[:, :20], layout[:, 20:] = SKY, GRASS
    layout[:5, 30:] = (20, 249, 10)  # a noisy shade of grass
    layout[0, 0] = (255, 0, 0)  # rare
    classes = find_classes(layout, "colours", 64.0)
    assert sorted(map(tuple, classes.colours.tolist())) == sorted([SKY, GRASS])
    assert len(find_classes(layout, "colours", 10.0).colours) == 3
    nearest = classes.nearest(layout)
    assert nearest[2, 35] == nearest[40, 35] != nearest[40, 5]
    assert set(classes.names) == {"#00fdff", "#00f900"}


@pytest.mark.parametrize("far", [False, True])
def test_a_target_may_differ_in_shade_but_not_show_a_new_colour(root: Path, far: bool) -> None:
    layout = read_image(root / "cond" / "low.png")
    layout[:10, :10] = (250, 10, 10) if far else (40, 249, 30)
    save_png(layout, root / "cond" / "other.png")
    data = dataset(root, targets=find_targets(root / "cond"))
    assert data.names == ["low", "other"]
    if far:
        with pytest.raises(DataError, match=r"other\.png: 4\.6 % of its pixels .* #fa0a0a.*--label_tolerance"):
            data[1]
    else:
        assert torch.equal(data[1]["target_label"][2, 2], data[1]["target_label"][39, 39])


def test_sketches_and_faces_are_layouts(tmp_path: Path) -> None:
    """A black line on white, and moved; parts of a face in ten colours, two of them alike."""
    rows, columns = np.mgrid[0:48, 0:48]

    def sketch(shift: int) -> np.ndarray:
        off = np.abs(np.hypot(rows - 24, columns - 24 - shift) - 14)
        return np.repeat(np.where(off < 1.5, 0, 255).astype(np.uint8)[..., None], 3, 2)

    parts = np.array([(0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204), (0, 255, 255),
                      (255, 204, 204), (102, 51, 0), (132, 51, 30)], np.uint8)  # fmt: skip
    face = parts[(rows // 10 * 2 + columns // 24) % 10]
    noise = np.random.RandomState(0).randint(0, 255, (48, 48, 3)).astype(np.uint8)
    cases = {"sketch": (sketch(0), sketch(4), 64.0, 2), "face": (face, face[:, ::-1], 20.0, 10)}
    for name, (label, target, tolerance, classes) in cases.items():
        save_png(noise, tmp_path / name / "img.png")
        save_png(label, tmp_path / name / "label.png")
        save_png(target, tmp_path / name / "cond" / "other.png")
        known = SingleImageDataset(
            root=tmp_path / name, targets=find_targets(tmp_path / name / "cond"),
            reader=Reader("colours", 1.0), tolerance=tolerance,
        )  # fmt: skip
        assert known.label_nc == classes
        assert (known[0]["target_label"] != known[0]["label"]).float().mean() > 0.05


def test_ids_make_one_hot_layouts(root: Path) -> None:
    for name in ("label", "cond/low"):
        ids = (read_image(root / f"{name}.png")[..., 2] > 0) * 4 + 3
        save_png(ids.astype(np.uint8), root / f"{name}.png")
    data = dataset(root, reader=Reader("ids", 1.0), targets=[root / "cond" / "low.png"])
    assert data.class_names == ["id 3", "id 7"]
    item = data[0]
    assert item["seg"].shape == (2, 40, 48)
    assert set(item["seg"].unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(item["seg"].argmax(0), item["label"])
    save_png(np.full((41, 53), 5, np.uint8), root / "cond" / "low.png")
    with pytest.raises(DataError, match="id 5 is not in the source's layout"):
        data[0]


def test_alignment_snaps_every_pixel(root: Path) -> None:
    layout = read_image(root / "label.png")
    layout[19:21] = (0, 251, 120)  # an antialiased border
    save_png(layout, root / "label.png")
    plain, aligned = (dataset(root, align=align, augmentation=Augmentation()) for align in (False, True))
    colours = {tuple(c) for c in aligned.layouts.colours.tolist()}
    shown = [
        {tuple(c) for c in ((d[(999, 0)]["target_seg"] + 1) * 127.5).round().int().flatten(1).T.tolist()}
        for d in (plain, aligned)
    ]
    assert shown[1] == colours < shown[0]


# --- files ------------------------------------------------------------------------------------------------------------
def test_files_that_cannot_be_used_are_told(root: Path) -> None:
    with pytest.raises(DataError, match=r"no img\.\*"):
        find_picture(root / "cond", "img")
    Image.fromarray(read_image(root / "img.png")).save(root / "img.jpg")
    with pytest.raises(DataError, match=r"img\.jpg, img\.png; keep one"):
        find_picture(root, "img")
    (root / "img.png").unlink()
    assert dataset(root).image_path.name == "img.jpg"
    with pytest.raises(DataError, match="no target layouts"):
        find_targets(root / "none")
    save_png(read_image(root / "cond" / "low.png"), root / "cond" / "low.bmp")
    with pytest.raises(DataError, match="two files are called low"):
        find_targets(root / "cond")


def test_sizes_must_be_equal_and_large_enough(root: Path) -> None:
    small = write_example(root / "small", size=(39, 60))
    with pytest.raises(DataError, match=r"32 pixels a side are needed"):
        dataset(small, reader=Reader("colours", 0.8))
    data = dataset(root, targets=[small / "cond" / "low.png"])
    with pytest.raises(DataError, match=r"low\.png is 60x39, .*label\.png is 53x41"):
        data[0]
    save_png(read_image(small / "label.png"), root / "label.png")
    with pytest.raises(DataError, match=r"label\.png is 60x39, .*img\.png is 53x41"):
        dataset(root)


@pytest.mark.parametrize(
    ("alpha", "pixels", "note"), [(255, 159, ""), (100, 40, "1.84 %"), (100, 159, "laid on white")]
)
def test_alpha_is_left_out_or_laid_on_white(
    root: Path, capsys: pytest.CaptureFixture[str], alpha: int, pixels: int, note: str
) -> None:
    """The authors' examples have up to 1.7 % of antialiased pixels."""
    layout = read_image(root / "label.png")
    channel = np.full((*layout.shape[:2], 1), 255, np.uint8)
    channel.reshape(-1)[:pixels] = alpha
    save_png(np.concatenate([layout, channel], 2), root / "label.png")
    found = read_opaque(root / "label.png")
    told = capsys.readouterr().out
    assert note in told if note else not told
    where = (channel < 255)[..., 0]
    assert np.array_equal(found[~where], layout[~where])
    if note == "laid on white":
        wanted = layout[where] * (100 / 255) + 155
        assert np.abs(found[where] - wanted).max() <= 0.5
    else:
        assert np.array_equal(found, layout)


@pytest.mark.parametrize(("resize", "size"), [(1.0, (40, 48)), (0.9, (32, 48)), (2.0, (80, 104))])
def test_size_is_scaled_then_cut_to_multiples_of_8(root: Path, resize: float, size: tuple[int, int]) -> None:
    item = dataset(root, reader=Reader("colours", resize))[0]
    assert item["image"].shape == (3, *size)
    assert item["target_label"].shape == size
    assert padded(np.zeros((33, 40, 3))).shape == (40, 40, 3)


# --- augmentation -----------------------------------------------------------------------------------------------------
def test_augmentation_grows_and_depends_on_its_key_alone(root: Path) -> None:
    data, again = (dataset(root, augmentation=Augmentation(), stable_steps=100) for _ in range(2))
    late = [data[(epoch, 0)]["target_image"] for epoch in range(100, 112)]
    assert all(torch.equal(a, again[(100 + k, 0)]["target_image"]) for k, a in enumerate(late))
    assert not torch.equal(late[0], late[1])
    first = [data[(epoch, 0)]["target_image"] for epoch in range(12)]
    original = data[0]["image"]
    change = [torch.stack([(x - original).abs().mean() for x in xs]).mean().item() for xs in (first, late)]
    assert change[0] < 0.5 * change[1]
    assert not torch.equal(dataset(root, augmentation=Augmentation(), stable_steps=100, seed=1)[(100, 0)]["target_image"], late[0])  # fmt: skip  # noqa: E501


def test_picture_and_layout_are_warped_alike() -> None:
    rng = np.random.RandomState(0)
    layout = np.where(np.arange(64)[:, None] > 30, 200, 20).astype(np.uint8).repeat(60, 1)
    picture = np.stack([layout] * 3, -1)
    for _ in range(8):
        moved, ids = Augmentation(warp=0.05)([picture, layout], rng, 1.0, nearest=[False, True])
        assert set(np.unique(ids)) <= {20, 200}
        assert (np.abs(moved[..., 0].astype(int) - ids) > 90).mean() < 0.02


@pytest.mark.parametrize("strength", [0, 0.4])
@pytest.mark.parametrize("size", [(50, 70), (64, 64)])
def test_the_last_bits_of_the_spline_do_not_reach_a_warped_picture(size: tuple[int, int], strength: float) -> None:
    rng = np.random.RandomState(0)
    picture = np.stack([*(3 * np.mgrid[: size[0], : size[1]]), rng.randint(0, 256, size)], -1).astype(np.uint8)
    layout = rng.randint(0, 9, size).astype(np.uint8)
    exact = warp_coordinates(*size, strength * rng.uniform(-1, 1, (9, 2)))
    for _ in range(5):
        other = exact * (1 + 1e-9 * rng.standard_normal(exact.shape))
        assert np.array_equal(warp(picture, other), warp(picture, exact))
        assert np.array_equal(warp(layout, other, nearest=True), warp(layout, exact, nearest=True))


def test_a_warp_without_moves_is_none_for_odd_sizes() -> None:
    picture = np.random.RandomState(0).randint(0, 256, (31, 45, 3), dtype=np.uint8)
    assert np.array_equal(warp(picture, warp_coordinates(31, 45, np.zeros((9, 2)))), picture)
