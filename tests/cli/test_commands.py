"""train.py and test.py as a user calls them, over every registered model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_runs import QUICK, run_test, tiny_line, train

import test as test_command
import train as train_command
from models import MODELS
from scripts.prepare_streets import main as prepare_streets
from trainers.trainer import Trainer
from util.batch import Batch
from util.errors import EXIT_INTERRUPTED, UserError
from util.images import read_image

ROOT = Path(__file__).resolve().parents[2]
PLAIN = [name for name in MODELS.names() if MODELS.get(name).flow != "analogy"]  # a single picture has tests of its own


def losses(run: Path) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in (run / "stats.jsonl").read_text().splitlines()]


def weighed(found: dict[str, float]) -> dict[str, float]:
    """Return the losses without what is only logged."""
    return {name: value for name, value in found.items() if not name.startswith("codes/")}


def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "latest.pt", weights_only=True)


def assert_same(a: Any, b: Any, place: str = "") -> None:
    """Compare two checkpoints bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), place
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{place}[{i}]")
    else:
        assert a == b, place


train_step = Trainer._train_step


def step_that_leaves_nothing_behind(trainer: Trainer, batches: list[Batch]) -> None:
    """Make a step; phases share what `begin_step` returns, nothing that stays on the model."""
    before = dict(vars(trainer.model))
    train_step(trainer, batches)
    after = vars(trainer.model)
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] is not before[name] and name != "step"] == []


