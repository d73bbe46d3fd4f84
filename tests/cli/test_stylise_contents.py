"""S2PreST from the command line: contents of any kind and size, masks, and their edge maps."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from stylise_runs import disc, make_styles, result, stylise, wrong

from testing.contents import Content, read_contents
from util.images import read_image, save_png
from util.pictures import resized


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_styles(tmp_path_factory.mktemp("s2prest"))


def test_keeping_the_aspect_ratio_is_not_squeezing(home: Path) -> None:
    kept, squeezed = (
        read_image(stylise(home, *flags, content="contents/wide.png") / "stylized" / "wide.png")
        for flags in ([], ["--no-keep_aspect"])
    )
    assert kept.shape == squeezed.shape == (64, 96, 3)
    assert not np.array_equal(kept, squeezed)


def test_edges_guide_alike_whatever_the_size_of_the_photograph(home: Path) -> None:
    """Released, a picture's edges fade with its size, as they are drawn thin and then shrunk."""
    small, canvas = disc(64, 64), (64, 64)
    save_png(small, home / "sizes" / "small.png")
    save_png(resized(small, (384, 384)), home / "sizes" / "large.png")
    darkness: dict[str, list[float]] = {}
    for side in ("working", "released"):
        maps = stylise(home, "--edge_side", side, "--metrics", "none", content="sizes") / "canny"
        assert read_image(maps / "large.png").shape == (384, 384, 3)
        drawn = [Content(name, home / "sizes" / f"{name}.png", (0, 0), "gradient", side, None, None).edges(canvas)
                 for name in ("small", "large")]  # fmt: skip
        darkness[side] = [float((255.0 - resized(each, canvas)).mean()) for each in drawn]
        assert np.array_equal(resized(read_image(maps / "small.png"), canvas), drawn[0])
    assert darkness["released"][0] == darkness["working"][0]
    assert darkness["released"][1] < 0.35 * darkness["released"][0]
    assert darkness["working"][1] == pytest.approx(darkness["working"][0], rel=0.2)  # scaled up and down


def test_masks_and_classes_of_label_maps_leave_the_rest_untouched(home: Path) -> None:
    content = disc(64, 64)
    labels = np.full((64, 64), 3, np.uint8)
    labels[:20], labels[50:] = 7, 200
    save_png(labels, home / "labels" / "square.png")
    whole = result(home)
    chosen = np.isin(labels, (7, 200))
    found = result(home, "--masks", str(home / "labels"), "--mask_classes", "7,200")
    assert np.array_equal(found[~chosen], content[~chosen])
    assert np.array_equal(found[chosen], whole[chosen])
    save_png((chosen * 255).astype(np.uint8), home / "mask.png")
    assert np.array_equal(found, result(home, "--masks", str(home / "mask.png"), "--metrics", "psnr,ssim"))
    line = json.loads((home / "wiki_1" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["details"]["psnr_whole"]["bins"]


def test_masks_without_a_pixel_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "half_empty"
    for name, size in (("wide", (64, 96)), ("square", (64, 64)), ("tall.v2", (200, 180))):
        save_png(np.full(size, 255 * (name == "wide"), np.uint8), folder / f"{name}.png")
    done = stylise(home, "--masks", str(folder), content="contents")
    assert "no white pixels for square, tall.v2 (2 of 3): returned as they are" in capsys.readouterr().out
    assert np.array_equal(read_image(done / "stylized/square.png"), disc(64, 64))
    assert not np.array_equal(read_image(done / "stylized/wide.png"), disc(64, 96))
    told = wrong(home, "--masks", str(folder), "--mask_classes", "9", content="contents")
    assert "no ids 9 of --mask_classes" in told and "nothing would be stylised" in told


def test_photographs_as_users_have_them(home: Path) -> None:
    """Turned by EXIF, of 16 bit, transparent: the plain picture's result, upright, and with the content's alpha."""
    plain, folder = disc(64, 96), home / "photos"
    alpha = np.linspace(0, 255, 64 * 96).reshape(64, 96).astype(np.uint8)
    save_png(plain, folder / "plain.png")
    save_png(np.dstack([plain, alpha]), folder / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    Image.fromarray(np.rot90(plain).copy()).save(folder / "turned.png", exif=exif)
    save_png(plain[..., 0], folder / "grey.png")
    save_png(plain[..., 0].astype(np.uint16) * 257, folder / "deep.png")
    done = stylise(home, "--metrics", "none", content="photos") / "stylized"
    for other, own in (("plain", "alpha"), ("plain", "turned"), ("grey", "deep")):
        assert np.array_equal(read_image(done / f"{other}.png"), read_image(done / f"{own}.png")), own
    assert np.array_equal(np.asarray(Image.open(done / "alpha.png"))[..., 3], alpha)
    assert Image.open(done / "plain.png").mode == "RGB"


def test_a_folder_of_contents_is_not_held_in_memory(tmp_path: Path) -> None:
    for k in range(8):
        save_png(disc(300, 300), tmp_path / f"{k}.png")
    tracemalloc.start()  # counts NumPy's arrays too
    try:
        contents = read_contents(
            SimpleNamespace(content=str(tmp_path), masks=None, mask_classes=None, edge="gradient", edge_side="working")
        )
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert [content.size for content in contents] == [(300, 300)] * 8
    assert held < 2 * 300 * 300 * 3
