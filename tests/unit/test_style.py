"""Mask-aware style: pooling against a plain loop, the fallback, the bank."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers
from torch import Tensor

from models.networks.blocks.segments import Segments
from models.networks.cascade.mask_aware import StylePolicy
from models.networks.cascade.style_encoder import StyleEncoder
from models.style_bank import BankBuilder, CodeStore, StyleBank
from scripts.benchmarks.as_released import plain_means, plain_paint
from util.errors import UserError


@given(seed=integers(0, 10_000), count=integers(1, 9), side=integers(1, 20))
@settings(deadline=None, max_examples=25)
def test_segment_means_equal_a_plain_loop(seed: int, count: int, side: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, side, side + 1, generator=g)
    inst = torch.randint(0, count, (2, side, side + 1), generator=g)
    valid = (torch.rand(2, 1, side, side + 1, generator=g) > 0.4).float()
    segments = Segments(inst, count + 2)  # two rows of padding
    assert torch.allclose(segments.mean(x), plain_means(x, inst, count + 2), atol=1e-5)
    assert torch.allclose(segments.mean(x, valid), plain_means(x, inst, count + 2, valid), atol=1e-5)
    codes = torch.randn(2, count + 2, 4, generator=g)
    painted = segments.paint(codes)
    assert torch.equal(painted, plain_paint(codes, inst))


def encoder(style_pool: str = "valid") -> StyleEncoder:
    torch.manual_seed(3)
    return StyleEncoder(style_dim=6, nef=2, policy=StylePolicy(pool=style_pool)).eval()


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """Three upright bands: visible, half erased, erased."""
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(5)) * 2 - 1
    inst = (torch.arange(48) // 16).expand(1, 32, 48).contiguous()
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., 24:] = 1
    return image, mask, inst


@torch.no_grad()
def test_valid_pooling_reads_visible_pixels_alone() -> None:
    image, mask, inst = scene()
    net = encoder()
    pixel = net.pixel_codes(image, 1 - mask)
    visible = pixel[0, :, :, 16:24].mean((1, 2))
    codes = net(image, mask, inst, 3, torch.zeros(1, 3, 6))
    assert torch.allclose(codes[0, 2], net.normalise(torch.zeros(1, 1, 6), torch.ones(1, 1))[0, 0], atol=1e-6)
    assert torch.allclose(codes[0, 1], net.normalise(visible[None, None], torch.full((1, 1), 0.5))[0, 0], atol=1e-5)
    whole = pixel[0, :, :, 16:32].mean((1, 2))
    released = encoder("all")(image, mask, inst, 3, torch.zeros(1, 3, 6))
    assert torch.allclose(released[0, 1], net.normalise(whole[None, None], torch.full((1, 1), 0.5))[0, 0], atol=1e-5)
    assert not torch.allclose(codes[0, 1], released[0, 1], atol=1e-4)


@torch.no_grad()
def test_with_a_bank_erased_pixels_have_no_influence() -> None:
    image, mask, inst = scene()
    net, codes = encoder(), torch.randn(1, 3, 6)
    other = torch.where(mask > 0, torch.rand_like(image), image)
    assert torch.equal(net(image, mask, inst, 3, codes), net(other, mask, inst, 3, codes))
    assert not torch.equal(net(image, mask, inst, 3), net(other, mask, inst, 3))  # the training fallback does look


@torch.no_grad()
def test_fallback_is_the_mean_over_the_unerased_picture() -> None:
    image, mask, inst = scene()
    net = encoder()
    raw = net.raw_codes(image, inst, 3)
    codes = net(image, mask, inst, 3)
    assert torch.allclose(codes[0, 2], net.normalise(raw[:, 2:], torch.ones(1, 1))[0, 0], atol=1e-6)


@torch.no_grad()
def test_knowing_whether_an_instance_is_hidden_changes_nothing() -> None:
    image, mask, inst = scene()
    net = encoder()
    for erased, hidden in ((mask, True), (torch.zeros_like(mask), False)):
        found = net(image, erased, inst, 3)
        assert torch.equal(net(image, erased, inst, 3, hidden=hidden), found)
        assert torch.equal(net(image, erased, inst, 3, hidden=True), found)  # said in vain, it only takes longer


def test_bank_is_capped_and_independent_of_order(tmp_path: Path) -> None:
    codes = torch.arange(40.0).view(10, 2, 2)
    ids = torch.tensor([[7, 9]] * 10)
    classes = torch.tensor([[1, 3]] * 9 + [[1, -1]])
    names = [f"picture{i}" for i in range(10)]
    forward, backward = BankBuilder(cap=4, seed=0), BankBuilder(cap=4, seed=0)
    forward.add(codes, ids, classes, names)
    for i in reversed(range(10)):
        backward.add(codes[i : i + 1], ids[i : i + 1], classes[i : i + 1], names[i : i + 1])
    bank = forward.bank(weights="step 2")
    assert {label: len(rows) for label, rows in bank.codes.items()} == {1: 4, 3: 4}
    assert all(torch.equal(bank.codes[c], backward.bank(weights="step 2").codes[c]) for c in (1, 3))
    other = BankBuilder(cap=4, seed=1)
    other.add(codes, ids, classes, names)
    assert not torch.equal(other.bank(weights="").codes[1], bank.codes[1])
    bank.save(tmp_path / "bank.safetensors")
    told = json.loads((tmp_path / "bank.json").read_text())
    assert [len(told["codes"][str(c)]) for c in (1, 3)] == [4, 4]
    wider = BankBuilder(cap=6, seed=0)
    wider.add(codes, ids, classes, names)
    assert torch.equal(wider.bank(weights="").codes[1][:4], bank.codes[1])
    again = StyleBank.load(tmp_path / "bank.safetensors", style_dim=2)
    assert torch.equal(again.codes[3], bank.codes[3])
    assert again.weights == "step 2"
    assert torch.equal(again.draw(3, random.Random(4)), bank.draw(3, random.Random(4)))  # type: ignore[arg-type]
    assert again.draw(2, random.Random(4)) is None
    with pytest.raises(UserError, match="--style_dim is 5"):
        StyleBank.load(tmp_path / "bank.safetensors", style_dim=5)


def test_regions_of_one_id_are_kept_in_any_order_of_the_pictures() -> None:
    """Each picture has three regions of one id and class, as `--label_map` makes them of three classes."""
    codes, ids = torch.arange(36.0).view(6, 3, 2), torch.full((6, 3), 7)
    names = [f"picture{i}" for i in range(6)]
    found = []
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]):
        builder = BankBuilder(cap=5, seed=0)
        builder.add(codes[order], ids[order], torch.ones_like(ids), [names[i] for i in order])
        found.append(builder.bank(weights=""))
    assert torch.equal(found[0].codes[1], found[1].codes[1])
    rows = {tuple(row) for row in codes.view(-1, 2).tolist()}
    assert len(found[0].codes[1].unique(dim=0)) == 5 and {tuple(r) for r in found[0].codes[1].tolist()} <= rows
    for row, origin in zip(found[0].codes[1], found[0].origins[1], strict=True):
        assert row.tolist() in codes[names.index(origin.picture)].tolist()


def test_pictures_that_would_leave_no_code_need_not_be_encoded() -> None:
    """The bank is the same without them; a class that is not full wants every picture."""
    rng = random.Random(0)
    ids = torch.tensor([[rng.randrange(1000), rng.randrange(1000, 2000), 7] for _ in range(300)])
    classes = torch.tensor([[1, 1, 3 if i % 97 == 0 else -1] for i in range(300)])
    codes, names = torch.randn(300, 3, 2), [f"picture{i}" for i in range(300)]
    whole, sparing = BankBuilder(cap=5, seed=0), BankBuilder(cap=5, seed=0)
    whole.add(codes, ids, classes, names)
    encoded = []
    for place in range(0, 300, 3):
        batch = [x[place : place + 3] for x in (codes, ids, classes)]
        rows = sparing.wanted(batch[1], batch[2], names[place : place + 3])
        sparing.add(*(x[rows] for x in batch), [names[place + row] for row in rows])
        encoded += [place + row for row in rows]
    expected, found = whole.bank(weights=""), sparing.bank(weights="")
    assert all(torch.equal(found.codes[label], expected.codes[label]) for label in (1, 3))
    assert found.origins == expected.origins
    assert {0, 97, 194, 291} <= set(encoded) and len(encoded) < 60


def test_damaged_bank_is_named(tmp_path: Path) -> None:
    path = tmp_path / "style_bank.safetensors"
    path.write_bytes(b"no bank at all")
    with pytest.raises(UserError, match=r"style_bank\.safetensors: not a style bank"):
        StyleBank.load(path, style_dim=2)


def test_codes_stored_in_half_precision_are_computed_with_in_single() -> None:
    store = CodeStore()
    store.load_state_dict({"class_6": torch.tensor([[0.5, 1 / 3]]).half()})
    (codes,) = store.bank().codes.values()
    assert codes.dtype == torch.float32 and torch.equal(codes, torch.tensor([[0.5, 1 / 3]]).half().float())
