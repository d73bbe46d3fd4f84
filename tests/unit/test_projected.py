"""`--discriminator projected`: what is frozen stays so, what is to learn does, labels count, a stopped run goes on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rehearsal import rehearse
from trainer_toys import assert_same

import train as train_command
from models import MODELS
from models.losses import perceptual
from models.networks.blocks.projected import ProjectedDiscriminator, RandomMixing
from options.train_options import TrainOptions
from trainers.checkpoint import load_checkpoint
from util.batch import on_host
from util.errors import UserError

FLAGS = ["--discriminator", "projected"]


def maps(channels: tuple[int, ...], size: int) -> list[torch.Tensor]:
    return [torch.randn(2, count, size >> depth, size >> depth) for depth, count in enumerate(channels, start=1)]


def test_maps_are_mixed_across_channels_and_from_coarse_to_fine() -> None:
    torch.manual_seed(0)
    mixing, (fine, coarse) = RandomMixing((6, 3)), maps((6, 3), 16)
    weights = dict(mixing.named_buffers())
    assert not list(mixing.parameters()) and weights.keys() == mixing.state_dict().keys()
    mixed = mixing([fine, coarse])
    small = torch.einsum("oc,bchw->bohw", weights["across_channels_1"][..., 0, 0], coarse)
    torch.testing.assert_close(mixed[1], small)
    large = F.interpolate(F.conv2d(small, weights["across_scales_0"], padding=1), scale_factor=2, mode="bilinear")
    own = torch.einsum("oc,bchw->bohw", weights["across_channels_0"][..., 0, 0], fine)
    torch.testing.assert_close(mixed[0], own + large)
    torch.testing.assert_close(mixing([fine])[0], own)  # of a picture too small for more


def test_each_depth_of_at_least_four_pixels_is_judged_under_the_labels() -> None:
    torch.manual_seed(0)
    channels = (5, 6, 7, 8)
    net = ProjectedDiscriminator(label_nc=3, crop_size=64, ndf=2, channels=channels).eval()
    assert [len(heads) for heads in net.scales] == [2, 3, 4]  # type: ignore[arg-type]  # of 16, 32 and 64 pixels
    segs = [torch.randint(2, (2, 3, size, size)).float() for size in (16, 32, 64)]
    one, two = ([maps(channels, size) for size in (16, 32, 64)] for _ in range(2))
    both = net(segs, one, two)
    alone = net(segs, two)
    for scale in range(3):
        assert_same(both[1][scale], alone[0][scale])
        assert both[0][scale][-1].shape[0] == 2 and both[0][scale][-1].ndim == 2
    others = net([1 - seg for seg in segs], one)
    assert all(not torch.equal(a[-1], b[-1]) for a, b in zip(both[0], others[0], strict=True))
    single = ProjectedDiscriminator(label_nc=3, crop_size=64, ndf=2, channels=channels, multi_scale=False)
    assert len(single.scales) == 1


def test_the_generator_learns_and_what_is_frozen_does_not_change(tmp_path: Path) -> None:
    run = rehearse("spmpgan", tmp_path, *FLAGS, "--r1_gamma", "1", "--r1_every", "1", "--diffaug", "color,cutout")
    model: Any = run.model.train()
    assert model.features is model.perceptual, "one network for both"
    frozen = {**model.features.state_dict(), **dict(model.netD.mixing.named_buffers())}
    before = copy.deepcopy(frozen)
    shared = model.begin_step(on_host(run.batches[0]))
    on_D = model.losses_D(shared)
    sum(on_D.values()).backward()
    assert {"D/fake", "D/real", "D/r1"} == on_D.keys() and on_D["D/r1"] > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.netD.parameters())
    assert all(p.grad is None for p in model.netG.parameters())
    model.optimizer_D.step()
    model.losses_G(shared)["G/gan"].backward()
    assert all(stage.dec1.weight.grad.abs().sum() > 0 for stage in model.netG.stages)
    assert all(not p.requires_grad and p.grad is None for p in model.features.parameters())
    assert_same(before, frozen)


def test_a_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "WIDTHS", (4,) * 5)
    layers = perceptual.build_features("vgg19").state_dict()
    torch.save({f"features.{key}": value for key, value in layers.items()}, tmp_path / "vgg.pth")
    line = [*MODELS.get("spmpgan").tiny(tmp_path), *FLAGS, "--vgg_weights", str(tmp_path / "vgg.pth")]
    where = ["--checkpoints_dir", str(tmp_path), "--device", "cpu", "--num_workers", "0", "--no-tensorboard"]
    for name, steps in (("whole", "2"), ("parts", "1")):
        assert train_command.main([*line, *where, "--name", name, "--max_steps", steps, "--image_every", "0"]) == 0
    assert train_command.main(["--name", "parts", *where[:2], "--continue_train", "--max_steps", "2"]) == 0
    whole, parts = (load_checkpoint(tmp_path / name / "latest.pt") for name in ("whole", "parts"))
    for key in ("step", "model", "optimizers"):
        assert_same(whole[key], parts[key], key)
    held = whole["model"]["netD"]
    assert "mixing.across_scales_0" in held and not any("features" in key for key in held)


def test_missing_weights_name_the_flags_that_need_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **how: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    opt = TrainOptions().parse([*MODELS.get("spmpgan").tiny(tmp_path), "--name", "x", *FLAGS])
    with pytest.raises(UserError, match="--discriminator patch --lambda_vgg 0 trains without"):
        MODELS.get("spmpgan").from_options(opt, is_train=True)


def test_no_weights_are_asked_for_where_nothing_is_judged(tmp_path: Path) -> None:
    line = [*MODELS.get("spmpgan").tiny(tmp_path), "--name", "x", *FLAGS, "--lambda_gan", "0", "--lambda_feat", "0"]
    with pytest.raises(UserError, match="--lambda_gan 0 leaves the discriminators out"):
        MODELS.get("spmpgan").from_options(TrainOptions().parse(line), is_train=True)
