"""scripts/train_segmenter.py end to end on `streets`, and the network that ships for it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from data import DATASETS
from data.records import read_class_table
from metrics.segments.segmenters import BUILT_IN, load_segmenter
from options.train_options import TrainOptions
from util.errors import EXIT_ABORTED, UserError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train_segmenter.py"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_segmenter", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SIZES = ["--dataset_mode", "streets", "--streets_train_size", "8", "--streets_test_size", "4", "--crop_size", "32"]
SIZES += ["--width", "4", "--batch_size", "2", "--num_workers", "0", "--device", "cpu", "--name", "seg"]


def test_a_short_run_leaves_a_segmenter_that_loads(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--checkpoints_dir", ".", "--max_steps", "3", *SIZES]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    segmenter = load_segmenter("seg", weights=None, checkpoints_dir=str(tmp_path), device=CPU)
    card = yaml.safe_load((tmp_path / "seg" / "segmenter.yaml").read_text())
    assert segmenter.short_side == 32
    table = read_class_table(tmp_path / "seg" / "classes.json")
    assert table is not None and table.things == DATASETS.get("streets").class_table(None).things
    assert 0 < card["real_test"]["acc"] < 100
    assert card["real_test"]["num_images"] == 4
    assert card["trained_on"]["steps"] == 3
    assert not list((tmp_path / "seg").glob("*.tmp"))


def test_a_stopped_run_leaves_nothing(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    for part in ("train", "score"):
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
            patch.setattr(script, part, stop)
            script.run_main(lambda: script.main(["--checkpoints_dir", str(tmp_path), "--max_steps", "1", *SIZES]))
        assert left.value.code == EXIT_ABORTED == 130
        assert not list(tmp_path.iterdir())


def test_a_segmenter_is_replaced_on_purpose_alone(script: ModuleType, tmp_path: Path) -> None:
    args = ["--checkpoints_dir", str(tmp_path), "--max_steps", "1", *SIZES]
    assert script.main(args) == 0
    card = tmp_path / "seg" / "segmenter.yaml"
    card.write_text("mine")
    with pytest.raises(UserError, match=r"seg exists already.*--overwrite"):
        script.main(args)
    assert card.read_text() == "mine"
    assert script.main([*args, "--overwrite", "--precision", "bf16"]) == 0
    assert yaml.safe_load(card.read_text())["trained_on"]["steps"] == 1


def test_flags_of_a_run_mean_what_they_mean_elsewhere(script: ModuleType) -> None:
    ours, train = script.parse_options(["--name", "x"]), TrainOptions().parse(["--name", "x"])
    shared = vars(ours).keys() & train.values().keys() - {"max_steps"}
    assert {"name", "checkpoints_dir", "device", "seed", "num_workers", "batch_size", "cache", "load_size"} <= shared
    assert {name: getattr(ours, name) for name in shared} == {name: getattr(train, name) for name in shared}


def test_mistakes_are_answered(script: ModuleType) -> None:
    with pytest.raises(UserError, match="Did you mean 'streets'"):
        script.parse_options(["--name", "x", "--dataset_mode", "street"])
    with pytest.raises(UserError, match="multiple of 8"):
        script.parse_options(["--name", "x", "--dataset_mode", "streets", "--crop_size", "60"])
    for flags, fault in (
        (["--name", "../esc"], r"--name '\.\./esc': use letters"),
        ([], "--name is missing"),
        (["--name", "x", "--widht", "3"], "Did you mean '--width'"),
        (["--name", "x", "--batch", "3"], "--batch is unknown"),
    ):
        with pytest.raises(UserError, match=fault):
            script.parse_options(flags)
    for name in ("streets", "espnet_camvid"):
        with pytest.raises(UserError, match="comes with the code"):
            script.parse_options(["--name", name, "--dataset_mode", "streets"])


def test_class_weights_fall_with_the_root_of_the_share(script: ModuleType) -> None:
    class Two:
        label_nc, ignore_label = 4, 3

        def __len__(self) -> int:
            return 2

        def maps(self, index: int) -> Namespace:
            label = torch.tensor([[0] * 8 + [1] * 2 + [3, 9]]).numpy()
            return Namespace(label=label)

    weight = script.class_weights(Two())
    assert float(weight[1] / weight[0]) == pytest.approx(2)  # shares 8 : 2
    assert weight[[2, 3]].tolist() == [0, 0]  # absent, ignored
    assert float(weight[:2].mean()) == pytest.approx(1)


def test_keys_pass_over_all_pictures_before_any_comes_again(script: ModuleType) -> None:
    keys = [key for batch in script.key_batches(5, batch_size=4, steps=5, seed=1) for key in batch]
    assert len(keys) == 20
    for epoch in range(4):
        assert sorted(keys[5 * epoch : 5 * epoch + 5]) == [(epoch, i) for i in range(5)]
    assert keys[:5] != [(0, i) for i in range(5)]


def test_the_shipped_streets_segmenter_knows_its_scenes(script: ModuleType) -> None:
    """Fails when the scenes change and the network was not trained again (see the script's head)."""
    folder = BUILT_IN["streets"]
    assert (folder / "segmenter.safetensors").stat().st_size < 400_000
    flags = "--name streets --dataset_mode streets --crop_size 64 --streets_test_size 16 --num_workers 0 --device cpu"
    opt = script.parse_options([*flags.split(), "--checkpoints_dir", str(folder.parent)])
    test_set = DATASETS.get("streets").from_options(opt, split="test", augment=False, task="none")
    card = yaml.safe_load((folder / "segmenter.yaml").read_text())
    assert list(test_set.class_names) == card["class_names"]
    score = script.score(opt, test_set, CPU, folder)
    assert score["acc"] == pytest.approx(card["real_test"]["acc"], abs=4)
    assert score["acc"] > 90
