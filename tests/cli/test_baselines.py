"""Fills without training: what each does, that none sees the truth, and their rows in an experiment's tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from options.experiment import read_experiment
from scripts import baselines, make_table, pack_benchmark, run_experiment
from testing.fills.networks import make_fill
from testing.fills.plain import FILLS
from testing.packs.forms import Picture
from testing.packs.pack import Pack, read_pack
from util.errors import DataError, UserError
from util.images import read_image

DATA = "--dataset_mode streets --crop_size 64 --streets_train_size 3 --streets_test_size 3 --num_workers 0".split()
MEASURE = ["--metrics", "l1,ssim", "--num_workers", "0", "--device", "cpu"]
OPENCV = ("telea", "navier_stokes")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("baselines") / "pack"
    assert pack_benchmark.main([*DATA, "--output", str(folder)]) == 0
    return read_pack(folder)


def fill(pack: Pack, name: str, item: Picture) -> np.ndarray:
    if name in OPENCV:
        try:
            import cv2  # noqa: F401
        except ImportError as error:
            pytest.skip(f"OpenCV does not load here: {error}")
    return make_fill(name, pack.class_colours, steps=2, device="cpu")(item)


def blind(item: Picture) -> Picture:
    return replace(item, image=np.where(item.mask[..., None], 0, item.image).astype(np.uint8))


@pytest.mark.parametrize("name", FILLS)
def test_a_fill_is_a_picture_and_the_same_each_time(pack: Pack, name: str) -> None:
    item = blind(pack.item("test_00001"))
    made = fill(pack, name, item)
    assert made.shape == item.image.shape and made.dtype == np.uint8
    assert np.array_equal(made, fill(pack, name, item))
    assert (made[item.mask] > 0).any()


def test_what_each_rule_says(pack: Pack) -> None:
    item = blind(pack.item("test_00001"))
    given = item.image[~item.mask]
    mean = fill(pack, "mean", item)[item.mask]
    assert (mean == np.round(given.mean(0))).all()
    rows, columns = np.nonzero(item.mask)
    others = np.argwhere(~item.mask)
    nearest = fill(pack, "nearest", item)
    for row, column in list(zip(rows, columns, strict=True))[::97]:
        distance = ((others - [row, column]) ** 2).sum(1)
        best = others[distance == distance.min()]
        assert any(np.array_equal(nearest[row, column], item.image[y, x]) for y, x in best)
    by_class = fill(pack, "class_mean", item)
    for label in np.unique(item.label[item.mask]):
        if int(label) in pack.class_colours:
            where = item.mask & (item.label == label)
            assert (by_class[where] == np.round(pack.class_colours[int(label)])).all()


def test_patches_are_of_their_class(pack: Pack) -> None:
    item = blind(pack.item("test_00001"))
    made = fill(pack, "patches", item)
    copied = 0
    for label in np.unique(item.label[item.mask]):
        seen = {tuple(colour) for colour in item.image[~item.mask & (item.label == label)]}
        if seen:
            filled = made[item.mask & (item.label == label)]
            assert all(tuple(colour) in seen for colour in filled)
            copied += len(filled)
    assert copied > item.mask.sum() / 2


@pytest.mark.parametrize("name", FILLS)
def test_nothing_given_and_nothing_to_fill(pack: Pack, name: str) -> None:
    item = blind(pack.item("test_00000"))
    whole = replace(item, mask=np.ones_like(item.mask), image=np.zeros_like(item.image))
    assert fill(pack, name, whole).shape == item.image.shape
    none = replace(item, mask=np.zeros_like(item.mask))
    assert np.array_equal(fill(pack, name, none), item.image)


def test_given_pixels_stay_and_masked_ones_are_not_seen(pack: Pack, tmp_path: Path) -> None:
    seen = []

    def spy(item: Picture) -> np.ndarray:
        seen.append(item.image[item.mask].max())
        return np.full_like(item.image, 7)

    baselines.write_fills(pack, spy, tmp_path, "spy")
    assert seen == [0, 0, 0]
    for name in pack.texts:
        item, made = pack.item(name), read_image(tmp_path / f"{name}.png")
        assert np.array_equal(made, np.where(item.mask[..., None], 7, item.image))


def test_metrics_of_instances_take_those_of_the_pack(pack: Pack, tmp_path: Path) -> None:
    usual = [str(pack.folder), "--checkpoints_dir", str(tmp_path), "--num_workers", "0", "--device", "cpu"]
    assert baselines.main([*usual, "--fill", "mean", "--metrics", "l1,style"]) == 0
    assert result(tmp_path / "mean/results/test_free_form")["metrics"]["style_colour"] > 0


def test_wrong_names_are_answered(pack: Pack, tmp_path: Path) -> None:
    usual = [str(pack.folder), "--checkpoints_dir", str(tmp_path), *MEASURE]
    with pytest.raises(UserError, match=r"--fill telia: unknown\. Known: telea, "):
        baselines.main([*usual, "--fill", "telia"])
    with pytest.raises(UserError, match="names one fill, --fill has 2"):
        baselines.main([*usual, "--fill", "mean", "nearest", "--name", "x"])
    with pytest.raises(UserError, match="give the row a name"):
        baselines.main([*usual, "--fill", "onnx:x.onnx"])


# --- networks given by file ------------------------------------------------------------------------------------------
def field(number: int, value: int | str | bytes) -> bytes:
    """Return a field of a protocol buffer, as ONNX files hold."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def tensor(name: str, *shape: int) -> bytes:
    """Return the declaration of a float tensor; sides of 0 are free."""
    dims = b"".join(field(1, field(1, n) if n else field(2, "side")) for n in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def onnx_model(path: Path, side: int = 0, channels: int = 3) -> str:
    """Write a model that adds the mask to the picture: masked pixels become white."""
    node = field(1, "picture") + field(1, "mask") + field(2, "out") + field(4, "Add")
    ends = field(11, tensor("picture", 1, channels, side, side)) + field(11, tensor("mask", 1, 1, side, side))
    graph = field(1, node) + field(2, "tiny") + ends + field(12, tensor("out", 1, channels, side, side))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 13)))
    return f"onnx:{path}"


