"""Files in the layout of SIEDOB's authors become runs: keys, colours, moments, classes, and the system of all four."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hash_fill import SIEDOB, fill, hash_tensor
from siedob_nets import LABEL_NC, THINGS, InstanceScene
from torch import Tensor, nn

import train as train_command
from data.records import read_class_table
from models import MODELS
from models.base_bank import BANK_FILE
from models.base_siedob import write_tiny_objects
from models.networks.blocks.discriminator import PatchDiscriminator
from models.networks.siedob.background_generator import BackgroundGenerator
from models.networks.siedob.fusion_generator import FusionGenerator
from models.networks.siedob.object_generators import ObjectInpainter, StyleObjectGenerator
from models.released_weights.siedob import CHECKPOINTS
from models.style_bank import StyleBank
from options.test_options import TestOptions
from scripts.convert_weights import main as convert
from trainers.restore import load_run
from trainers.weights import WEIGHTS_FILE
from util.errors import UserError

GENERATORS: dict[str, Callable[[], nn.Module]] = {
    "siedob_background": lambda: BackgroundGenerator(label_nc=LABEL_NC, ngf=4, things=THINGS),
    "siedob_inpaint": lambda: ObjectInpainter(class_channels=3, ngf=2),
    "siedob_style": lambda: StyleObjectGenerator(class_channels=3, ngf=4, style_dim=8),
    "siedob_fusion": lambda: FusionGenerator(ngf=4),
}
JUDGED = {"netD_BG": 37, "netD_patch": 37, "netD_inp": 7, "netD_style": 6, "netD_F": 3}


class Authors:
    """One step as its authors have it: networks that see BGR, and their checkpoint."""

    def __init__(self, model: str) -> None:
        self.model, self.nets = model, {}
        self.file: dict[str, Any] = {"epoch": 3}
        for name, (released, _) in CHECKPOINTS[model].items():
            if name == "netG":
                net = GENERATORS[model]()
            else:
                net = PatchDiscriminator(JUDGED[released.entry], ndf=4, num_layers=6, padding_mode="zeros")
            fill(net, lambda key, r=released: r.entry + r.name(key), SIEDOB)
            self.nets[name] = net.eval()
            state = {released.prefix + released.name(k): v.clone() for k, v in net.state_dict().items()}
            self.file[released.entry] = state

    def add_optimisers(self) -> None:
        for released, optimizer in CHECKPOINTS[self.model].values():
            state = self.file[released.entry]
            keys = [key for key in state if not key.endswith(("weight_u", "weight_v"))]
            moments = {i: {"step": 7, "exp_avg": hash_tensor(f"m:{k}", *state[k].shape),
                           "exp_avg_sq": hash_tensor(f"v:{k}", *state[k].shape).abs()}
                       for i, k in enumerate(keys)}  # fmt: skip
            self.file[optimizer] = {"state": moments, "param_groups": [{"params": list(range(len(keys)))}]}

    def convert(self, folder: Path, *flags: str) -> Path:
        path = folder / f"{self.model}.pth"
        torch.save(self.file, path)
        where = ["--name", self.model, "--checkpoints_dir", str(folder)]
        assert convert(["--model", self.model, "--source", str(path), *where, *flags]) == 0
        return folder / self.model


def options_of(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "opt.yaml").read_text(encoding="utf-8"))


def load_scenes(run: Path) -> Any:
    opt = TestOptions().parse(["--name", run.name, "--checkpoints_dir", str(run.parent)])
    model: Any = MODELS.get(opt.model).from_options(opt, is_train=False)
    load_run(model, run)
    return model.eval()


def scene_batch() -> Any:
    scene = InstanceScene()
    ids, inst = scene.inst.unique(return_inverse=True)
    classes = torch.where(ids >= 1000, ids // 1000, ids)
    return {"image": scene.image, "label": scene.label, "mask": scene.mask, "edge": scene.edge, "inst": inst,
            "inst_id": ids[None], "inst_class": classes[None], "name": ["golden"], "index": [0]}  # fmt: skip


@torch.no_grad()
def test_the_background_sees_rgb_and_keeps_the_release_s_rules(tmp_path: Path) -> None:
    authors = Authors("siedob_background")
    run = authors.convert(tmp_path)
    opt = options_of(run)
    assert (opt["dataset_mode"], opt["label_map"], opt["ngf"], opt["saspm"], opt["ndf"]) == (
        "cityscapes", "0:33", 4, True, 4
    )  # fmt: skip
    assert opt["foreground"] == "26:0.6:0:100,24:0.35:2:6"
    table = read_class_table(run / "classes.json")
    assert table is not None
    assert [rule.label for rule in table.objects] == [26, 24]
    assert not (run / "latest.pt").exists()  # without optimisers there is nothing to go on from
    model, scene = load_scenes(run), InstanceScene()
    others = scene.seg, scene.edge, scene.mask, 1 - scene.objects(26000)
    theirs = authors.nets["netG"](scene.image.flip(1), *others)
    assert torch.allclose(model.netG(scene.image, *others).flip(1), theirs, atol=1e-4)
    assert model.netG.styled.tolist() == [i < 24 for i in range(34)]


def test_a_whole_checkpoint_goes_on_with_its_moments_in_rgb(tmp_path: Path) -> None:
    authors = Authors("siedob_background")
    authors.add_optimisers()
    state = torch.load(authors.convert(tmp_path) / "latest.pt", weights_only=True)
    assert state["options"]["lambda_vgg"] == 10  # of the run, though no perceptual network was at hand
    for name, picture in (("netD", slice(34, 37)), ("netP", slice(0, 3))):
        net = PatchDiscriminator(37, ndf=4, num_layers=6, padding_mode="zeros").eval()
        net.load_state_dict(state["model"][name])
        x = torch.rand(1, 37, 64, 64)
        bgr = x.clone()
        bgr[:, picture] = x[:, picture].flip(1)
        assert torch.allclose(net(x)[-1], authors.nets[name](bgr)[-1], atol=1e-6)
        moments = state["optimizers"][name[-1]]["state"]
        assert len(moments) == 6
        first, wanted = moments[0]["exp_avg"], hash_tensor("m:dis_model.0.conv.weight_orig", 4, 37, 5, 5)
        assert torch.equal(first[:, picture].flip(1), wanted[:, picture])
        assert moments[0]["step"] == 7
    released = CHECKPOINTS["siedob_background"]["netG"][0]
    names = [released.name(key) for key, _ in authors.nets["netG"].named_parameters()]
    moments = state["optimizers"]["G"]["state"]
    assert len(moments) == len(names)
    found = moments[names.index("style2.stylelayer.spade.mlp_beta.bias")]["exp_avg_sq"]
    assert torch.equal(found, hash_tensor("v:style2.stylelayer.spade.mlp_beta.bias", 16).abs())


@pytest.mark.parametrize("prefix", [True, False])
@torch.no_grad()
def test_object_networks_know_their_classes_without_data(prefix: bool, tmp_path: Path) -> None:
    for name in ("siedob_inpaint", "siedob_style"):
        authors = Authors(name)
        authors.add_optimisers()
        released = CHECKPOINTS[name]["netG"][0]
        if not prefix:
            authors.file["netG"] = released.unprefixed(authors.file["netG"])
        run = authors.convert(tmp_path)
        opt = options_of(run)
        assert (opt["dataset_mode"], opt["dataroot"], opt["label_nc"], opt["crop_size"]) == ("objects", None, 3, 64)
        table = read_class_table(run / "classes.json")
        assert table is not None
        assert (table.names, table.scene_ids) == (("car", "person", "outside"), (26, 24))
        state = torch.load(run / "latest.pt", weights_only=True)
        net = GENERATORS[name]()
        net.load_state_dict(state["model"]["netG"])
        inputs = [torch.rand(2, c, 64, 64) for c in ((3, 1, 1, 3) if name == "siedob_inpaint" else (3, 3, 3))]
        bgr = [x.flip(1) if place == (0 if name == "siedob_inpaint" else 1) else x for place, x in enumerate(inputs)]
        ours, theirs = net.eval()(*inputs), authors.nets["netG"](*bgr)
        if name == "siedob_style":
            assert torch.allclose(ours[1], theirs[1], atol=1e-5)
            assert torch.allclose(ours[2], theirs[2], atol=1e-5)
            ours, theirs = ours[0], theirs[0]
        assert torch.allclose(ours.flip(1), theirs, atol=1e-4)


def test_an_object_network_is_trained_further(tmp_path: Path) -> None:
    authors = Authors("siedob_inpaint")
    authors.add_optimisers()
    run, data = authors.convert(tmp_path), tmp_path / "objects"
    write_tiny_objects(data)  # of a car and a person
    args = ["--name", run.name, "--checkpoints_dir", str(tmp_path), "--continue_train", "--dataroot", str(data)]
    args += "--max_steps 1 --batch_size 2 --num_workers 0 --image_every 0 --lambda_vgg 0 --no-tensorboard".split()
    assert train_command.main([*args, "--device", "cpu"]) == 0
    state = torch.load(run / "latest.pt", weights_only=True)
    assert state["step"] == 1
    assert {name: optimizer["state"][0]["step"] for name, optimizer in state["optimizers"].items()} == {"D": 8, "G": 8}


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("siedob_background", "siedob_inpaint", "siedob_style"):
        Authors(name).convert(folder)
    return folder


RUNS = ["--background_run", "siedob_background", "--inpaint_run", "siedob_inpaint", "--style_run", "siedob_style"]


@torch.no_grad()
def test_the_system_of_all_four_makes_a_picture(three_runs: Path) -> None:
    fusion = Authors("siedob_fusion")
    with pytest.raises(UserError, match="has no style bank yet"):
        fusion.convert(three_runs, *RUNS)
    assert not (three_runs / "siedob_fusion").exists()
    codes = {k: hash_tensor(f"code:{k}", 2, 8) for k in (0, 1)}
    StyleBank(codes, weights=WEIGHTS_FILE).save(three_runs / "siedob_style" / BANK_FILE)
    fusion.add_optimisers()
    run = fusion.convert(three_runs, *RUNS)
    opt = options_of(run)
    assert (opt["object_overlap"], opt["style_dim"], opt["inpaint_ngf"], opt["label_nc"]) == ("sum", 8, 2, 34)
    assert opt["foreground"].startswith("26:0.6:")  # as the release selects cars
    model, batch = load_scenes(run), scene_batch()
    out = model.generate(batch, [5])
    assert torch.equal(out * (1 - batch["mask"]), batch["image"] * (1 - batch["mask"]))
    assert model.counters["objects completed"] == 3
    assert model.counters["instances drawn from the bank"] == 2
    assert torch.equal(model.bank.codes[26], codes[0])  # classes are those of the scenes
    composed = model.compose(batch, [5])
    edge = batch["edge"] * batch["mask"]
    theirs = fusion.nets["netG"](composed.flip(1), batch["mask"], edge)
    assert torch.allclose(model.netG(composed, batch["mask"], edge).flip(1), theirs, atol=1e-4)
    weights = torch.load(run / "latest.pt", weights_only=True)["model"]
    assert weights.keys() == {"netG", "netD", "netB", "netI", "netO", "styles"}


def attempt(authors: Authors, folder: Path, *flags: str) -> Callable[[], Path]:
    return lambda: authors.convert(folder, *flags)


def test_wrong_files_and_flags_are_named(tmp_path: Path) -> None:
    background, style, fusion = (Authors(f"siedob_{step}") for step in ("background", "style", "fusion"))
    style_as_inpaint = Authors("siedob_inpaint")
    style_as_inpaint.file = style.file
    missing = Authors("siedob_inpaint")
    missing.file["netG"].pop("fg_inpainting.dec22.conv2d.bias")
    empty = Authors("siedob_fusion")
    empty.file = background.file
    four = Authors("siedob_inpaint")
    four.file["netG"]["fg_inpainting.init_conv.conv.weight"] = torch.zeros(2, 9, 7, 7)
    cases = [
        (attempt(four, tmp_path), "--dataroot is missing: which are the 3 classes"),
        (attempt(style_as_inpaint, tmp_path), "--model siedob_inpaint: the file's generator is none of that step"),
        (attempt(missing, tmp_path), "missing: dec22.conv2d.bias"),
        (attempt(empty, tmp_path, *RUNS), "no entry 'netG_F'"),
        (attempt(background, tmp_path, "--label_nc", "19"), "trained with 34 classes"),
        (attempt(background, tmp_path, "--style_run", "x"), "only --model siedob_fusion builds on other runs"),
        (attempt(fusion, tmp_path), "--background_run RUN is missing"),
        (attempt(fusion, tmp_path, *RUNS), "no run at"),
    ]
    for call, fault in cases:
        with pytest.raises(UserError, match=fault):
            call()
        assert not any(tmp_path.glob("siedob_*/"))
    background.convert(tmp_path)
    with pytest.raises(UserError, match="exists already"):
        background.convert(tmp_path)


def test_without_self_propagation_the_run_says_so(tmp_path: Path) -> None:
    authors = Authors("siedob_background")
    state: dict[str, Tensor] = authors.file["netG_BG"]
    authors.file["netG_BG"] = {key: value for key, value in state.items() if not key.startswith("style")}
    assert options_of(authors.convert(tmp_path))["saspm"] is False
