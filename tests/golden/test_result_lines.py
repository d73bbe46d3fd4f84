"""Result lines, printed tables and protocols of each kind of test, as stored in `results/`.

Users compare these numbers and scripts read these lines: a change of the stored files needs a stated reason in its
commit. `python tests/golden/test_result_lines.py --update` writes them anew. Pictures and weights are exact
(`exact_inputs.py`), so that values agree on any processor; what belongs to the machine is left out (`frozen.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit("usage: python tests/golden/test_result_lines.py --update")
    os.environ["UPDATE_GOLDENS"] = "1"  # read by frozen.py
    sys.exit(pytest.main([__file__, "-n0"]))

from exact_inputs import exact_analogies, exact_edits, exact_styles, noise, scene, write_lpips, write_scenes, write_vgg
from frozen import check, without_machine

import test as test_command
import train as train_command
from models import MODELS
from scripts import evaluate, make_table, run_experiment
from util.images import save_png

QUICK = ["--num_workers", "0", "--device", "cpu"]
TINY = "--ngf 4 --ndf 4 --spm_hidden 8 --lambda_vgg 0 --batch_size 2 --crop_size 64"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in protocols are relative; Inception's weights are those of the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", "hub")


def train(*flags: str, name: str, steps: int = 0) -> None:
    more = ["--name", name, "--max_steps", str(steps), "--image_every", "0", "--no-tensorboard"]
    assert train_command.main([*flags, *more, *QUICK]) == 0


def lines_of(name: str) -> list[Any]:
    return [
        without_machine(json.loads(text)) for text in Path(f"checkpoints/{name}/metrics.jsonl").open(encoding="utf-8")
    ]


def test_editing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--dataset_mode", "custom", "--dataroot", str(write_scenes(Path("data"), train=2, test=6))]
    train("--model", "divsem", "--style_dim", "8", "--nef", "2", *TINY.split(), *data, name="run")
    exact_edits(monkeypatch, "divsem")
    capsys.readouterr()
    usual = ["--name", "run", "--batch_size", "4", *QUICK]
    everything = [
        "--metrics",
        "all",
        "--segmenter",
        "streets",
        "--per_class",
        "--intervals",
        "--num_samples",
        "2",
    ]
    for k in range(6):
        save_png(np.pad(np.full((24, 20 + 6 * k), 255, np.uint8), ((34, 6), (8, 36 - 6 * k))), Path(f"masks/{k}.png"))
    masks = ["--task", "folder", "--mask_dir", "masks"]
    assert test_command.main([*usual, *masks, *everything, *write_lpips(Path())]) == 0
    missing = ["--metrics", "all", "--inception_weights", "no.pth", "--lpips_weights", "no.pth"]
    assert test_command.main([*usual, "--task", "object_removal", *missing]) == 0
    assert test_command.main([*usual, "--task", "class", "--metrics", "none"]) == 0
    check("editing", {"lines": lines_of("run"), "printed": capsys.readouterr().out})


def test_analogy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    train(*MODELS.get("semia").tiny(Path()), name="run")
    exact_analogies(monkeypatch)
    capsys.readouterr()
    usual = ["--name", "run", "--metrics", "all", *QUICK]
    assert test_command.main([*usual, *write_lpips(Path())]) == 0
    assert test_command.main([*usual, "--inception_weights", "no.pth", "--lpips_weights", "no.pth"]) == 0
    check("analogy", {"lines": lines_of("run"), "printed": capsys.readouterr().out})


def test_stylising(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for library in ("diffusers", "transformers"):
        pytest.importorskip(library, reason="requirements-diffusion.txt is not installed")
    train(*MODELS.get("s2prest").tiny(Path()), name="run")
    shutil.copytree("checkpoints/run", "checkpoints/second")
    exact_styles(monkeypatch)
    for k in range(4):
        picture = noise(f"content {k}", 6, 6, 200).repeat(32, 0).repeat(32, 1) + noise(f"fine {k}", 192, 192)
        save_png(picture.astype(np.uint8), Path(f"contents/{k}.png"))
        save_png(np.pad(np.full((100 + k, 90), 255, np.uint8), ((0, 92 - k), (51, 51))), Path(f"masks/{k}.png"))
    capsys.readouterr()
    usual = ["--name", "run", "--content", "contents", "--size", "192", *QUICK]
    assert test_command.main([*usual, "--styles", "second"]) == 0
    files = [*write_lpips(Path()), "--masks", "masks"]
    assert test_command.main([*usual, "--metrics", "all", *files]) == 0
    files = [*write_vgg(Path(), monkeypatch), "--content", "contents/0.png", "--style_set", "contents"]
    assert test_command.main([*usual, "--metrics", "cfsd,style_loss,content_loss", *files]) == 0
    missing = ["--metrics", "all", "--inception_weights", "no.pth", "--lpips_weights", "no.pth"]
    assert test_command.main([*usual, *missing, "--content", "contents/0.png"]) == 0
    check("stylising", {"lines": lines_of("run"), "second": lines_of("second"), "printed": capsys.readouterr().out})


def test_folders(capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(4):
        picture, label, inst = scene(k)
        mask = np.zeros(label.shape, np.uint8)
        mask[: 16 * k, 8:60] = 255  # the first is empty
        save_png(picture, Path(f"real/{k}.png"))
        for fake, shift in (("fake", 7), ("fake_2", 12)):
            save_png(np.where(mask[..., None] > 0, np.roll(picture, shift, 1), picture), Path(f"{fake}/{k}.png"))
        save_png(np.roll(picture, 3, 1), Path(f"apart/apart_{k}.png"))
        for kind, array in (("masks", mask), ("labels", label), ("instances", inst)):
            save_png(array, Path(f"{kind}/{k}.png"))
    maps = [part for kind in ("masks", "labels", "instances") for part in (f"--{kind}", kind)]
    usual, cheap = (
        ["--real", "real", *QUICK],
        "miou,acc,class_acc,l1,psnr,ssim,l1_whole,psnr_whole,ssim_whole,lpips,div",
    )
    all_maps = ["--fake", "fake", "fake_2", *maps, "--segmenter", "streets", "--intervals", "--per_class"]
    found = []
    for flags in (
        [*all_maps, "--metrics", f"{cheap},seam,style", *write_lpips(Path())],
        ["--fake", "apart", "--metrics", "fid,kid,prdc", "--intervals", "--name", "apart"],
        ["--fake", "fake", "--metrics", "all", "--lpips_weights", "no.pth", "--inception_weights", "no.pth", "--masks",
         "masks", "--ignore_label", "3", "--task", "class"],
    ):  # fmt: skip
        assert evaluate.main([*usual, *flags, "--json", "out.json"]) == 0
        found.append(without_machine(json.loads(Path("out.json").read_text(encoding="utf-8"))))
    check("folders", {"lines": found, "printed": capsys.readouterr().out})


EXPERIMENT = """
title: Two methods
paper: A paper; its numbers second hand
train: {dataset_mode: custom, dataroot: data, crop_size: 64, num_workers: 0, batch_size: 2, device: cpu, ngf: 4, ndf: 4,
  spm_hidden: 8, lambda_vgg: 0, max_steps: 0, image_every: 0, tensorboard: false}