@pytest.mark.parametrize("model", PLAIN)
def test_every_model_trains_resumes_bit_for_bit_and_tests(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_train_step", step_that_leaves_nothing_behind)
    every_step = ["--log_every", "1", "--save_every", "1", "--ema", "0.9"]
    unbroken = train(model, tmp_path, "unbroken", "--max_steps", "4", *every_step)
    train(model, tmp_path, "broken", "--max_steps", "2", *every_step)
    assert train_command.main(["--name", "broken", "--checkpoints_dir", str(tmp_path), "--continue_train",
                               "--max_steps", "4"]) == 0  # fmt: skip
    whole, parts = checkpoint(unbroken), checkpoint(tmp_path / "broken")
    for key in ("step", "nimg", "model", "optimizers", "ema"):
        assert_same(whole[key], parts[key], key)
    assert losses(unbroken) == losses(tmp_path / "broken")
    assert sorted(p.name for p in unbroken.glob("step_*.pt")) == ["step_3.pt", "step_4.pt"]

    if MODELS.get(model).flow != "editing":
        return  # its test is another: see the flow's own file
    line = run_test(tmp_path, "unbroken", "--num_samples", "2", "--batch_size", "3")
    assert line["step"] == 4
    assert line["num_images"] == 4
    assert set(line) == {"metrics", "details", "step", "task", "num_images", "protocol"}
    assert all(isinstance(value, float) for value in line["metrics"].values())
    folder = unbroken / "results" / "test_free_form"
    names = sorted(p.name for p in (folder / "fake").glob("*.png"))
    assert names == sorted(p.name for p in (folder / "fake_2").glob("*.png"))
    assert len(names) == 4
    if model in ("spmpgan", "divsem"):
        told = "all draws of each picture are equal" in capsys.readouterr().out
        assert told == (model == "spmpgan")  # it has no random draws
    for name in names:
        fake, real, mask = (read_image(folder / part / name) for part in ("fake", "real", "mask"))
        assert np.array_equal(fake[mask == 0], real[mask == 0])  # known pixels come back as they were
        assert not np.array_equal(fake, real)
    assert (folder / "grid.png").is_file()


@pytest.fixture
def plain_afterwards() -> Iterator[None]:
    """Undo what `--deterministic` does to this process."""
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("plain_afterwards")
def test_deterministic_runs_are_equal_at_any_number_of_threads(tmp_path: Path) -> None:
    runs = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        runs.append(train("spmpgan", tmp_path, f"run_{threads}", "--max_steps", "2", "--deterministic"))
        assert torch.are_deterministic_algorithms_enabled()
    for key in ("model", "optimizers"):
        assert_same(*(checkpoint(run)[key] for run in runs), key)
    tested = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        tested.append(run_test(tmp_path, "run_1", "--deterministic", "--results_dir", str(tmp_path / str(threads))))
    assert tested[0]["metrics"] == tested[1]["metrics"]
    for picture in (tmp_path / "1" / "fake").iterdir():
        assert picture.read_bytes() == (tmp_path / "4" / "fake" / picture.name).read_bytes()


def test_result_does_not_depend_on_the_batch_size_and_masks_on_nothing_but_task_and_seed(tmp_path: Path) -> None:
    run = train("divsem", tmp_path, "run", "--max_steps", "1")
    lines = [run_test(tmp_path, "run", "--batch_size", b, "--task", "class") for b in ("1", "4")]
    assert lines[0]["metrics"] == pytest.approx(lines[1]["metrics"], rel=1e-4)
    assert lines[0]["protocol"]["mask_set"] == lines[1]["protocol"]["mask_set"]
    assert lines[0]["protocol"]["counters"] == lines[1]["protocol"]["counters"]
    other = run_test(tmp_path, "run", "--task", "class", "--seed", "1")
    assert other["protocol"]["mask_set"] != lines[0]["protocol"]["mask_set"]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_failed_continuation_leaves_the_options_as_they_were(tmp_path: Path) -> None:
    run = train("spmpgan", tmp_path, "run", "--max_steps", "1")
    before = (run / "opt.yaml").read_bytes()
    where = ["--checkpoints_dir", str(tmp_path), "--name", "run"]
    with pytest.raises(UserError, match="does not fit"):
        train_command.main([*where, "--continue_train", "--ngf", "8", "--max_steps", "2"])
    assert (run / "opt.yaml").read_bytes() == before


def test_previews_fall_back_to_training_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert prepare_streets(["--output", str(data), "--train", "4", "--test", "0"]) == 0
    own = ["--dataset_mode", "custom", "--dataroot", str(data)]
    tiny = "--model spmpgan --crop_size 64 --ngf 4 --ndf 4 --spm_hidden 8 --lambda_vgg 0 --batch_size 2 --num_workers 0"
    args = [*tiny.split(), *own, "--name", "run", "--checkpoints_dir", str(tmp_path), "--no-tensorboard"]
    assert train_command.main([*args, "--device", "cpu", "--max_steps", "2", "--image_every", "1"]) == 0
    assert "previews show training pictures" in capsys.readouterr().out
    assert [p.name for p in sorted((tmp_path / "run" / "images").iterdir())] == ["step_0000001.png", "step_0000002.png"]


@pytest.mark.parametrize("model", PLAIN)
def test_two_micro_batches_train_as_one_of_the_doubled_size_and_resume(model: str, tmp_path: Path) -> None:
    """Equal up to float32 rounding, which Adam carries on from step to step; resumed bit for bit."""
    one = train(model, tmp_path, "one", "--max_steps", "3", "--log_every", "1", "--batch_size", "2")
    parts = ["--log_every", "1", "--batch_size", "1", "--accumulate", "2"]
    whole = train(model, tmp_path, "whole", *parts, "--max_steps", "3")
    for a, b in zip(losses(one), losses(whole), strict=True):
        assert weighed(a) == pytest.approx(weighed(b), rel=2e-4, abs=1e-5)
    broken = train(model, tmp_path, "broken", *parts, "--max_steps", "1")
    line = ["--name", "broken", "--checkpoints_dir", str(tmp_path), "--continue_train", "--max_steps", "3"]
    assert train_command.main(line) == 0
    for key in ("step", "nimg", "model", "optimizers"):
        assert_same(checkpoint(whole)[key], checkpoint(broken)[key], key)


@pytest.mark.parametrize("model", ["divsem", "siedob_background"])  # whose batches differ in what a step needs
def test_two_processes_train_as_one_with_the_doubled_batch(model: str, tmp_path: Path) -> None:
    """Equal up to float32 rounding, which Adam carries on from step to step; batches differ in what they erase.

    How far codes spread is no mean over pictures: it is that of each process's own batch.
    """
    steps = ["--max_steps", "3", "--log_every", "1"]
    one = train(model, tmp_path, "one", *steps, "--batch_size", "2")
    tiny = [*tiny_line(model, tmp_path), "--checkpoints_dir", str(tmp_path), "--name", "two", *QUICK, *steps]
    launch = command("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(ROOT / "train.py"))
    done = subprocess.run([*launch, *tiny, "--batch_size", "1"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for a, b in zip(losses(one), losses(tmp_path / "two"), strict=True):
        assert weighed(a) == pytest.approx(weighed(b), rel=2e-4, abs=1e-5)
    assert "find_unused_parameters" not in done.stderr


def test_mask_folder(tmp_path: Path) -> None:
    from PIL import Image

    train("spmpgan", tmp_path, "run", "--max_steps", "0")
    masks = tmp_path / "masks"
    masks.mkdir()
    for i in range(4):
        picture = np.zeros((64, 64), np.uint8)
        picture[: 16 * (i + 1)] = 255
        Image.fromarray(picture).save(masks / f"{i:04}.png")
    line = run_test(tmp_path, "run", "--task", "folder", "--mask_dir", str(masks))
    assert line["task"] == "folder"
    saved = sorted((tmp_path / "run" / "results" / "test_folder" / "mask").glob("*.png"))
    assert [int((read_image(p)[..., 0] > 0).mean() * 4) for p in saved] == [1, 2, 3, 4]


def test_earlier_pictures_of_the_same_test_do_not_stay(tmp_path: Path) -> None:
    run = train("spmpgan", tmp_path, "run", "--max_steps", "0")
    run_test(tmp_path, "run")
    (run / "results" / "test_free_form" / "result.json").unlink()  # as if it had been interrupted
    run_test(tmp_path, "run", "--num_images", "2")
    assert len(list((run / "results" / "test_free_form" / "fake").glob("*.png"))) == 2


def test_wrong_use_is_told_without_a_traceback(tmp_path: Path) -> None:
    run = train("spmpgan", tmp_path, "run", "--max_steps", "1")  # one of no steps may be begun anew
    tiny = MODELS.get("spmpgan").tiny(tmp_path)
    where = ["--checkpoints_dir", str(tmp_path)]
    with pytest.raises(UserError, match="--continue_train"):
        train_command.main([*tiny, *where, *QUICK, "--name", "run"])
    with pytest.raises(UserError, match="no checkpoint to continue"):
        train_command.main([*tiny, *where, *QUICK, "--name", "other", "--continue_train"])
    with pytest.raises(UserError, match="leave the model's flags out"):
        test_command.main([*where, "--name", "run", "--ngf", "8", "--metrics", "l1"])
    with pytest.raises(UserError, match=r"step_7\.pt"):
        test_command.main([*where, "--name", "run", "--step", "7", "--metrics", "l1"])
    with pytest.raises(UserError, match=r"'pnsr' is unknown. Did you mean 'psnr'"):
        test_command.main([*where, "--name", "run", "--metrics", "pnsr"])
    for path in run.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"step_0\.pt: truncated"):
        test_command.main([*where, "--name", "run", "--metrics", "l1"])


def command(*args: str) -> list[str]:
    return [sys.executable, *args]


def test_exit_codes_and_help(tmp_path: Path) -> None:
    wrong = subprocess.run(
        command("train.py", "--model", "divsen", "--name", "x"), cwd=ROOT, capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert "Did you mean 'divsem'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    shown = subprocess.run(command("train.py", "--help", "--model", "divsem"), cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0
    for text in ("--style_pool", "--streets_train_size", "--crop_size", "model divsem", "SPMPGAN (ECCV 2022)"):
        assert text in " ".join(shown.stdout.split())


def test_sigterm_saves_and_leaves_with_its_code(tmp_path: Path) -> None:
    tiny = MODELS.get("spmpgan").tiny(tmp_path)
    args = [
        *tiny,
        "--checkpoints_dir",
        str(tmp_path),
        "--name",
        "run",
        *QUICK,
        "--max_steps",
        "100000",
        "--log_every",
        "1",
    ]
    process = subprocess.Popen(command(str(ROOT / "train.py"), *args), cwd=tmp_path, stderr=subprocess.PIPE,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    stats, deadline = tmp_path / "run" / "stats.jsonl", time.time() + 600
    while process.poll() is None and not (stats.exists() and stats.stat().st_size) and time.time() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == EXIT_INTERRUPTED, process.stderr.read() if process.stderr else ""
    stopped = checkpoint(tmp_path / "run")["step"]
    assert stopped >= 1
    assert len(losses(tmp_path / "run")) == stopped
