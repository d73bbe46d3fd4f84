"""S2PreST from the command line on the tiny random pipeline: training, stylising, every flag."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from exact_inputs import write_lpips, write_vgg
from s2prest_tiny import tiny_controlnet
from stylise_runs import QUICK, disc, make_styles, result, stylise, wrong

import train as train_command
from metrics.pixels.stylisation import Stylisation
from models import MODELS
from models.networks.s2prest.tiny_diffusion import save_tiny
from options.test_options import TestOptions
from scripts import evaluate
from testing.stylising_flow import StylisingFlow
from util.images import read_image


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_styles(tmp_path_factory.mktemp("s2prest"))


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


def test_pictures_are_on_disk_before_they_are_measured(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> Any:
        raise ArithmeticError

    shutil.rmtree(home / "results", ignore_errors=True)
    monkeypatch.setattr(Stylisation, "score", fails)
    with pytest.raises(ArithmeticError):
        stylise(home, content="contents")
    assert len(list((home / "results" / "wiki_1").glob("wt_0.4*/stylized/*"))) == 3


def test_draws_are_those_of_the_seeds_that_follow_and_each_has_its_folder(home: Path) -> None:
    files = write_lpips(home)
    folder = stylise(home, "--num_samples", "2", "--metrics", "psnr,div", *files)
    assert folder.name == "wt_0.4_steps=10_size=64_num_samples=2"
    first, second = (read_image(folder / kind / "square.png") for kind in ("stylized", "stylized_2"))
    assert np.array_equal(first, result(home)) and np.array_equal(second, result(home, "--seed", "43"))
    line = json.loads((folder / "result.json").read_text())
    error = np.square(first.astype(float) - disc(64, 64)).mean()
    assert line["metrics"]["psnr_whole"] == pytest.approx(10 * np.log10(255**2 / error))
    assert line["metrics"]["div_whole"] > 0 and line["details"]["div_whole"]["draws"] == 2
    assert read_image(folder / "grid.png").shape[1] > read_image(stylise(home) / "grid.png").shape[1]


def test_a_controlnet_from_a_folder_guides(home: Path) -> None:
    tiny_controlnet().save_pretrained(home / "control")
    flags = ["--controlnet", str(home / "control"), "--metrics", "psnr"]
    folder = stylise(home, *flags)
    assert folder.name.startswith("wt_0.4_steps=10_size=64_controlnet=control-")
    assert not np.array_equal(read_image(folder / "stylized" / "square.png"), result(home))
    assert json.loads((folder / "result.json").read_text())["protocol"]["controlnet"] == str(home / "control")
    assert stylise(home, *flags, "--precision", "bf16", "--edge_mix", "0", "--cond_mix", "1").is_dir()
    tiny_controlnet(64).save_pretrained(home / "wide_control")
    told = wrong(home, "--controlnet", str(home / "wide_control"))
    assert "--controlnet is of another Stable Diffusion: it has conditioning of width 64, --base_model 32" in told
    assert "no such folder or file; needed is a folder with config.json" in wrong(home, "--controlnet", "./nowhere")


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


@pytest.mark.parametrize("side", [[], ["--metric_side", "48"]])
def test_folders_of_any_method_are_measured_as_a_runs_own_pictures(
    home: Path, side: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "psnr,ssim,ms_ssim,edge_f1,colour,lpips,cfsd,style_loss,content_loss,clip_loss"
    names += "" if side else ",fid,art_fid"  # once: Inception takes seconds
    metrics = ["--metrics", names, *side, *write_lpips(tmp_path), *write_vgg(tmp_path, monkeypatch)]
    clips = [str(home / "tiny_diffusion" / "clip"), str(save_tiny(home / "other", seed=1)[1])]
    folder = stylise(home, *metrics, "--results_dir", str(tmp_path), "--clip_loss_model", *clips, content="contents")
    own = json.loads((folder / "result.json").read_text())
    assert own["metrics"]["clip_loss"] != own["metrics"]["clip_loss_32_8"]
    assert len(own["metrics"]) == len(names.split(",")) + (0 if side else 1)  # too small for ms_ssim; two CLIPs
    flags = ["--content", str(home / "contents"), "--fake", str(folder / "stylized"), "--clip_model", *clips]
    style, out = ["--style", str(home / "wiki_1" / "style.png")], home / "theirs.json"
    assert evaluate.main([*flags, *style, *metrics, "--json", str(out), "--device", "cpu", "--num_workers", "0"]) == 0
    theirs = json.loads(out.read_text())
    assert theirs["metrics"] == pytest.approx(own["metrics"], rel=1e-5)
    assert ("48 pixels short side" in own["protocol"]["reference"]) == bool(side)


def test_a_run_resumes_where_its_style_picture_is_gone(home: Path) -> None:
    """The style picture is needed for training alone; testing reads the run's copy."""
    run = home / "wiki_3"
    shutil.copytree(home / "wiki_2", run)
    saved = yaml.safe_load((run / "opt.yaml").read_text())
    (run / "opt.yaml").write_text(yaml.safe_dump({**saved, "name": "wiki_3", "style_image": "/gone.png"}))
    assert stylise(home, name="wiki_3").is_dir()


def test_bf16_trains_and_draws_previews(home: Path) -> None:
    tiny = MODELS.get("s2prest").tiny(home)
    where = ["--name", "bf16", "--checkpoints_dir", str(home), "--precision", "bf16", "--max_steps", "2"]
    where += ["--image_every", "2"]
    assert train_command.main([*tiny, *where, *QUICK, "--log_every", "1"]) == 0
    first = [json.loads(line)["losses"]["E/mse"] for line in (home / "bf16" / "stats.jsonl").read_text().splitlines()]
    exact = [json.loads(line)["losses"]["E/mse"] for line in (home / "wiki_1" / "stats.jsonl").read_text().splitlines()]
    assert first != exact
    assert first == pytest.approx(exact, rel=0.02)
    drawn, drawn_exactly = (read_image(home / run / "images" / "step_0000002.png") for run in ("bf16", "wiki_1"))
    assert 0 < np.abs(drawn.astype(int) - drawn_exactly).mean() < 8
