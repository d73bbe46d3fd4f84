"""SIEDOB as a user runs it: four steps from one experiment file, edits of pictures, object tasks."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import test as test_command
import train as train_command
from data.streets.scene import CLASSES, render_street
from data.streets_dataset import scene_rng
from models import MODELS
from scripts import build_style_bank, edit, make_table, run_experiment
from testing import parallel
from util.errors import UserError
from util.images import read_image, read_map, save_png

QUICK = "--num_workers 0 --image_every 0 --no-tensorboard --device cpu".split()
HEIGHT, WIDTH, CAR = 96, 128, 6
FILE = """
title: Four steps
prepare:
  - scripts/prepare_objects.py --dataset_mode streets --load_size 64 --streets_train_size 6 --streets_test_size 4
    --min_crops 1 --output {quoted}
train:
  dataset_mode: streets
  crop_size: 64
  num_workers: 0
  batch_size: 2
  device: cpu
  ngf: 2
  ndf: 4
  lambda_vgg: 0
  max_steps: 1
  image_every: 0
  tensorboard: false
test: {{num_workers: 0, device: cpu, metrics: "l1,seam"}}
groups:
  scenes:
    label: scenes
    train: {{streets_train_size: 6, streets_test_size: 3}}
    tasks: [free_form]
  objects: {{label: objects, train: {{dataset_mode: objects, dataroot: {objects}}}, tasks: [instance]}}
rows:
  back: {{group: scenes, train: {{model: siedob_background}}}}
  inpaint: {{group: objects, train: {{model: siedob_inpaint}}}}
  style: {{group: objects, train: {{model: siedob_style, style_dim: 8}}}}
  style_noise:
    group: objects
    run: style
    train: {{model: siedob_style, style_dim: 8}}
    test: {{style_source: noise}}
  whole:
    group: scenes
    train: {{model: siedob_fusion, background_run: back, inpaint_run: inpaint, style_run: style}}
    tasks: [object_addition, object_removal]
"""


def write_experiment(folder: Path, objects: Path | None = None) -> Path:
    """Write the file; with `objects` its data are there, and nothing is prepared."""
    place = objects or folder / "objects"
    path, text = folder / "steps.yaml", FILE.format(objects=place, quoted=shlex.quote(str(place)))
    if objects is not None:
        text = re.sub(r"prepare:\n.*?(?=train:)", "", text, count=1, flags=re.DOTALL)
    path.write_text(text)
    return path


def run(path: Path, *args: str) -> int:
    return run_experiment.main([str(path), "--checkpoints_dir", str(path.parent / "runs"), *args])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment file, with its data made and its rows run."""
    path = write_experiment(tmp_path_factory.mktemp("steps"))
    assert run(path, "--test_args", "--num_samples 2") == 0
    return path


