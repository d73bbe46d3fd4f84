"""S2PreST from the command line on the tiny random pipeline: train, stylise, every flag, every refusal."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import test as test_command
import train as train_command
from metrics.pixels.stylisation import Stylisation
from models import MODELS
from options.test_options import TestOptions
from scripts import evaluate
from scripts.build_style_bank import main as build_style_bank
from scripts.edit import main as edit
from testing.contents import Content, read_contents
from testing.stylising_flow import StylisingFlow
from util.errors import UserError
from util.images import read_image, save_png
from util.pictures import resized

for library in ("diffusers", "transformers"):
    pytest.importorskip(library, reason="requirements-diffusion.txt is not installed")

QUICK = ["--num_workers", "0", "--no-tensorboard", "--device", "cpu"]


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - height / 2, x - width / 2) < min(height, width) / 3
    return np.stack([np.where(inside, 220, 40 + x), np.where(inside, 60, 90 + y), 200 - x], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny pipeline, two trained styles and three contents."""
    home = tmp_path_factory.mktemp("s2prest")
    tiny = MODELS.get("s2prest").tiny(home)
    second = home / "second.png"
    save_png(disc(50, 90)[::-1], second)
    for name, more in (("wiki_1", []), ("wiki_2", ["--style_image", str(second)])):
        steps = ["--max_steps", "2", "--image_every", "2", "--log_every", "1"]
        assert train_command.main([*tiny, *more, *QUICK, *steps, "--name", name, "--checkpoints_dir", str(home)]) == 0
    for name, size in (("wide", (64, 96)), ("square", (64, 64)), ("tall.v2", (200, 180))):
        save_png(disc(*size), home / "contents" / f"{name}.png")
    return home


def stylise(home: Path, *args: str, name: str = "wiki_1", content: str = "contents/square.png") -> Path:
    """Run test.py in seconds; return the folder of its pictures."""
    where = ["--name", name, "--checkpoints_dir", str(home), "--results_dir", str(home / "results")]
    usual = ["--content", str(home / content), "--size", "64", "--steps", "10", "--device", "cpu"]
    assert test_command.main([*where, *usual, *args]) == 0
    return StylisingFlow.results_folder(TestOptions().parse([*where, *usual, *args]))


def result(home: Path, *args: str) -> np.ndarray:
    return read_image(stylise(home, *args) / "stylized" / "square.png")


def test_training_leaves_the_style_picture_the_preview_and_only_the_style_network(home: Path) -> None:
    run = home / "wiki_2"
    assert np.array_equal(read_image(run / "style.png"), disc(50, 90)[::-1])
    saved = yaml.safe_load((run / "opt.yaml").read_text())
    assert (saved["dataset_mode"], saved["clip_input"], saved["seed"], saved["lr"]) == ("style_image", "rgb", 23, 1e-3)
    assert set(torch.load(run / "latest.pt", weights_only=True)["model"]) == {"netE"}
    assert read_image(run / "images" / "step_0000002.png").shape[2] == 3
    defaults = MODELS.get("s2prest").tiny(home)
    from options.train_options import TrainOptions

    opt = TrainOptions().parse([*defaults[:8], "--name", "x"])
    assert (opt.max_steps, opt.batch_size, opt.crop_size, opt.lr, opt.save_every) == (6100, 1, 512, 1e-4, 500)