def test_onnx_models_fill(pack: Pack, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="requirements-onnx.txt is not installed")
    item = blind(pack.item("test_00001"))
    made = fill(pack, onnx_model(tmp_path / "white.onnx"), item)
    assert (made[item.mask] == 255).all() and np.array_equal(made[~item.mask], item.image[~item.mask])
    with pytest.raises(DataError, match="is the pack of its --crop_size"):
        fill(pack, onnx_model(tmp_path / "other.onnx", side=32), item)
    with pytest.raises(UserError, match=r"takes picture .*; an inpainting model takes"):
        fill(pack, onnx_model(tmp_path / "two.onnx", channels=2), item)
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    for name, told in (("bad.onnx", "not an ONNX model"), ("none.onnx", "no such file")):
        with pytest.raises(UserError, match=told):
            fill(pack, f"onnx:{tmp_path / name}", item)


def test_pipelines_of_diffusers_fill(pack: Pack, tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="requirements-diffusion.txt is not installed")
    pytest.importorskip("transformers", reason="requirements-diffusion.txt is not installed")
    from models.networks.s2prest.tiny_diffusion import save_tiny

    folder, _ = save_tiny(tmp_path)
    item = blind(pack.item("test_00001"))
    made = fill(pack, f"diffusers:{folder}", item)
    assert made.shape == item.image.shape and made[item.mask].std() > 0
    assert np.array_equal(made, fill(pack, f"diffusers:{folder}", item))
    with pytest.raises(UserError, match="no inpainting pipeline can be loaded"):
        fill(pack, f"diffusers:{tmp_path}", item)


# --- rows of experiments ---------------------------------------------------------------------------------------------
EXPERIMENT = """
title: With baselines
train: {dataset_mode: streets, streets_train_size: 3, streets_test_size: 3, crop_size: 64, num_workers: 0, device: cpu,
        batch_size: 2, ngf: 4, ndf: 4, spm_hidden: 8, lambda_vgg: 0, max_steps: 0, image_every: 0, tensorboard: false}
test: {num_workers: 0, device: cpu, metrics: "l1,psnr,miou,seam", segmenter: streets, seed: 3}
tasks: [class]
rows:
  run: {label: SPMPGAN, train: {model: spmpgan}}
baselines: {mean: mean colour, patches: patches of the class}
"""


def test_baselines_are_rows_of_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, runs = tmp_path / "own.yaml", tmp_path / "runs"
    file.write_text(EXPERIMENT)
    usual = [str(file), "--checkpoints_dir", str(runs)]
    assert run_experiment.main([*usual, "--dry_run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in shown] == [
        "train.py", "test.py", *["scripts/pack_benchmark.py", "scripts/baselines.py"] * 2,
    ]  # fmt: skip
    assert "--ngf" not in shown[2] and "--seed 3" in shown[2] and "--segmenter streets" in shown[3]
    assert run_experiment.main(usual) == 0
    printed = capsys.readouterr().out
    assert printed.count("$ python scripts/pack_benchmark.py") == 1  # for both rows
    own, mean = (result(runs / name / "results" / "test_class") for name in ("run", "own_mean"))
    assert mean["protocol"]["mask_set"] == own["protocol"]["mask_set"] and mean["metrics"] != own["metrics"]
    assert mean["protocol"]["baseline"] == "mean" and mean["protocol"]["cpu_seconds_per_picture"] >= 0
    assert make_table.main(usual) == 0
    table = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")][2:] == [
        "| SPMPGAN", "| mean colour", "| patches of the class",
    ]  # fmt: skip
    assert run_experiment.main([*usual, "--only", "own_mean"]) == 0
    assert "# own_mean, class: already tested" in capsys.readouterr().out


def test_a_group_may_have_its_own_baselines_or_none(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    groups = "groups: {scenes: {}, city: {baselines: {telea: Telea}}, objects: {baselines: {}}}"
    file.write_text(f"{EXPERIMENT.replace('label: SPMPGAN', 'group: objects')}{groups}")
    rows = read_experiment(file, metrics=()).rows
    assert [row.name for row in rows if row.baseline] == ["own_scenes_mean", "own_scenes_patches", "own_city_telea"]
    assert {row.group for row in rows} == {"scenes", "city", "objects"}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def test_a_baseline_that_does_not_exist_stops_the_experiment_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(EXPERIMENT.replace("patches: patches", "patch: patches"))
    with pytest.raises(UserError, match=r"row own_patch, baselines\.py --task class: --fill patch: unknown"):
        run_experiment.main([str(tmp_path / "own.yaml"), "--checkpoints_dir", str(tmp_path / "runs")])
    assert not (tmp_path / "runs" / "run").exists()