# --- four steps from one file ---
def printed_table(path: Path) -> str:
    """Return what make_table.py prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert make_table.main([str(path), "--checkpoints_dir", str(path.parent / "runs")]) == 0
    return out.getvalue()


def test_before_anything_exists_the_lines_are_printed_and_nothing_is_done(tmp_path: Path, capsys: Any) -> None:
    path = write_experiment(tmp_path)
    assert run(path, "--dry_run", "--train_args", "--seed 5", "--test_args", "--num_images 2") == 0
    lines = capsys.readouterr().out.splitlines()
    prepared, *others = [line for line in lines if line.startswith("python ")]
    assert prepared.startswith("python scripts/prepare_objects.py --dataset_mode streets")
    assert [(line.split()[1], line.split()[3]) for line in others] == [
        (command, {"style_noise": "style"}.get(row, row))
        for row in ("back", "inpaint", "style", "style_noise", "whole")
        for command in ("train.py", *["test.py"] * (2 if row == "whole" else 1))
    ]
    for line in others:
        assert ("--seed 5" if "train.py" in line else "--num_images 2") in line
    told = [line for line in lines if line.startswith("# cannot be checked yet")]
    assert any("classes.json" in line for line in told)
    assert any("--background_run back: no run at" in line for line in told)
    assert [p.name for p in tmp_path.iterdir()] == ["steps.yaml"]


def test_rows_run_in_their_order_and_leave_tables(finished: Path) -> None:
    runs = finished.parent / "runs"
    for row in ("back", "inpaint", "style", "whole"):
        assert (runs / row / "step_1.pt").is_file()
    for folder in ("back/results/test_free_form", "inpaint/results/test_instance", "style/results/test_instance",
                   "style/results/style_noise_instance", "whole/results/test_object_addition"):  # fmt: skip
        assert (runs / folder / "result.json").is_file()
        assert (runs / folder / "fake_2").is_dir()  # what --test_args asked for
    pictures = ("scenes_free_form", "objects_instance", "scenes_object_addition", "scenes_object_removal")
    assert all((runs / f"steps_{name}.png").is_file() for name in pictures)
    both = [runs / "style" / "results" / name / "fake" for name in ("test_instance", "style_noise_instance")]
    assert len({p.read_bytes() for folder in both for p in folder.glob("car_*.png")}) > len(list(both[0].glob("car_*")))
    table = printed_table(finished)
    values = [line.split("|")[2:4] for line in table.splitlines() if "style" in line and line.startswith("|")]
    assert len(values) == 2 and values[0] != values[1]  # each row its own result of the one run


def test_a_second_run_does_nothing_that_is_done(finished: Path, capsys: Any) -> None:
    files = [*(finished.parent / "runs").rglob("*.pt"), *(finished.parent / "objects").glob("*/*/*/*.png")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert run(finished, "--test_args", "--num_samples 2") == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("$")] == [
        line for line in out.splitlines() if line.startswith("$ python scripts/prepare_objects.py")
    ]
    assert out.count("already trained") == 5
    assert out.count("already tested") == 6
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert run(finished, "--dry_run", "--test_args", "--num_samples 2") == 0
    assert capsys.readouterr().out.count("# finished: ") == 5 + 6


def test_a_missing_input_run_is_named(finished: Path, tmp_path: Path) -> None:
    path = write_experiment(tmp_path, finished.parent / "objects")
    with pytest.raises(UserError, match=r"--background_run back: no run at .*runs/back; train it first"):
        run(path, "--only", "whole")
    assert run(path, "--only", "back") == 0
    with pytest.raises(UserError, match=r"--inpaint_run inpaint: no run at .*runs/inpaint; train it first"):
        run(path, "--only", "whole")


def test_rows_that_need_others_come_after_them_at_several_jobs(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row's process leaves here what it left before; test_experiment_commands.py starts real ones."""
    began = []

    def job(row: Any, args: Any, gpu: str | None, script: Any) -> Any:
        began.append(row.name)
        shutil.copytree(finished.parent / "runs" / row.name, tmp_path / "runs" / row.name)
        return SimpleNamespace(gpu=gpu, process=SimpleNamespace(poll=lambda: 0), finish=lambda problems: None)

    monkeypatch.setattr(parallel, "Job", job)
    path = write_experiment(tmp_path, finished.parent / "objects")
    for name in ("inpaint", "style"):
        shutil.copytree(finished.parent / "runs" / name, tmp_path / "runs" / name)
    rows = path.read_text().splitlines(keepends=True)
    first = next(k for k, line in enumerate(rows) if line.startswith("  whole:"))
    start = rows.index("rows:\n") + 1
    path.write_text("".join([*rows[:start], *rows[first:], *rows[start:first]]))  # `whole` before what it needs
    assert run(path, "--jobs", "2", "--only", "whole", "--only", "back") == 0
    assert began == ["back", "whole"]
    assert (tmp_path / "runs" / "steps_scenes_object_addition.png").is_file()


