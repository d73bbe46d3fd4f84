"""SemIA's released generator becomes a run that renders what the released network renders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from semia_fill import VALUES, check, fill, hashed, picture, segmentation, table
from torch import Tensor

import test as test_command
from models.networks.semia.generator import SemIAGenerator
from models.released_weights.semia import UNUSED
from models.semia_model import SemIAModel
from scripts.convert_weights import main as convert
from trainers.restore import load_run
from util.errors import UserError
from util.images import read_image


def released(path: Path) -> dict[str, Tensor]:
    """Write a file like the authors', with the golden weights and the layer that nothing reads."""
    net = SemIAGenerator().double()
    fill(net, "G")
    state = {key: value.float() if value.is_floating_point() else value for key, value in net.state_dict().items()}
    assert state.keys() == table("G").keys()
    state[f"{UNUSED}main.1.weight_orig"] = hashed("tail", 256, 256, 3, 3).float()
    torch.save(state, path)
    return state


@pytest.fixture
def args(tmp_path: Path) -> list[str]:
    released(tmp_path / "latest_net_G.pth")
    SemIAModel.tiny(tmp_path)  # writes a picture, its layout and targets
    source = ["--model", "semia", "--source", str(tmp_path / "latest_net_G.pth")]
    return [*source, "--name", "run", "--checkpoints_dir", str(tmp_path), "--dataroot", str(tmp_path / "analogy")]


def test_a_released_generator_is_tested_as_a_run(args: list[str], tmp_path: Path) -> None:
    assert convert([*args, "--resize", "0.85"]) == 0
    model = SemIAModel(netG=SemIAGenerator())
    load_run(model, tmp_path / "run")
    model.netG.double().eval()

    with torch.no_grad():
        out = model.netG(picture("src_img"), segmentation("src_seg"), segmentation("tgt_seg")).image
    check(out, VALUES["G_eval"]["fake"], 1e-4)  # the file is float32
    where = ["--name", "run", "--checkpoints_dir", str(tmp_path), "--device", "cpu"]
    assert test_command.main([*where, "--metrics", "l1,layout"]) == 0
    assert read_image(tmp_path / "run" / "results" / "analogy" / "disc.png").shape == (32, 40, 3)


def test_other_files_are_told(args: list[str], tmp_path: Path) -> None:
    file = tmp_path / "latest_net_G.pth"
    with pytest.raises(UserError, match="--dataroot is missing"):
        convert(args[:-2])
    state = torch.load(file, weights_only=True)
    del state["FiLM_c2i_alpha.bottlenecks.0.1.bias"]
    torch.save(state, file)
    with pytest.raises(UserError, match=r"does not fit SemIA's generator: FiLM_c2i_alpha\.bottlenecks\.0\.1\.bias"):
        convert(args)
    torch.save({"model": state}, file)
    with pytest.raises(UserError, match=r"expected the authors' <step>_net_G\.pth"):
        convert(args)
    assert not (tmp_path / "run").exists()


def test_flags_of_other_methods_are_refused(args: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--label_nc: --model semia does not take it"):
        convert([*args, "--label_nc", "3"])
    with pytest.raises(UserError, match="--resize: --model divsem does not take it"):
        convert(["--model", "divsem", *args[2:], "--resize", "0.5"])
