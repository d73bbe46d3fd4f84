"""S2PreST from the command line: what is refused, and with which words."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stylise_runs import QUICK, disc, make_styles, stylise, wrong

import test as test_command
import train as train_command
from models import MODELS
from scripts.build_style_bank import main as build_style_bank
from scripts.edit import main as edit
from util.errors import UserError
from util.images import save_png


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_styles(tmp_path_factory.mktemp("s2prest"))


def test_a_narrow_strip_is_refused_instead_of_computed_at_a_huge_size(home: Path) -> None:
    save_png(disc(40, 2000), home / "strip.png")
    told = wrong(home, "--size", "512", content="strip.png")
    assert "strip.png: 2000x40 would be computed at 25600x512" in told and "--no-keep_aspect" in told
    assert stylise(home, "--no-keep_aspect", "--metrics", "none", content="strip.png").is_dir()


def test_what_a_later_style_or_metric_lacks_is_told_before_the_first_picture(home: Path) -> None:
    shutil.copytree(home / "wiki_2", home / "wiki_4")
    for file in (home / "wiki_4").glob("*.pt"):
        file.unlink()
    shutil.rmtree(home / "results", ignore_errors=True)
    assert str(home / "wiki_4") in wrong(home, "--styles", "wiki_4")
    assert "--vgg_weights FILE" in wrong(home, "--metrics", "psnr,cfsd")
    assert not (home / "results").exists()


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