test: {num_workers: 0, device: cpu, metrics: "miou,psnr,seam", segmenter: streets, intervals: true}
tasks: [extension, class]
groups: {small: {label: 64 pixels}}
rows:
  base: {label: "SPMPGAN & co", group: small, train: {model: spmpgan}}
  ours:
    label: DivSem
    group: small
    train: {model: divsem, style_dim: 8, nef: 2}
    published: {extension: {psnr: 20.25, fid: 58.125, miou: 40}}
    provenance: "second hand: a note"
  later: {label: To come, group: small, train: {model: not_yet}}
next: that was all
"""


def test_experiment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(Path("data"), train=2, test=3)
    Path("two.yaml").write_text(EXPERIMENT)
    exact_edits(monkeypatch, "divsem", "spmpgan")
    assert run_experiment.main(["two.yaml"]) == 0
    out = capsys.readouterr().out
    found = {"run_experiment": out[out.index("\nTwo methods: ") :]}
    for style in ("markdown", "latex", "csv"):
        assert make_table.main(["two.yaml", "--format", style]) == 0
        found[style] = capsys.readouterr().out
    for name in ("base", "ours"):
        assert evaluate.main(["--summarise", f"checkpoints/{name}/metrics.jsonl"]) == 0
    check("experiment", found | {"summary": capsys.readouterr().out})
