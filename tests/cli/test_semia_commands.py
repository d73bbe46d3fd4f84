"""SemIA by its commands: train, resume, test, edit, and what cannot be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import test as test_command
import train as train_command
from models.semia_model import SemIAModel
from scripts import benchmark, edit, prepare_analogy, prepare_objects, train_segmenter
from util.errors import UserError
from util.images import read_image, save_png

QUICK = ["--num_workers", "0", "--image_every", "0", "--no-tensorboard", "--device", "cpu"]


def train(tmp_path: Path, name: str, *args: str) -> Path:
    where = ["--checkpoints_dir", str(tmp_path), "--name", name]
    assert train_command.main([*SemIAModel.tiny(tmp_path), *where, *QUICK, *args]) == 0
    return tmp_path / name


def run_test(tmp_path: Path, name: str, *args: str) -> dict[str, Any]:
    where = ["--checkpoints_dir", str(tmp_path), "--name", name, "--num_workers", "0", "--device", "cpu"]
    assert test_command.main([*where, *args]) == 0
    return json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, in `<path>/run`."""
    path = tmp_path_factory.mktemp("semia")
    train(path, "run", "--max_steps", "2")
    return path


def test_training_resumes_bit_for_bit_and_improves_the_reconstruction(tmp_path: Path) -> None:
    steps = ["--log_every", "1", "--save_every", "15", "--ema", "0.9", "--lr", "0.005"]
    train(tmp_path, "whole", "--max_steps", "30", *steps)
    train(tmp_path, "parts", "--max_steps", "16", *steps)
    assert train_command.main(["--name", "parts", "--checkpoints_dir", str(tmp_path), "--continue_train", *QUICK,
                               "--max_steps", "30"]) == 0  # fmt: skip
    states = [torch.load(tmp_path / name / "latest.pt", weights_only=True) for name in ("whole", "parts")]
    for part in ("model", "ema"):
        for net, values in states[0][part].items():
            assert all(torch.equal(value, states[1][part][net][key]) for key, value in values.items()), net
    for name, optimizer in states[0]["optimizers"].items():
        assert str(optimizer) == str(states[1]["optimizers"][name])
    lines = [(tmp_path / name / "stats.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    losses = [[json.loads(line)["losses"] for line in each] for each in lines]
    assert losses[0] == losses[1]
    rec = [each["G/rec"] for each in losses[0] if "G/rec" in each]
    assert np.mean(rec[-5:]) < 0.6 * rec[0]
    train(tmp_path, "untrained", "--max_steps", "0")
    before, after = (run_test(tmp_path, name, "--raw_weights")["metrics"] for name in ("untrained", "whole"))
    assert after["l1_rec"] < 0.6 * before["l1_rec"]


def test_every_target_has_a_picture_and_a_strip(trained: Path) -> None:
    line = run_test(trained, "run", "--metrics", "l1,psnr,ssim,layout")
    folder = trained / "run" / "results" / "analogy"
    pictures = {"disc.png", "higher.png", "disc_strip.png", "higher_strip.png", "grid.png"}
    assert {path.name for path in folder.glob("*.png")} == pictures
    assert read_image(folder / "disc.png").shape == (40, 48, 3)
    strip = read_image(folder / "disc_strip.png")
    assert strip.shape[1] > 4 * 48
    assert (folder / "report.html").stat().st_size > 5000
    assert line["num_images"] == 2
    assert set(line["metrics"]) == {
        "l1_rec", "psnr_rec", "ssim_rec",
        *(f"layout_{kind}_{reader}" for kind in ("acc", "miou") for reader in ("colour", "segnet")),
    }  # fmt: skip
    assert line["protocol"]["resize"] == 1.0
    assert set(line["details"]["layout_acc_colour"]["each"]) == {"disc", "higher"}


def test_other_targets_and_another_folder(trained: Path) -> None:
    cond, out = trained / "other", trained / "out"
    save_png(read_image(trained / "analogy" / "label.png"), cond / "rec.png")
    run_test(trained, "run", "--cond", str(cond), "--results_dir", str(out), "--metrics", "none")
    first = (out / "rec.png").read_bytes()
    (cond / "rec.png").rename(cond / "again.png")
    run_test(trained, "run", "--cond", str(cond), "--results_dir", str(out), "--metrics", "none")
    assert {p.name for p in out.glob("*.png")} == {"again.png", "again_strip.png", "grid.png"}
    assert (out / "again.png").read_bytes() == first  # deterministic


def test_the_resize_is_that_of_the_run(tmp_path: Path) -> None:
    train(tmp_path, "half", "--max_steps", "0", "--resize", "0.85")
    run_test(tmp_path, "half", "--metrics", "none")
    assert read_image(tmp_path / "half" / "results" / "analogy" / "disc.png").shape == (32, 40, 3)


def test_ids_and_alignment_train(tmp_path: Path) -> None:
    train(tmp_path, "aligned", "--max_steps", "1", "--align_labels")
    folder = tmp_path / "analogy"
    for path in (folder / "label.png", *(folder / "cond").iterdir()):
        save_png((read_image(path)[..., 2] > 0).astype(np.uint8) * 7, path)
    where = ["--checkpoints_dir", str(tmp_path), "--name", "ids", "--label_kind", "ids", "--max_steps", "2"]
    tiny = SemIAModel.tiny(tmp_path / "unused")
    tiny[tiny.index("--dataroot") + 1] = str(folder)
    assert train_command.main([*tiny, *QUICK, *where]) == 0
    assert run_test(tmp_path, "ids")["protocol"]["classes"] == ["id 0", "id 7"]


def test_previews_show_a_target_or_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tmp_path, "run", "--max_steps", "1", "--image_every", "1")
    assert read_image(run / "images" / "step_0000001.png").shape[1] > 4 * 48
    for path in (tmp_path / "analogy" / "cond").iterdir():
        path.unlink()
    args = SemIAModel.tiny(tmp_path / "unused")
    args[args.index("--dataroot") + 1] = str(tmp_path / "analogy")
    where = ["--checkpoints_dir", str(tmp_path), "--name", "bare", "--max_steps", "1", "--image_every", "1"]
    assert train_command.main([*args, *QUICK, *where]) == 0
    told = capsys.readouterr().out
    assert "previews show training pictures" in told
    assert "label.png: 2 classes: #" in told
    with pytest.raises(UserError, match=r"no target layouts.*--cond DIR"):
        run_test(tmp_path, "bare")


def call_edit(trained: Path, *args: str, **files: Path) -> Path:
    data, output = trained / "analogy", trained / "edited.png"
    given = {"image": data / "img.png", "label": data / "cond" / "disc.png", "mask": trained / "mask.png"} | files
    flags = [text for name, path in given.items() for text in (f"--{name}", str(path))]
    where = ["--checkpoints_dir", str(trained), "--name", "run", "--device", "cpu"]
    assert edit.main([*where, *flags, "--output", str(output), *args]) == 0
    return output


def test_an_edit_is_pasted_under_its_mask(trained: Path) -> None:
    mask = np.zeros((40, 48), np.uint8)
    mask[10:30, 12:40] = 255
    save_png(mask, trained / "mask.png")
    before, after = read_image(trained / "analogy" / "img.png"), read_image(call_edit(trained))
    assert np.array_equal(before[mask == 0], after[mask == 0])
    assert (before[mask > 0] != after[mask > 0]).mean() > 0.9
    run_test(trained, "run", "--metrics", "none", "--results_dir", str(trained / "whole"))
    assert np.array_equal(after[mask > 0], read_image(trained / "whole" / "disc.png")[mask > 0])


def test_edits_that_cannot_be_are_told(trained: Path) -> None:
    save_png(np.full((40, 48), 255, np.uint8), trained / "mask.png")
    empty = trained / "empty.png"
    save_png(np.zeros((40, 48), np.uint8), empty)
    with pytest.raises(UserError, match=r"--mask .* is empty"):
        call_edit(trained, mask=empty)
    with pytest.raises(UserError, match="the one picture that run 'run' was trained on"):
        call_edit(trained, image=trained / "analogy" / "cond" / "disc.png")
    with pytest.raises(UserError, match="--remove: --model semia takes an edited --label"):
        call_edit(trained, "--remove", "3")
    with pytest.raises(UserError, match="deterministic"):
        call_edit(trained, "--num_samples", "2")


def test_wrong_use_is_told(trained: Path) -> None:
    tiny = [*SemIAModel.tiny(trained), "--checkpoints_dir", str(trained), "--name", "wrong", *QUICK]
    with pytest.raises(UserError, match="--model semia takes --dataset_mode single_image, not streets"):
        train_command.main([*tiny, "--dataset_mode", "streets"])
    with pytest.raises(UserError, match=r"--model spmpgan takes --dataset_mode .*streets, not single_image"):
        train_command.main([*QUICK, "--model", "spmpgan", "--dataset_mode", "single_image", "--name", "x"])
    with pytest.raises(UserError, match="--batch_size 2: semia works on one picture"):
        train_command.main([*tiny, "--batch_size", "2"])
    with pytest.raises(UserError, match="--accumulate 2: semia works on one picture"):
        train_command.main([*tiny, "--accumulate", "2"])
    for flag, value, instead in (("load_size", "64", "--resize"), ("crop_size", "64", "the whole picture is taken"),
                                 ("mask_types", "free_form", "nothing is masked")):  # fmt: skip
        with pytest.raises(UserError, match=f"--{flag}: --dataset_mode single_image does not use it; {instead}"):
            train_command.main([*tiny, f"--{flag}", value])
    with pytest.raises(UserError, match="--dataroot is missing"):
        train_command.main(["--model", "semia", "--dataset_mode", "single_image", "--name", "x"])
    with pytest.raises(UserError, match=r"'lpisp' is unknown. Did you mean 'lpips'"):
        run_test(trained, "run", "--metrics", "lpisp")
    with pytest.raises(UserError, match=r"--vgg_weights .*none\.pth: no such file"):
        train_command.main([*tiny, "--lambda_patch", "1", "--vgg_weights", str(trained / "none.pth")])


def test_an_edit_of_a_scaled_run_comes_back_at_the_pictures_size(tmp_path: Path) -> None:
    train(tmp_path, "run", "--max_steps", "0", "--resize", "0.9")
    mask = np.zeros((40, 48), np.uint8)
    mask[20:, 30:] = 255  # down to the corner, beyond what is a multiple of 8 at 36 x 43
    save_png(mask, tmp_path / "mask.png")
    before, after = read_image(tmp_path / "analogy" / "img.png"), read_image(call_edit(tmp_path))
    assert np.array_equal(before[mask == 0], after[mask == 0])
    assert (before[mask > 0] != after[mask > 0]).mean() > 0.9


def test_other_commands_refuse_a_single_picture(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--dataset_mode single_image: no scenes"):
        train_segmenter.main(["--dataset_mode", "single_image", "--dataroot", "x", "--name", "s"])
    with pytest.raises(UserError, match="--dataset_mode single_image: no scenes"):
        prepare_objects.main(["--dataset_mode", "single_image", "--dataroot", "x", "--output", str(tmp_path)])


def test_the_benchmark_compares_equal_values(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    assert benchmark.main(["semia", "--loss_only", "--height", "32", "--width", "40", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    for name in ("released", "semantic"):
        plain, ours = rows[f"patch loss, {name}"]["values"]
        assert plain == pytest.approx(ours, rel=1e-5)
        assert rows[f"patch loss, {name}"]["cpu_ratio"] > 1
    with pytest.raises(UserError, match="multiples of 8"):
        benchmark.main(["semia", "--height", "33"])


@pytest.mark.parametrize(
    ("example", "height", "width", "classes", "targets"),
    [
        ("lake", 32, 48, 4, ["large_lake", "two_peaks"]),
        ("face", 64, 64, 8, ["astonished", "long_hair", "turned"]),
        ("sketch", 32, 32, 2, ["long_strap", "wide"]),
    ],
)
def test_the_built_in_examples(
    tmp_path: Path, example: str, height: int, width: int, classes: int, targets: list[str]
) -> None:
    drawn = ["--example", example, "--output", str(tmp_path / "drawn"), "--height", str(height)]
    assert prepare_analogy.main(drawn) == 0
    assert read_image(tmp_path / "drawn" / "img.png").shape == (height, width, 3)
    files = sorted((tmp_path / "drawn" / "cond").iterdir())
    assert [file.stem for file in files] == targets
    layouts = [read_image(file) for file in (tmp_path / "drawn" / "label.png", *files)]
    assert len({layout.tobytes() for layout in layouts}) == len(layouts)
    assert all(len(np.unique(layout.reshape(-1, 3), axis=0)) == classes for layout in layouts)
    assert (tmp_path / "drawn" / "edit").is_dir() == (example == "lake")
    args = SemIAModel.tiny(tmp_path)
    args[args.index("--dataroot") + 1] = str(tmp_path / "drawn")
    where = ["--checkpoints_dir", str(tmp_path), "--name", "run", "--max_steps", "1"]
    assert train_command.main([*args, *QUICK, *where]) == 0
    assert len(run_test(tmp_path, "run")["protocol"]["classes"]) == classes
    other = [*drawn, "--seed", "1"]
    with pytest.raises(UserError, match=r"prepare_analogy\.py with .*'seed': 0"):
        prepare_analogy.main(other)
