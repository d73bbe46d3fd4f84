"""Exported styles: stylised with as the run that they are of, and loaded by diffusers as textual inversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from stylise_runs import disc, make_styles, result

import test as test_command
from models.diffusion_files import load_diffusion
from scripts import export
from util.errors import UserError
from util.images import read_image, save_png

QUICK = ["--device", "cpu", "--num_workers", "0"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_styles(tmp_path_factory.mktemp("s2prest"))


@pytest.fixture(scope="module")
def shared(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere") / "My_style"
    assert export.main(["--name", str(home / "wiki_1"), "--output", str(folder), *QUICK]) == 0
    return folder


def test_an_export_stylises_as_its_run(home: Path, shared: Path, tmp_path: Path) -> None:
    save_png(disc(64, 64), tmp_path / "square.png")
    models = [f"--{kind}_model={home / 'tiny_diffusion' / name}" for kind, name in (("base", "sd"), ("clip", "clip"))]
    flags = ["--content", str(tmp_path / "square.png"), "--size", "64", "--steps", "10", "--results_dir", str(tmp_path)]
    with pytest.raises(UserError, match="--base_model is missing"):  # it was a folder of the training machine
        test_command.main(["--name", f"{shared}/", *flags, *QUICK])
    assert test_command.main(["--name", f"{shared}/", *flags, *models, *QUICK]) == 0
    (picture,) = tmp_path.glob("My_style/*/stylized/square.png")
    assert np.array_equal(read_image(picture), result(home))
    text = (shared / "opt.yaml").read_text()
    assert "/" not in "".join(line.partition(":")[2] for line in text.splitlines())


def test_diffusers_loads_the_token_as_textual_inversion(home: Path, shared: Path) -> None:
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    tiny = home / "tiny_diffusion"
    pipeline = StableDiffusionPipeline.from_pretrained(tiny / "sd")
    pipeline.load_textual_inversion(shared)
    ((word, token),) = load_file(shared / "learned_embeds.safetensors").items()
    assert (word, token.shape) == ("<my-style>", (32,))
    with torch.no_grad():
        prompt, _ = pipeline.encode_prompt(word, "cpu", 1, False)
        torch.testing.assert_close(prompt, load_diffusion(str(tiny / "sd"), str(tiny / "clip")).condition(token[None]))
    made = pipeline(f"a boat by {word}", height=64, width=64, num_inference_steps=2, output_type="np").images
    assert made.shape == (1, 64, 64, 3)


def test_half_precision_and_what_the_card_says(home: Path, shared: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert export.main(["--name", str(home / "wiki_2"), "--output", str(tmp_path / "b"), "--half", *QUICK]) == 0
    ((_, token),) = load_file(tmp_path / "b" / "learned_embeds.safetensors").items()
    assert token.dtype == torch.float16
    card = (shared / "README.md").read_text()
    assert 'pipeline.load_textual_inversion("My_style")' in card and "a harbour by <my-style>" in card
    assert "textual_inversion" in yaml.safe_load(card.split("---")[1])["tags"]
    with pytest.raises(UserError, match="--graph onnx: only for divsem"):
        export.main(["--name", str(home / "wiki_1"), "--output", str(tmp_path / "g"), "--graph", "onnx", *QUICK])
