"""Authors' checkpoints become runs: keys, colours, moments, codes; refused as a whole where anything does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hash_fill import assert_stats, fill, formula_inputs, golden, hash_tensor
from PIL import Image
from torch import Tensor

import train as train_command
from data.records import read_class_table
from models import MODELS
from models.networks.blocks.discriminator import MultiScaleDiscriminator
from models.networks.blocks.scales import resize_nearest
from models.networks.blocks.spm import Modulation
from models.networks.cascade.stages import CascadeGenerator
from models.networks.cascade.style_encoder import StyleEncoder
from models.released_weights.divsem import released_discriminator_key, released_generator_key
from options.parser import read_yaml
from options.test_options import TestOptions
from scripts.convert_weights import main as convert
from trainers.restore import load_run
from util.errors import UserError

GOLDEN = golden("divsem_golden.json")
SMALL = Modulation(hidden=8)


def released_state(net: torch.nn.Module) -> dict[str, Tensor]:
    """The state of a hash-filled generator as its authors would have saved it (in BGR)."""
    fill(net, released_generator_key)
    return {released_generator_key(k): v.clone() for k, v in net.state_dict().items()}


def divsem_source(**widths: Any) -> dict[str, Tensor]:
    encoder = StyleEncoder(style_dim=widths.pop("style_dim"), nef=widths.pop("nef", 16))
    return released_state(CascadeGenerator(style_encoder=encoder, label_nc=34, crop_size=256, **widths))


def load(tmp_path: Path, name: str) -> Any:
    opt = TestOptions().parse(["--name", name, "--checkpoints_dir", str(tmp_path)])
    model: Any = MODELS.get(opt.model).from_options(opt, is_train=False)
    load_run(model, tmp_path / name)
    return model.eval(), opt


@torch.no_grad()
def test_a_converted_divsem_gives_the_authors_pictures(tmp_path: Path) -> None:
    """The golden numbers are of BGR tensors; the converted run is fed with RGB and must give them reversed."""
    torch.save({"netG": divsem_source(ngf=4, style_dim=8)}, tmp_path / "best.pth")
    codes = {c: [0.5 * hash_tensor(f"code:{c}:0", 8)[None]] for c in range(32)}
    torch.save(codes, tmp_path / "style_codes.pt")
    args = [
        "--model",
        "divsem",
        "--source",
        str(tmp_path / "best.pth"),
        "--style_codes",
        str(tmp_path / "style_codes.pt"),
    ]
    assert convert([*args, "--label_nc", "34", "--name", "run", "--checkpoints_dir", str(tmp_path)]) == 0
    model, opt = load(tmp_path, "run")
    assert (opt.style_pool, opt.inst_class_rule, opt.crop_size, opt.ngf) == ("all", "mod120", 256, 4)
    model.prepare_inference(
        tmp_path / "run", lambda limit: pytest.fail("the bank is there"), weights="weights.safetensors"
    )
    raw = formula_inputs(34)
    ids, dense = raw["inst_original"].unique(return_inverse=True)
    from instance_edges import instance_edges

    batch: Any = {
        "image": raw["image"].flip(1), "label": raw["label"], "mask": raw["mask"], "inst": dense, "name": ["golden"],
        "edge": instance_edges(raw["inst_original"]), "inst_id": ids[None], "inst_class": ids[None] % 120, "index": [0],
    }  # fmt: skip
    out = model.netG(*model.generator_inputs(batch)._replace(bank_codes=model.draw_codes(batch, [0])))
    expected = GOLDEN["units"]["small_divsem_ngf4_style8_lab34"]
    for k in range(3):
        assert_stats(out.fake[k].flip(1), expected[f"fake_G{k + 1}"])


def test_the_class_names_are_those_of_the_releases_labels(tmp_path: Path) -> None:
    """The Flickr-Landscape model counts ADE20K's classes from 0, SPMPGAN's room model from 1."""
    encoder = StyleEncoder(style_dim=4, nef=2)
    wide = {"label_nc": 151, "crop_size": 256, "ngf": 2, "modulation": SMALL}
    nets = {"divsem": CascadeGenerator(style_encoder=encoder, **wide), "spmpgan": CascadeGenerator(**wide)}
    tables = {}
    for model, net in nets.items():
        torch.save({"netG": released_state(net)}, tmp_path / "best.pth")
        where = ["--name", model, "--checkpoints_dir", str(tmp_path)]
        assert convert(["--model", model, "--source", str(tmp_path / "best.pth"), *where]) == 0
        tables[model] = read_class_table(tmp_path / model / "classes.json")
    assert read_yaml(tmp_path / "spmpgan" / "opt.yaml", "run")["stuff_instances"] == "released"
    flickr, room = tables["divsem"], tables["spmpgan"]
    assert flickr is not None
    assert room is not None
    named = {flickr.names[i]: i for i in (2, 4, 13, 16, 21, 52)}
    assert named == {"sky": 2, "tree": 4, "earth": 13, "mountain": 16, "water": 21, "path": 52}
    assert (flickr.names[149], flickr.names[150], flickr.things) == ("flag", "class 150", frozenset())
    assert (room.names[:4], room.names[150]) == (("other", "wall", "building", "sky"), "flag")
    assert {room.names.index("bed"), room.names.index("chair")} <= room.things
    assert room.names.index("wall") not in room.things
    assert (flickr.palette[2] == room.palette[3]).all()


@torch.no_grad()
def test_discriminators_see_rgb_after_conversion_and_training_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    netG = CascadeGenerator(label_nc=5, crop_size=256, ngf=2, modulation=SMALL)
    netD = MultiScaleDiscriminator(label_nc=5, crop_size=256, ndf=4).eval()
    fill(netD, lambda key: released_discriminator_key(key)[1])
    source: dict[str, Any] = {"epoch": 3, "netG": released_state(netG)}
    for key, value in netD.state_dict().items():
        entry, name = released_discriminator_key(key)
        source.setdefault(entry, {})[name] = value.clone()
    for entry, optimizer in (("netG", "optimizer_G"), *((f"netD_{k}", f"optimizer_D_{k}") for k in (1, 2, 3))):
        keys = [k for k in source[entry] if not k.endswith(("weight_u", "weight_v"))]
        moments = {i: {"step": 7, "exp_avg": hash_tensor(f"m:{entry}:{k}", *source[entry][k].shape),
                       "exp_avg_sq": hash_tensor(f"v:{entry}:{k}", *source[entry][k].shape).abs()}
                   for i, k in enumerate(keys)}  # fmt: skip
        source[optimizer] = {"state": moments, "param_groups": [{"params": list(range(len(keys)))}]}
    torch.save(source, tmp_path / "latest_ckpt.pth")
    where = ["--name", "run", "--checkpoints_dir", str(tmp_path)]
    assert convert(["--model", "spmpgan", "--source", str(tmp_path / "latest_ckpt.pth"), *where]) == 0
    state = torch.load(tmp_path / "run" / "latest.pt", weights_only=True)
    ours = MultiScaleDiscriminator(label_nc=5, crop_size=256, ndf=4).eval()
    ours.load_state_dict(state["model"]["netD"])
    segs = [resize_nearest(torch.rand(1, 5, 256, 256), s) for s in (64, 128, 256)]
    pictures = [torch.rand(1, 3, s, s) for s in (64, 128, 256)]
    theirs = netD(segs, pictures)[0]
    for a, b in zip(theirs, ours(segs, [p.flip(1) for p in pictures])[0], strict=True):
        assert torch.allclose(a[-1], b[-1], atol=1e-6)
    # moments: ours, taken by name and with the colours reversed back, are theirs
    names = [released_generator_key(k) for k, _ in netG.named_parameters()]
    first = names.index("G1.enc1.conv2d.weight")
    moment = state["optimizers"]["G"]["state"][first]
    shape = netG.state_dict()["stages.0.enc1.conv.weight"].shape
    assert torch.equal(moment["exp_avg"].flip(1), hash_tensor("m:netG:G1.enc1.conv2d.weight", *shape))
    bias = names.index("G3.dec2.gated_conv2d.mlp_gamma.bias")
    assert torch.equal(state["optimizers"]["G"]["state"][bias]["exp_avg"],
                       hash_tensor("m:netG:G3.dec2.gated_conv2d.mlp_gamma.bias", 2))  # fmt: skip
    judge = [f"{e}:{n}" for e, n in (released_discriminator_key(k) for k, _ in netD.named_parameters())]
    second = state["optimizers"]["D"]["state"][judge.index("netD_2:dis_model.0.conv.weight_orig")]["exp_avg_sq"]
    wanted = hash_tensor("v:netD_2:dis_model.0.conv.weight_orig", 4, 8, 5, 5).abs()
    assert torch.equal(second[:, :5], wanted[:, :5])
    assert torch.equal(second[:, 5:], wanted[:, 5:].flip(1))
    assert second.shape == wanted.shape


def test_a_converted_checkpoint_is_continued(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "test"):
        for part, mode in (("images", "RGB"), ("labels", "L")):
            (data / split / part).mkdir(parents=True)
            Image.new(mode, (256, 256)).save(data / split / part / "a.png")
    (data / "classes.json").write_text(
        json.dumps({"num_classes": 5, "classes": [{"id": i, "name": f"c{i}"} for i in range(5)]})
    )
    test_discriminators_see_rgb_after_conversion_and_training_goes_on(tmp_path)
    args = [
        "--name",
        "run",
        "--checkpoints_dir",
        str(tmp_path),
        "--continue_train",
        "--max_steps",
        "1",
        "--batch_size",
        "1",
    ]
    args += [
        "--dataset_mode",
        "custom",
        "--dataroot",
        str(data),
        "--num_workers",
        "0",
        "--image_every",
        "0",
        "--lambda_vgg",
        "0",
    ]
    assert train_command.main([*args, "--no-tensorboard", "--device", "cpu"]) == 0
    state = torch.load(tmp_path / "run" / "latest.pt", weights_only=True)
    assert state["step"] == 1
    assert state["optimizers"]["D"]["state"][0]["step"] == 8


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: s.pop("G2.enc3.mlp_gamma.bias"), "missing: G2.enc3.mlp_gamma.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown: extra"),
        (lambda s: s.update({"G2.dec1.conv.weight": torch.zeros(3, 9, 3, 3)}), r"G2.dec1.conv.weight has shape \(3, 9"),
        (lambda s: s.pop("G1.enc1.conv2d.weight"), "no SPMPGAN or DivSem generator"),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_written(change: Any, fault: str, tmp_path: Path) -> None:
    state = released_state(CascadeGenerator(label_nc=5, crop_size=256, ngf=2, modulation=SMALL))
    change(state)
    torch.save({"netG": state}, tmp_path / "best.pth")
    args = [
        "--model",
        "spmpgan",
        "--source",
        str(tmp_path / "best.pth"),
        "--name",
        "run",
        "--checkpoints_dir",
        str(tmp_path),
    ]
    with pytest.raises(UserError, match=fault):
        convert(args)
    assert not (tmp_path / "run").exists()


class Payload:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_wrong_files_and_flags_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, where = tmp_path / "best.pth", ["--name", "run", "--checkpoints_dir", str(tmp_path)]

    def attempt(*args: str) -> None:
        convert(["--source", str(path), *where, *args])

    with pytest.raises(UserError, match="no such file"):
        attempt("--model", "spmpgan")
    torch.save({"netG": Payload()}, path)
    with pytest.raises(UserError, match="not read"):
        attempt("--model", "spmpgan")
    assert "executed" not in capsys.readouterr().out
    torch.save({"weights": 1}, path)
    with pytest.raises(UserError, match="no entry 'netG'"):
        attempt("--model", "spmpgan")
    torch.save({"netG": released_state(CascadeGenerator(label_nc=5, crop_size=256, ngf=2, modulation=SMALL))}, path)
    with pytest.raises(UserError, match="trained with 5 classes"):
        attempt("--model", "spmpgan", "--label_nc", "151")
    with pytest.raises(UserError, match="holds a spmpgan generator"):
        attempt("--model", "divsem")
    attempt("--model", "spmpgan")
    with pytest.raises(UserError, match="exists already"):
        attempt("--model", "spmpgan")
    with pytest.raises(UserError, match="needs --dataroot"):
        import test as test_command

        test_command.main([*where, "--metrics", "l1"])


def test_colours_are_reversed_in_exactly_the_listed_tensors() -> None:
    from models.released_weights.divsem import to_rgb

    with torch.device("cpu"):
        state = divsem_source(ngf=2, style_dim=4, nef=2)
    changed = {key for key, value in state.items() if not torch.equal(to_rgb(key, value), value)}
    wanted = {f"G{k}.enc1.{part}.weight" for k in (1, 2, 3) for part in ("conv2d", "mlp_shared.0")}
    wanted |= {f"G{k}.dec1.conv.weight" for k in (1, 2, 3)} | {"zencoder.enc1.conv.weight"}
    assert changed == wanted
    assert all(torch.equal(to_rgb(key, to_rgb(key, state[key])), state[key]) for key in changed)
    assert torch.equal(to_rgb("zencoder.enc1.conv.weight", state["zencoder.enc1.conv.weight"])[:, 3],
                       state["zencoder.enc1.conv.weight"][:, 3])  # fmt: skip
