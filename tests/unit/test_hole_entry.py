"""`--hole_entry`: what the first stage sees of the erased part is as bright as what it is said to be of."""

from __future__ import annotations

import pytest
import torch

from models.networks.blocks.scales import resize_bilinear
from models.networks.blocks.spm import Modulation
from models.networks.cascade.entry import HOLE_ENTRIES, first_entry
from models.networks.cascade.stages import CascadeGenerator
from models.networks.cascade.style_encoder import StyleEncoder

COUNT = 5


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two pictures of instances in rows, 3 wholly erased, 4 in the second picture alone; the first is darker."""
    torch.manual_seed(0)
    image = torch.rand(2, 3, 64, 64) - torch.tensor([0.9, 0.1]).view(2, 1, 1, 1)
    inst = torch.arange(64)[:, None].expand(2, 64, 64).clone() // 16
    inst[1, :8, :8] = 4
    mask = torch.zeros(2, 1, 64, 64)
    mask[..., 8:56, 12:52] = 1
    mask[..., 48:, :] = 1
    return image, mask, inst


def plain(image: torch.Tensor, mask: torch.Tensor, inst: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the entry of one picture, one instance after the other."""
    y = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1).mul(image).sum(0)
    visible, out = mask[0] == 0, image.clone()
    for i in range(COUNT):
        own = (inst == i) & visible
        source = own if kind == "instance" and own.any() else visible
        out[:, (inst == i) & ~visible] = y[source].mean() if kind != "grey" else 0.0
    return out


@pytest.mark.parametrize("kind", HOLE_ENTRIES)
def test_the_hole_is_as_bright_as_the_visible_pixels(kind: str, scene: tuple[torch.Tensor, ...]) -> None:
    image, mask, inst = scene
    entry = first_entry(image, mask, kind, inst, COUNT)
    for b in range(2):
        torch.testing.assert_close(entry[b], plain(image[b], mask[b], inst[b], kind))
        alone = first_entry(image[b : b + 1], mask[b : b + 1], kind, inst[b : b + 1], COUNT)
        torch.testing.assert_close(entry[b : b + 1], alone)
    other = torch.where(mask > 0, -image, image)
    assert torch.equal(first_entry(other, mask, kind, inst, COUNT), entry), "what was erased does not matter"
    darker = first_entry(image - 0.1, mask, kind, inst, COUNT)
    hole = (mask > 0).expand_as(entry)
    torch.testing.assert_close(darker[hole], entry[hole] - (0.1 if kind != "grey" else 0))
    assert torch.equal(first_entry(image, torch.ones_like(mask), kind, inst, COUNT), torch.zeros_like(image))


def test_an_instance_does_not_see_the_brightness_of_another(scene: tuple[torch.Tensor, ...]) -> None:
    image, mask, inst = scene
    lit = torch.where((inst == 1)[:, None], image + 0.5, image)
    before, after = (first_entry(x, mask, "instance", inst, COUNT) for x in (image, lit))
    changed = ((before - after).abs() > 1e-6).any(1) & (mask[:, 0] > 0)
    assert torch.equal(changed, ((inst == 1) | (inst == 3)) & (mask[:, 0] > 0)), "3 is wholly erased: as the picture"


@torch.no_grad()
@pytest.mark.parametrize("kind", HOLE_ENTRIES)
def test_the_first_stage_alone_gets_it(kind: str, scene: tuple[torch.Tensor, ...]) -> None:
    image, mask, inst = scene
    nets = []
    for entry in ("grey", kind):
        torch.manual_seed(0)
        encoder = StyleEncoder(style_dim=3, nef=1)
        small = {"label_nc": 3, "crop_size": 64, "ngf": 2, "modulation": Modulation(hidden=4)}
        nets += [CascadeGenerator(style_encoder=encoder, hole_entry=entry, **small).eval()]
    base, net = nets
    net.load_state_dict(base.state_dict())
    maps = torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    found, plain_run = (each(image, *maps, mask, inst, COUNT) for each in (net, base))
    assert torch.equal(found.entry[0], resize_bilinear(first_entry(image, mask, kind, inst, COUNT), 16))
    outside = torch.nn.functional.max_pool2d(mask, 3, 1, 1)[..., ::2, ::2] == 0
    assert torch.equal(found.entry[1] * outside, plain_run.entry[1] * outside)
    assert torch.equal(found.fake[-1], plain_run.fake[-1]) == (kind == "grey")