def test_a_failing_preparation_ends_the_run(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    path.write_text(path.read_text().replace("scripts/prepare_objects.py", "scripts/no_such_script.py"))
    with pytest.raises(UserError, match=r"preparation failed: python scripts/no_such_script\.py --dataset_mode"):
        run(path)
    assert not (tmp_path / "runs").exists()


# --- one run, by hand ---
@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run `whole` of the fusion with the three that it builds on, and scenes `a` and `b`."""
    path = tmp_path_factory.mktemp("edit")
    for line in MODELS.get("siedob_fusion").tiny_inputs(path):
        assert train_command.main([*line, *QUICK]) == 0
    amplify(path, "siedob_style")
    assert train_fusion(path, "whole") == 0
    for name, index in (("a", 7), ("b", 6)):
        maps = render_street(scene_rng(0, "test", index), height=HEIGHT, width=WIDTH)
        assert maps.inst is not None
        save_png(maps.image, path / "image" / f"{name}.png")
        save_png(maps.label.astype(np.uint8), path / "label" / f"{name}.png")
        save_png(maps.inst.astype(np.uint16), path / "inst" / f"{name}.png")
    return path


def amplify(root: Path, run: str) -> None:
    """Give an untrained generator weights that let a style show in 8 bits, and make its bank again."""
    for file in (root / run).glob("*.pt"):
        state = torch.load(file, weights_only=True)
        for value in state["model"]["netG"].values():
            if value.ndim == 4:
                value.mul_(3)
        torch.save(state, file)
    assert build_style_bank.main(["--name", run, "--checkpoints_dir", str(root), "--num_workers", "0"]) == 0


def train_fusion(root: Path, name: str, *flags: str, without: tuple[str, ...] = ()) -> int:
    tiny = MODELS.get("siedob_fusion").tiny(root)
    for flag in without:
        place = tiny.index(flag)
        del tiny[place : place + 2]
    where = ["--checkpoints_dir", str(root), "--name", name, "--max_steps", "0"]
    return train_command.main([*tiny, *where, *QUICK, *flags])


def test_a_fusion_step_can_be_estimated(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_fusion(root, "estimated", "--estimate") == 0
    step = re.search(r"a step: .* ([\d]+) GFLOP, at most ([\d.]+) GiB", capsys.readouterr().out)
    assert step and float(step[1]) > 0
    assert not (root / "estimated").exists()


def test_parts_of_the_system_alone(root: Path) -> None:
    """The ablations need only the runs that they use."""
    assert train_fusion(root, "composed", "--no-fusion") == 0
    line = [*MODELS.get("siedob_background").tiny(root), "--checkpoints_dir", str(root), "--name", "everything"]
    assert train_command.main([*line, *QUICK, "--no-separation", "--max_steps", "0"]) == 0
    flags = ("--no-separation", "--background_run", "everything")
    assert train_fusion(root, "joint", *flags, without=("--inpaint_run", "--style_run")) == 0
    for name in ("composed", "joint"):
        args = ["--name", name, "--checkpoints_dir", str(root), "--num_workers", "0", "--device", "cpu"]
        assert test_command.main([*args, "--metrics", "l1", "--task", "instance"]) == 0


def call(root: Path, *args: str, run: str = "whole", output: str = "out/o.png", scene: str = "a") -> Path:
    files = [f"--{kind}={root / kind / f'{scene}.png'}" for kind in ("image", "label", "inst")]
    where = ["--checkpoints_dir", str(root), "--name", run, "--device", "cpu", "--num_workers", "0"]
    assert edit.main([*where, *files, "--output", str(root / output), *args]) == 0
    return root / output


def changed(root: Path, output: Path) -> np.ndarray:
    return (read_image(output) != read_image(root / "image" / "a.png")).any(axis=2)


ADD = ["--add_object", "car", "--box", "10,60,50,90"]


def reference(root: Path, label: str = "car", inst: bool = True) -> list[str]:
    kinds = ("image", "label", "inst") if inst else ("image", "label")
    return [*(f"--style_{kind}={root / kind / 'b.png'}" for kind in kinds), "--style_class", label]


def test_an_added_object_has_several_styles(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = call(root, *ADD, "--num_samples", "3", output="s/o.png")
    assert "styles drawn: car (1)" in capsys.readouterr().out
    pictures = [read_image(first.with_name(n)) for n in ("o.png", "o_2.png", "o_3.png")]
    different = (pictures[0] != pictures[1]).any(2) | (pictures[0] != pictures[2]).any(2)
    assert different[62:88, 15:45].mean() > 0.3
    again = call(root, *ADD, "--num_samples", "3", output="t/o.png")
    assert all(p.read_bytes() == (again.parent / p.name).read_bytes() for p in first.parent.iterdir())


def test_interpolation_ends_equal_the_draws(root: Path) -> None:
    two = call(root, *ADD, "--num_samples", "2", output="i/two.png")
    line = call(root, *ADD, "--interpolate", "3", output="i/line.png")
    assert np.array_equal(read_image(line), read_image(two))
    assert np.array_equal(read_image(line.with_name("line_3.png")), read_image(two.with_name("two_2.png")))
    middle = read_image(line.with_name("line_2.png"))
    assert not np.array_equal(middle, read_image(line))


def test_a_reference_lends_its_style(root: Path) -> None:
    bank = call(root, *ADD, output="r/bank.png").read_bytes()
    assert call(root, *ADD, *reference(root), output="r/ref.png").read_bytes() != bank
    assert call(root, *ADD, *reference(root, "person"), output="r/person.png").read_bytes() == bank
    with pytest.raises(UserError, match=r"--style_class tree: .* has no styles of it"):
        call(root, *ADD, *reference(root, "tree"))
    with pytest.raises(
        UserError, match=r"no single instance with a style \(an instance map tells them apart\) of 'car'"
    ):
        call(root, *ADD, *reference(root, inst=False))


def test_removing_and_replacing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inst, label = (read_map(root / kind / "a.png", kind) for kind in ("inst", "label"))
    ids, counts = np.unique(inst[label == CAR], return_counts=True)
    number = int(ids[counts.argmax()])
    removed = changed(root, call(root, "--remove", str(number), "--dilate", "0", output="c/r.png"))
    assert not removed[inst != number].any()
    assert removed[inst == number].mean() > 0.9
    assert "none, nothing that has a style is fully erased" in capsys.readouterr().out  # what fills in is background
    for old, new in (("car", "person"), ("tree", "building"), ("tree", "car")):
        where = label == CLASSES.names.index(old)
        flags = ["--replace_class", f"{old}:{new}", "--dilate", "0"]
        replaced = changed(root, call(root, *flags, output="c/p.png"))
        assert not replaced[~where].any()
        assert replaced[where].mean() > 0.9


def test_mistakes_are_told(root: Path) -> None:
    with pytest.raises(UserError, match=r"a: no pixel is changed: the mask is empty"):
        call(root, "--add_object", "car", "--box", "10,50,11,51")
    for run in ("siedob_inpaint", "siedob_style"):
        with pytest.raises(UserError, match=rf"--name {run}: a run of {run} makes crops of single objects"):
            call(root, *ADD, run=run)
    with pytest.raises(UserError, match=r"no class 'kar'\. Known: sky"):
        call(root, *ADD, "--foreground", "kar,person")
    with pytest.raises(UserError, match=r"--style_source: --model siedob_background of this run draws no style codes"):
        call(root, *ADD, "--style_source", "mean", run="siedob_background")
    for name in ("whole", "siedob_background"):
        with pytest.raises(UserError, match="gathers no style codes"):
            build_style_bank.main(["--name", name, "--checkpoints_dir", str(root)])


def test_the_command_that_a_missing_bank_asks_for_makes_it(root: Path) -> None:
    path = root / "siedob_style" / "style_bank.safetensors"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match="has no style bank yet; make it by ") as told:
        train_fusion(root, "late")
    line = shlex.split(str(told.value).split("make it by ")[1])
    assert line[0] == "scripts/build_style_bank.py"
    assert build_style_bank.main([*line[1:], "--num_workers", "0"]) == 0
    assert path.read_bytes() == kept
    assert train_fusion(root, "late") == 0


@pytest.mark.parametrize("task", ["object_addition", "object_removal"])
def test_object_tasks(root: Path, task: str) -> None:
    args = ["--name", "whole", "--checkpoints_dir", str(root), "--num_workers", "0", "--device", "cpu"]
    more = ["--streets_test_size", "16"]
    assert test_command.main([*args, "--metrics", "l1,seam", "--task", task, "--num_samples", "2", *more]) == 0
    folder = root / "whole" / "results" / f"test_{task}"
    draws = [{p.name: p.read_bytes() for p in (folder / part).glob("*.png")} for part in ("fake", "fake_2")]
    assert draws[0].keys() == draws[1].keys()
    assert (draws[0] == draws[1]) == (task == "object_removal")
    for name in draws[0]:
        fake, real, mask = (read_image(folder / part / name) for part in ("fake", "real", "mask"))
        assert np.array_equal(fake[mask == 0], real[mask == 0])
