"""SIEDOB's runs: what they take from one another, and what is told where that cannot be."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from siedob_tiny import (
    CAR,
    OTHER,
    ROAD,
    TYPICAL,
    Part,
    batch_of,
    build,
    line_of,
    make_runs,
    scene,
    train,
    weights,
)

import test as test_command
import train as train_command
from models import MODELS
from models.siedob_fusion_model import SIEDOBFusionModel
from models.style_bank import StyleBank
from options.test_options import TestOptions
from options.train_options import TrainOptions
from trainers.checkpoint import CheckpointError, save_checkpoint
from trainers.restore import load_run
from trainers.weights import WEIGHTS_FILE, save_weights
from util.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("siedob"))


@pytest.fixture(scope="module")
def system(root: Path) -> SIEDOBFusionModel:
    model: SIEDOBFusionModel = build(root, "siedob_fusion", is_train=False)
    return model


# --- mistakes ---
def wrong(root: Path, match: str, model: str, *flags: str) -> None:
    with pytest.raises(UserError, match=match):
        build(root, model, *flags)


@pytest.mark.parametrize(
    ("match", "flags"),
    [
        ("no class 'kar'", ["--foreground", "kar"]),
        (r"no class 9; ids are 0 to 8", ["--foreground", "9"]),
        ("is named twice", ["--foreground", "car,6"]),
        ("'car:x' is not CLASS", ["--foreground", "car:x"]),
        ("describes no class of single things", ["--foreground", ""]),
        ("--things car: class ids below 9", ["--things", "car"]),
        ("--things 9: class ids below 9", ["--things", "9"]),
        ("--things -1: class ids below 9", ["--things=-1"]),
        ("at least 0 and below 1", ["--min_erased", "1.5"]),
        ("nothing to learn from", ["--lambda_gan", "0", "--lambda_l1", "0", "--lambda_patch", "0"]),
    ],
)
def test_wrong_flags_of_the_background(root: Path, match: str, flags: list[str]) -> None:
    wrong(root, match, "siedob_background", *flags)


@pytest.mark.parametrize(
    ("match", "flags"),
    [
        ("the object runs make car, person, in this order", ["--foreground", "person,car"]),
        ("the object runs make car, person, in this order", ["--foreground", "car"]),
        ("the object runs make car, person, in this order", ["--foreground", "kar,person"]),
        ("--background_ngf 7: --background_run .* has 2; leave", ["--background_ngf", "7"]),
        ("--background_saspm False: --background_run .* has True; leave", ["--no-background_saspm"]),
        ("--things 1,2: --background_run .* has 1,5,6,7,8; leave", ["--things", "1,2"]),
        ("--style_dim 5: --style_run .* has 128; leave", ["--style_dim", "5"]),
        ("--object_size 128: --inpaint_run .* has 64; leave", ["--object_size", "128"]),
        ("trained with 9 classes, --dataset_mode streets has 12", ["--label_nc", "12"]),
        ("--style_run .*siedob_inpaint: a run of siedob_inpaint, wanted: siedob_style", ["--style_run=siedob_inpaint"]),
        (r"--inpaint_run x: no run at .*/x; train it first", ["--inpaint_run=x"]),
    ],
)
def test_wrong_flags_of_the_fusion(root: Path, match: str, flags: list[str]) -> None:
    wrong(root, match, "siedob_fusion", *flags)


def test_a_given_value_that_the_run_has_too_is_no_mistake(root: Path) -> None:
    build(root, "siedob_fusion", "--background_ngf", "2", "--things", "1,5,6,7,8", "--foreground", "car:0.1,person")


@pytest.mark.parametrize("flag", ["background_run", "inpaint_run", "style_run"])
def test_a_missing_run_is_named_with_its_method(root: Path, flag: str) -> None:
    line = line_of(root, "siedob_fusion", "new")
    place = line.index(f"--{flag}")
    with pytest.raises(UserError, match=rf"--{flag} RUN is missing.*train\.py --model siedob_{flag[:-4]}"):
        TrainOptions().parse([*line[:place], *line[place + 2 :]])


def changed_run(root: Path, run: str, folder: Path, **options: Any) -> Path:
    """Copy a run with other options."""
    shutil.copytree(root / run, folder / run)
    path = folder / run / "opt.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **options}))
    return folder / run


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("background", "foreground", None), ("background", "label_nc", "nine"), ("background", "things", 5),
        ("inpaint", "crop_size", None), ("style", "style_dim", [128]),
    ],
)  # fmt: skip
def test_a_run_whose_options_are_incomplete(root: Path, tmp_path: Path, kind: str, option: str, value: object) -> None:
    run = changed_run(root, f"siedob_{kind}", tmp_path, **{option: value})
    wrong(root, f"--{kind}_run .*: '{option}' of its opt.yaml is missing or", "siedob_fusion", f"--{kind}_run={run}")
    path = run / "opt.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in yaml.safe_load(path.read_text()).items() if k != option}))
    wrong(root, f"--{kind}_run .*: '{option}' of its opt.yaml is missing or", "siedob_fusion", f"--{kind}_run={run}")


def test_runs_of_earlier_versions_are_read(root: Path) -> None:
    """Their generator of fully erased objects is called netS."""
    model = build(root, "siedob_fusion")
    state = model.state()
    state["netS"] = {key: torch.randn_like(value) for key, value in state.pop("netO").items()}
    model.load_state(state)
    assert all(torch.equal(value, state["netS"][key]) for key, value in model.netO.state_dict().items())


def test_runs_that_do_not_fit_each_other(root: Path, tmp_path: Path) -> None:
    size = changed_run(root, "siedob_style", tmp_path / "size", crop_size=128)
    wrong(root, "--inpaint_run .* and --style_run .*: --crop_size 64 and 128", "siedob_fusion", f"--style_run={size}")
    other = changed_run(root, "siedob_style", tmp_path / "names")
    text = (other / "classes.json").read_text()
    (other / "classes.json").write_text(text.replace('"person"', '"rider"'))
    wrong(root, r"classes \('car', 'person', .*\) and \('car', 'rider'", "siedob_fusion", f"--style_run={other}")
    both = [f"--{kind}_run={changed_run(root, f'siedob_{kind}', tmp_path / 'both')}" for kind in ("inpaint", "style")]
    for kind in ("inpaint", "style"):
        path = tmp_path / "both" / f"siedob_{kind}" / "classes.json"
        path.write_text(path.read_text().replace('"person"', '"rider"'))
    wrong(root, "makes car, rider; in these scenes, classes 6, 7 are car, person", "siedob_fusion", *both)


def test_a_background_that_leaves_out_what_nothing_makes(root: Path, tmp_path: Path) -> None:
    """As where a class has too few crops: it belongs to the background, which must have been trained on it."""
    nothing = "trained without objects of car, person, .*; train it with --no-separation"
    wrong(root, nothing, "siedob_fusion", "--no-separation")
    cars = []
    for kind in ("inpaint", "style"):
        run = changed_run(root, f"siedob_{kind}", tmp_path)
        path = run / "classes.json"
        table = json.loads(path.read_text())
        table["classes"] = [entry for entry in table["classes"] if entry["name"] != "person"]
        path.write_text(json.dumps(table))
        cars.append(f"--{kind}_run={run}")
    wrong(root, "trained without objects of person, .*; train it with --foreground 6$", "siedob_fusion", *cars)
    fitting = changed_run(root, "siedob_background", tmp_path, foreground="6:0.5:0:100")
    opt = TrainOptions().parse([*line_of(root, "siedob_fusion", "new"), *cars, f"--background_run={fitting}"])
    assert opt.foreground == "6:0.5:0:100"


def test_a_style_run_without_its_bank_says_how_to_make_it(root: Path, tmp_path: Path) -> None:
    run = changed_run(root, "siedob_style", tmp_path)
    bank = run / "style_bank.safetensors"
    StyleBank(StyleBank.load(bank, style_dim=128).codes, weights="step 7").save(bank)
    place = re.escape(shlex.quote(str(tmp_path)))
    command = rf"scripts/build_style_bank\.py --name siedob_style --checkpoints_dir {place}"
    wrong(root, rf"made with step 7, now step 0; make it by {command}", "siedob_fusion", f"--style_run={run}")
    bank.unlink()
    wrong(root, rf"has no style bank yet; make it by {command}", "siedob_fusion", f"--style_run={run}")


# --- frozen networks and checkpoints ---
def taken_over(root: Path, run: Path) -> dict[str, dict[str, bool]]:
    """Tell of each tensor of the networks from other runs whether it is still theirs, bit for bit."""
    sources = {"netB": "siedob_background", "netI": "siedob_inpaint", "netO": "siedob_style"}
    own = weights(run)
    return {
        net: {key: torch.equal(value, own[net][key]) for key, value in weights(root / name)["netG"].items()}
        for net, name in sources.items()
    }


def test_frozen_networks_stay_as_they_are_unless_asked_for(root: Path) -> None:
    assert all(all(same.values()) for same in taken_over(root, root / "fusion").values())
    run = train(root, "siedob_fusion", "drift", "--max_steps", "2", "--frozen_train")
    for same in taken_over(root, run).values():
        vectors = {key: kept for key, kept in same.items() if key.endswith(("weight_u", "weight_v"))}
        assert all(kept for key, kept in same.items() if key not in vectors)
    assert not all(taken_over(root, run)["netB"].values())


def test_the_bank_travels_with_the_checkpoint_under_the_scenes_classes(root: Path) -> None:
    bank = StyleBank.load(root / "siedob_style" / "style_bank.safetensors", style_dim=128)
    kept = weights(root / "fusion")["styles"]
    assert kept.keys() == {"class_6", "class_7"}
    assert torch.equal(kept["class_6"], bank.codes[0])
    assert torch.equal(kept["class_7"], bank.codes[1])


def test_the_style_source_of_a_validation_is_not_the_trainings(root: Path) -> None:
    """Mean codes are asked for twice, which only a bank can give."""
    measured = ["--eval_every", "1", "--eval_args", "--split val --metrics l1 --num_images 1 --style_source mean"]
    run = train(root, "siedob_fusion", "validated", "--max_steps", "2", *measured)
    for net, kept in weights(root / "fusion").items():
        assert all(torch.equal(value, weights(run)[net][key]) for key, value in kept.items()), net


def test_a_checkpoint_needs_no_other_run(root: Path, tmp_path: Path) -> None:
    where = ["--checkpoints_dir", str(tmp_path), "--name", "fusion"]
    shutil.copytree(root / "fusion", tmp_path / "fusion")
    options = tmp_path / "fusion" / "opt.yaml"
    options.write_text(options.read_text().replace(str(root), str(tmp_path / "gone")))
    quick = ["--num_workers", "0", "--device", "cpu", "--metrics", "l1"]
    assert test_command.main([*where, *quick, "--task", "instance", "--num_samples", "2"]) == 0
    assert train_command.main([*where, "--continue_train", "--max_steps", "3"]) == 0
    assert weights(tmp_path / "fusion").keys() == weights(root / "fusion").keys()
    assert all(all(same.values()) for same in taken_over(root, tmp_path / "fusion").values())


@pytest.mark.parametrize("styles", [{"class_x": torch.zeros(2, 3)}, {"class_6": 5}])
def test_stored_codes_of_another_form_are_told(root: Path, tmp_path: Path, styles: dict[str, Any]) -> None:
    model = MODELS.get("siedob_fusion").from_options(
        TestOptions().parse(["--checkpoints_dir", str(root), "--name", "fusion"]), is_train=False
    )
    networks = weights(root / "fusion") | {"styles": styles}
    if all(isinstance(rows, torch.Tensor) for rows in styles.values()):
        save_weights(networks, tmp_path / WEIGHTS_FILE, step=2, source="somebody")
        with pytest.raises(CheckpointError, match=rf"{WEIGHTS_FILE}: does not fit the model"):
            load_run(model, tmp_path)
    save_checkpoint({"model": networks, "step": 2}, tmp_path / "step_2.pt")
    with pytest.raises(CheckpointError, match=r"step_2\.pt: does not fit the model"):
        load_run(model, tmp_path)


def test_names_of_classes_are_understood_in_tests_too(root: Path) -> None:
    where = ["--checkpoints_dir", str(root), "--name", "fusion"]
    assert TestOptions().parse([*where, "--foreground", "car,person:0.2"]).foreground == "6:0.5:0:100,7:0.2:0:100"
    with pytest.raises(UserError, match=r"no class 'kar'\. Known: sky"):
        TestOptions().parse([*where, "--foreground", "kar,person"])


def test_codes_of_instances_are_those_of_the_style_network(system: SIEDOBFusionModel) -> None:
    """Of foreground classes, whether or not their shapes fill their boxes; others have none."""
    thin: list[Part] = [(8 + k, 9 + k, 8 + k, 11 + k, CAR, 6000) for k in range(20)]
    batch = batch_of(scene(*thin, OTHER, (40, 50, 30, 40, 5, 5000), **TYPICAL))
    codes = system.instance_codes(batch)
    ids = batch["inst_id"][0].tolist()
    assert [bool(codes[0, ids.index(number)].any()) for number in (ROAD, 6000, 7000, 5000)] == [
        False,
        True,
        True,
        False,
    ]
    assert CAR not in system.find(batch).label.tolist()
