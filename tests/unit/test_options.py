"""Layers of options, their order, and what a wrong flag or key is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from models import MODELS
from options.base_options import OPTIONS_FILE, Options
from options.edit_options import EditOptions
from options.parser import StrictParser, check_name
from options.run_options import RunOptions
from options.test_options import TestOptions
from options.train_options import TrainOptions
from scripts.build_style_bank import BankOptions
from util.errors import UserError

BASE = ["--name", "run", "--dataset_mode", "streets"]


def parse(*args: str) -> Options:
    return TrainOptions().parse([*BASE, *args])


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_layers_from_weakest_to_strongest(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", "ngf: 16\nlr_G: 1e-4\nlr_D: 2e-4\ntensorboard: false\nmodel: spmpgan\n")
    opt = parse("--config", config, "--lr_D", "0.5")
    assert (opt.ngf, opt.lr_G, opt.lr_D, opt.tensorboard, opt.model) == (16, 1e-4, 0.5, False, "spmpgan")
    assert isinstance(opt.lr_G, float)
    assert opt._set_by["ngf"] == "config"
    assert opt._set_by["lr_D"] == "command line"
    assert opt._set_by["ndf"] == "default"
    assert not hasattr(opt, "style_dim")  # the flags are the chosen model's
    assert parse("--config", config, "--model", "divsem").style_dim == 128


def test_a_config_can_name_the_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path / "c.yaml", f"name: cv\ncheckpoints_dir: {tmp_path / 'runs'}\ndataset_mode: streets\n")
    named = ["--config", config]
    (tmp_path / "runs/cv").mkdir(parents=True)
    TrainOptions().parse([*named, "--ngf", "12"]).save(tmp_path / "runs/cv" / OPTIONS_FILE)
    assert TrainOptions().parse([*named, "--continue_train"]).ngf == 12
    assert TrainOptions().parse(named).ngf != 12
    assert TrainOptions().parse([*named, "--continue_train", "--name", "other"]).ngf != 12
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    (tmp_path / "runs/cv/step_1.pt").touch()
    again = TrainOptions().parse(named)
    assert again.continue_train and again.ngf == 12


def test_saved_options_are_a_config_again(tmp_path: Path) -> None:
    opt = parse("--ngf", "12", "--label_map", "255:0", "--no-tensorboard")
    opt.save(tmp_path / OPTIONS_FILE)
    again = TrainOptions().parse(["--config", str(tmp_path / OPTIONS_FILE)])
    assert {k: v for k, v in again.values().items() if k != "config"} == {
        k: v for k, v in opt.values().items() if k != "config"
    }
    assert "provenance" in yaml.safe_load((tmp_path / OPTIONS_FILE).read_text())


def test_options_are_frozen() -> None:
    opt = parse()
    with pytest.raises(AttributeError, match="frozen"):
        opt.ngf = 3


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--modle", "divsem"], ["--modle", "--model"]),
        (["--lambda_vg", "3"], ["--lambda_vg is unknown", "--lambda_vgg"]),
        (["--lambda", "3"], ["--lambda is unknown"]),  # no abbreviations
        (["--model", "divsen"], ["--model 'divsen'", "'divsem'", "spmpgan"]),
        (["--dataset_mode", "street"], ["--dataset_mode 'street'", "'streets'"]),
        (["--crop_size", "100"], ["--crop_size 100", "multiple of 64"]),
        (["--ngf", "many"], ["--ngf", "many"]),
        (["--precision", "fp16"], ["--precision", "bf16"]),
        (["--ngf", "0"], ["--ngf", "at least 1"]),
        (["--lr_G", "-1"], ["--lr_G", "above 0"]),
        (["--beta1", "2"], ["--beta1", "below 1"]),
        (["--style_bank_size", "0"], ["--style_bank_size", "at least 1"]),
        (["--ema", "1.5"], ["--ema 1.5"]),
        (["--max_steps", "-1"], ["--max_steps -1"]),
        (["--batch_size", "0"], ["--batch_size 0"]),
        (["--name", "../up"], ["--name '../up'"]),
        (["stray"], ["stray argument"]),
        (["--config", "/nowhere/x.yaml"], ["--config /nowhere/x.yaml", "no such file"]),
    ],
)
def test_wrong_flags_are_answered(args: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse(*args)
    assert caught.value.exit_code == 2
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lambda_vg: 3\n", ["'lambda_vg' is not an option", "'lambda_vgg'"]),
        ("ngf: true\n", ["ngf", "not true or false"]),
        ("tensorboard: 3\n", ["tensorboard", "true or false"]),
        ("precision: fp8\n", ["precision"]),
        ("ngf: {a: 1}\n", ["'ngf' holds a mapping"]),
        ("- a\n- b\n", ["expected 'option: value'"]),
        ("a: [\n", ["not a readable YAML"]),
        ("x: !!python/object/apply:os.system ['true']\n", ["not a readable YAML"]),
    ],
)
def test_wrong_yaml_is_answered(text: str, parts: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(UserError) as caught:
        parse("--config", path)
    for part in (*parts, "bad.yaml") if "precision" not in text else parts:
        assert part in str(caught.value)


def test_a_name_is_needed() -> None:
    with pytest.raises(UserError, match="--name is missing"):
        TrainOptions().parse([])
    with pytest.raises(UserError, match="--name is missing"):
        TestOptions().parse([])


@pytest.mark.parametrize(
    ("options", "args", "parts"),
    [
        (TestOptions, ["--help"], ["--metrics", "--task", "kind editing"]),
        (TestOptions, ["-h", "--model", "s2prest"], ["--metrics", "--content", "kind stylising"]),
        (EditOptions, ["--help"], ["--outpaint", "kind editing"]),
        (BankOptions, ["--help"], ["--style_bank_size", "kind editing"]),
    ],
)
def test_help_needs_no_run(
    options: type[RunOptions], args: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        options().parse(args)
    assert left.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (*parts, "--name RUN --help"):
        assert part in shown


def test_testing_takes_the_run_but_not_how_it_ran(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    parse("--ngf", "12", "--seed", "5", "--batch_size", "9", "--crop_size", "128").save(folder / OPTIONS_FILE)
    where = ["--checkpoints_dir", str(tmp_path / "runs")]
    opt = TestOptions().parse(["--name", "run", *where])
    assert (opt.ngf, opt.crop_size, opt.model) == (12, 128, "divsem")
    assert (opt.seed, opt.batch_size) == (0, 4)  # masks of all runs are alike unless --seed is given to test.py
    with pytest.raises(UserError, match="Did you mean 'run'"):
        TestOptions().parse(["--name", "runn", *where])
    with pytest.raises(UserError, match="--mask_dir"):
        TestOptions().parse(["--name", "run", "--task", "folder", *where])


def test_continuing_takes_the_runs_options(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    parse("--ngf", "12", "--max_steps", "5").save(folder / OPTIONS_FILE)
    opt = TrainOptions().parse(["--name", "run", "--checkpoints_dir", str(tmp_path), "--continue_train"])
    assert (opt.ngf, opt.max_steps, opt.continue_train) == (12, 5, True)


@pytest.mark.parametrize("flag", ["model", "dataset_mode"])
@pytest.mark.parametrize("text", ["[divsem]", "5", "true", "{a: 1}"])
def test_a_method_or_data_set_that_is_no_name_is_told(flag: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "run" / OPTIONS_FILE
    file.parent.mkdir()
    file.write_text(f"{flag}: {text}\n")
    with pytest.raises(UserError, match=rf"run/opt\.yaml: --{flag} '.*' is unknown"):
        TestOptions().parse(["--name", "run", "--checkpoints_dir", str(tmp_path)])
    with pytest.raises(UserError, match=rf"--{flag} '.*' is unknown"):
        TrainOptions().parse(["--name", "new", "--config", str(file)])


@pytest.mark.parametrize("flag", ["lambda_vgg", "perceptual", "vgg_weights"])
def test_flags_of_several_families_are_the_same_but_for_their_default(flag: str) -> None:
    found = []
    for name, mode in (("divsem", "streets"), ("siedob_style", "objects"), ("semia", "single_image")):
        options = TrainOptions()
        options.model = MODELS.get(name)
        action = options.build_parser(mode).actions_by_name()[flag]
        found.append((action.type, action.choices, action.metavar, action.help))
    assert found == found[:1] * 3


def test_models_cannot_set_defaults_that_do_not_exist() -> None:
    parser = StrictParser()
    parser.add_argument("--colour", choices=("red", "blue"))
    with pytest.raises(ValueError, match="no flag --color"):
        parser.set_defaults(color="red")
    with pytest.raises(ValueError, match="not one of"):
        parser.set_defaults(colour="green")
    parser.set_defaults(colour="red")
    assert parser.parse_args([]).colour == "red"


def test_a_name_too_long_for_a_folder_is_refused() -> None:
    check_name("é" * 100)
    for name in ("a" * 300, "é" * 101):
        with pytest.raises(UserError, match="at most 200"):
            check_name(name)
        with pytest.raises(UserError, match="at most 200"):
            TrainOptions().parse(["--name", name, "--continue_train"])