def test_a_folder_of_contents_of_any_shape_by_two_styles_at_once(home: Path) -> None:
    shutil.rmtree(home / "results", ignore_errors=True)
    folder = stylise(home, "--styles", "wiki_2", "--batch_size", "2", content="contents")
    for kind in ("stylized", "canny"):
        for name, size in (("wide", (64, 96)), ("square", (64, 64)), ("tall.v2", (200, 180))):
            assert read_image(folder / kind / f"{name}.png").shape == (*size, 3)
    other = home / "results" / "wiki_2" / folder.name
    assert (read_image(folder / "stylized/wide.png") != read_image(other / "stylized/wide.png")).any()
    assert np.array_equal(read_image(folder / "canny/wide.png"), read_image(other / "canny/wide.png"))
    shown = {"stylized", "canny", "grid.png", "report.html", "result.json"}
    assert {p.name for p in folder.iterdir() if p.name[0] != "."} == shown
    line = json.loads((folder / "result.json").read_text())
    assert len(line.pop("per_picture")["names"]) == len(line.pop("pictures")["erased"]) == 3
    assert line.pop("influence")["values"].keys() == {"colour", "edge_f1", "psnr_whole", "ssim_whole"}
    assert line == json.loads((home / "wiki_1" / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(line) == {"metrics", "details", "step", "task", "num_images", "protocol"}
    assert (line["step"], line["task"], line["num_images"]) == (2, "stylise", 3)
    assert line["metrics"].keys() == {"psnr_whole", "ssim_whole", "ms_ssim", "edge_f1", "colour"}
    assert line["details"]["ms_ssim"]["count"] == 1  # the others are too small for five scales
    assert line["protocol"]["coefficients"]["strength"] == 0.4
    assert line["protocol"]["seed"] == 42
    alone = read_image(stylise(home, "--batch_size", "1", content="contents/wide.png") / "stylized" / "wide.png")
    together = read_image(folder / "stylized" / "wide.png")
    assert np.abs(alone.astype(int) - together).max() <= 1


@pytest.mark.parametrize(
    "flags",
    ["--cond_mix 0", "--cond_mix 0.3,0.3,0.4", "--latent adain", "--token style",
     "--latent_mix 0.1", "--edge_mix 0", "--steps 20", "--guidance 1", "--edge canny", "--seed 1",
     "--match_noise_level", "--size 96", "--precision bf16"],
)  # fmt: skip
def test_each_flag_has_its_effect(home: Path, flags: str) -> None:
    usual = result(home)
    assert np.array_equal(usual, result(home))
    assert not np.array_equal(usual, result(home, *flags.split()))


def test_memory_flags_and_aspect_of_a_square_change_nothing(home: Path) -> None:
    usual = result(home).astype(int)
    assert np.abs(result(home, "--attention_slicing") - usual).max() <= 1
    assert np.array_equal(result(home, "--offload", "--no-keep_aspect"), usual)


def test_a_narrow_strip_is_refused_instead_of_computed_at_a_huge_size(home: Path) -> None:
    save_png(disc(40, 2000), home / "strip.png")
    told = wrong(home, "--size", "512", content="strip.png")
    assert "strip.png: 2000x40 would be computed at 25600x512" in told and "--no-keep_aspect" in told
    assert stylise(home, "--no-keep_aspect", "--metrics", "none", content="strip.png").is_dir()


def test_pictures_are_on_disk_before_they_are_measured(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> Any:
        raise ArithmeticError

    shutil.rmtree(home / "results", ignore_errors=True)
    monkeypatch.setattr(Stylisation, "score", fails)
    with pytest.raises(ArithmeticError):
        stylise(home, content="contents")
    assert len(list((home / "results" / "wiki_1").glob("wt_0.4*/stylized/*"))) == 3


def test_a_second_style_is_mixed_in(home: Path) -> None:
    second = ["--second_style", str(home / "second.png"), "--style_mix"]
    usual, whole, half, none = result(home), *(result(home, *second, share) for share in ("1", "0.5", "0"))
    assert np.array_equal(usual, whole)
    assert not np.array_equal(half, usual) and not np.array_equal(half, none)
    assert np.array_equal(half, result(home, *second[:2]))


def test_strength_names_the_folder_and_one_is_allowed(home: Path) -> None:
    folder = stylise(home, "--style_guidance", "1")
    assert folder.name == "wt_1_steps=10_size=64" and (folder / "stylized" / "square.png").is_file()


def test_results_of_other_flags_have_folders_of_their_own(tmp_path: Path) -> None:
    def folder(*flags: str) -> str:
        run = ["--model", "s2prest", "--name", "r", "--content", "c", "--base_model", "b", "--clip_model", "c"]
        return StylisingFlow.results_folder(
            TestOptions().parse([*run, "--checkpoints_dir", str(tmp_path), *flags])
        ).name

    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "opt.yaml").write_text("model: s2prest\ndataset_mode: style_image\n")
    assert folder() == folder("--batch_size", "3", "--device", "cpu") == "wt_0.4"
    masks = [folder("--masks", place) for place in ("a/masks", "b/masks")]
    assert masks[0] != masks[1] and all(name.startswith("wt_0.4_masks=masks-") for name in masks)
    flags = "--guidance 7.5 --edge canny --no-keep_aspect --match_noise_level --seed 1 --step 100"
    assert folder(*flags.split()) == (
        "wt_0.4_guidance=7.5_match_noise_level=on_edge=canny_keep_aspect=off_seed=1_step=100"
    )


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


@pytest.mark.parametrize("side", [[], ["--metric_side", "48"]])
def test_folders_of_any_method_are_measured_as_a_runs_own_pictures(home: Path, side: list[str], tmp_path: Path) -> None:
    metrics = ["--metrics", "psnr,ssim,edge_f1,colour,clip_loss", *side]
    folder = stylise(home, *metrics, "--results_dir", str(tmp_path), content="contents")
    own = json.loads((folder / "result.json").read_text())
    clip = home / "tiny_diffusion" / "clip"
    flags = ["--content", str(home / "contents"), "--fake", str(folder / "stylized"), "--clip_model", str(clip)]
    style, out = ["--style", str(home / "wiki_1" / "style.png")], home / "theirs.json"
    assert evaluate.main([*flags, *style, *metrics, "--json", str(out), "--device", "cpu", "--num_workers", "0"]) == 0
    theirs = json.loads(out.read_text())
    assert theirs["metrics"] == pytest.approx(own["metrics"], rel=1e-5)
    assert ("48 pixels short side" in own["protocol"]["reference"]) == bool(side)


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


def test_what_a_later_style_or_metric_lacks_is_told_before_the_first_picture(home: Path) -> None:
    shutil.copytree(home / "wiki_2", home / "wiki_4")
    for file in (home / "wiki_4").glob("*.pt"):
        file.unlink()
    shutil.rmtree(home / "results", ignore_errors=True)
    assert str(home / "wiki_4") in wrong(home, "--styles", "wiki_4")
    assert "--vgg_weights FILE" in wrong(home, "--metrics", "psnr,cfsd")
    assert not (home / "results").exists()


def test_a_run_resumes_where_its_style_picture_is_gone(home: Path) -> None:
    """The style picture is needed for training alone; testing reads the run's copy."""
    run = home / "wiki_3"
    shutil.copytree(home / "wiki_2", run)
    saved = yaml.safe_load((run / "opt.yaml").read_text())
    (run / "opt.yaml").write_text(yaml.safe_dump({**saved, "name": "wiki_3", "style_image": "/gone.png"}))
    assert stylise(home, name="wiki_3").is_dir()


def wrong(home: Path, *args: str, content: str = "contents/square.png", name: str = "wiki_1") -> str:
    with pytest.raises(UserError) as caught:
        stylise(home, *args, content=content, name=name)
    return str(caught.value)


def test_wrong_use_of_test_is_told(home: Path) -> None:
    for strength in ("1.5", "0", "-1", "nan"):
        assert "--style_guidance" in wrong(home, "--style_guidance", strength)
    assert "does no step" in wrong(home, "--style_guidance", "0.05")
    assert "at most 500" in wrong(home, "--steps", "501")
    assert "--latent_mix 1.5 is not in [0, 1]" in wrong(home, "--latent_mix", "1.5")
    for shares in ("0.5,0.5", "0.5,0.5,0.5", "2", "a,b,c"):
        assert "--cond_mix" in wrong(home, "--cond_mix", shares)
    assert "--style_mix needs --second_style" in wrong(home, "--style_mix", "0.5")
    assert "trained with --clip_input rgb, not legacy" in wrong(home, "--clip_input", "legacy")
    assert "--size 8: this base model needs at least 16" in wrong(home, "--size", "8")
    assert "no such file or folder" in wrong(home, content="nothing")
    (home / "empty").mkdir()
    assert "no picture there" in wrong(home, content="empty")
    assert "Did you mean 'wiki_2'" in wrong(home, "--styles", "wiki_22")
    assert "--mask_classes needs --masks" in wrong(home, "--mask_classes", "3")
    assert "'pnsr' is unknown. Did you mean 'psnr'" in wrong(home, "--metrics", "pnsr")
    assert "--vgg_weights FILE" in wrong(home, "--metrics", "cfsd")
    save_png(disc(20, 64), home / "small.png")
    assert "small.png: 64x20; a content needs at least 32" in wrong(home, content="small.png")
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(home / "other.png")
    assert "is 10x10, its content 64x64" in wrong(home, "--masks", str(home / "other.png"))
    assert "is one file for 3 contents" in wrong(home, "--masks", str(home / "other.png"), content="contents")
    save_png(np.full((64, 64), 3, np.uint8), home / "ids.png")
    assert "label maps need --mask_classes" in wrong(home, "--masks", str(home / "ids.png"))
    where = ["--name", "wiki_1", "--checkpoints_dir", str(home)]
    for command in (edit, build_style_bank):
        flags = ["--image", "a", "--label", "b", "--output", "c"] if command is edit else []
        with pytest.raises(UserError, match=r"stylise pictures with test\.py"):
            command([*where, *flags])
    with pytest.raises(UserError, match="--content is missing"):
        test_command.main(where)
    with pytest.raises(UserError, match="--task: invalid choice: 'free_form'"):
        test_command.main([*where, "--task", "free_form"])


def test_a_style_of_another_base_model_is_refused(home: Path) -> None:
    from models.networks.s2prest.tiny_diffusion import save_tiny

    base, clip = save_tiny(home / "other", seed=1)
    assert "trained with another --base_model" in wrong(home, "--base_model", str(base))
    assert "trained with another --clip_model" in wrong(home, "--clip_model", str(clip))
    moved = home / "moved"
    shutil.copytree(home / "tiny_diffusion" / "sd", moved)
    assert stylise(home, "--base_model", str(moved)).is_dir()  # the same model elsewhere
    broken = home / "broken"
    shutil.copytree(moved, broken)
    shutil.rmtree(broken / "unet")
    told = wrong(home, "--base_model", str(broken))
    assert str(broken) in told and "vae/, unet/, text_encoder/ and tokenizer/" in told


def test_a_resumed_run_keeps_its_style_base_model_and_clip_input(home: Path) -> None:
    from models.networks.s2prest.tiny_diffusion import save_tiny

    save_png(disc(64, 64), home / "another.png")
    base, _ = save_tiny(home / "other", seed=1)
    options = (home / "wiki_2" / "opt.yaml").read_bytes()
    again = ["--name", "wiki_2", "--checkpoints_dir", str(home), "--continue_train", "--max_steps", "3"]
    for flags, told in (
        (["--style_image", str(home / "another.png")], "another picture than"),
        (["--base_model", str(base)], "trained with another --base_model"),
        (["--clip_input", "legacy"], "trained with --clip_input rgb, not legacy"),
    ):
        with pytest.raises(UserError, match=told):
            train_command.main([*again, *flags])
    assert torch.load(home / "wiki_2" / "latest.pt", weights_only=True)["step"] == 2
    assert (home / "wiki_2" / "opt.yaml").read_bytes() == options


def test_bf16_trains(home: Path) -> None:
    tiny = MODELS.get("s2prest").tiny(home)
    where = ["--name", "bf16", "--checkpoints_dir", str(home), "--precision", "bf16", "--max_steps", "2"]
    assert train_command.main([*tiny, *where, *QUICK, "--log_every", "1"]) == 0
    first = [json.loads(line)["losses"]["E/mse"] for line in (home / "bf16" / "stats.jsonl").read_text().splitlines()]
    exact = [json.loads(line)["losses"]["E/mse"] for line in (home / "wiki_1" / "stats.jsonl").read_text().splitlines()]
    assert first != exact
    assert first == pytest.approx(exact, rel=0.02)


def train_wrong(home: Path, **changed: Any) -> str:
    tiny = MODELS.get("s2prest").tiny(home)
    flags = dict(zip(tiny[::2], tiny[1::2], strict=True))
    flags |= {f"--{key}": str(value) for key, value in changed.items()}
    args = [part for key, value in flags.items() if value != "None" for part in (key, value)]
    with pytest.raises(UserError) as caught:
        train_command.main([*args, *QUICK, "--name", "wrong", "--checkpoints_dir", str(home), "--max_steps", "1"])
    return str(caught.value)


def test_wrong_use_of_train_is_told(home: Path) -> None:
    assert "--base_model is missing: Stable Diffusion v1" in train_wrong(home, base_model=None)
    assert "--clip_model is missing" in train_wrong(home, clip_model=None)
    assert "--style_image is missing" in train_wrong(home, style_image=None)
    told = train_wrong(home, base_model=home / "nowhere")
    assert "no such folder or file" in told and "CompVis/stable-diffusion-v1-4" in told
    assert "--clip_model" in train_wrong(home, clip_model=home / "wiki_1")
    text_only = home / "tiny_diffusion" / "sd" / "text_encoder"
    assert "openai/clip-vit-large-patch14" in train_wrong(home, clip_model=text_only)
    assert "takes --dataset_mode style_image, not streets" in train_wrong(home, dataset_mode="streets")
    assert "is a folder; name one picture" in train_wrong(home, style_image=home)
    save_png(disc(16, 64), home / "tiny_style.png")
    assert "64x16; a style picture needs at least 32" in train_wrong(home, style_image=home / "tiny_style.png")
    with pytest.raises(UserError, match=r"--model divsem takes --dataset_mode .*streets, not style_image"):
        train_command.main(["--model", "divsem", "--dataset_mode", "style_image", "--name", "x"])
