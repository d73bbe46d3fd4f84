"""Pictures in strips: the same values as in one piece, in memory that does not follow the size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metrics.pictures import Pictures
from metrics.pixels.reconstruction import Reconstruction
from metrics.pixels.stylisation import MS_SSIM_SIDE, Stylisation
from util import strips
from util.edge_maps import canny, suppressed_gradient

ROOT = Path(__file__).resolve().parents[2]
RECONSTRUCTION = ("l1_whole", "psnr_whole", "ssim_whole", "l1_masked", "psnr_masked", "ssim_masked")
STYLISATION = ("ms_ssim", "edge_f1", "colour")


def pair() -> Pictures:
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 40, 46, generator=draw).repeat_interleave(5, 2).repeat_interleave(5, 3)
    real = (coarse * 200).to(torch.uint8)[..., : MS_SSIM_SIDE + 3, : MS_SSIM_SIDE + 20]
    fake = real + torch.randint(0, 50, real.shape, generator=draw, dtype=torch.uint8)
    return Pictures(fake, real, (coarse[:, :1] > 0.4)[..., : real.shape[2], : real.shape[3]], None, ["a", "b"])


def values(pictures: Pictures) -> dict[str, float]:
    found = {}
    for metric in (Reconstruction(RECONSTRUCTION), Stylisation(STYLISATION, style=pictures.real[1])):
        metric.update(pictures)
        found |= {name: value.value for name, value in metric.compute().items()}
    return found


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_values_are_those_of_one_piece(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = pair()
    whole = values(pictures)
    assert whole.keys() == {*RECONSTRUCTION, *STYLISATION}
    assert len(list(strips.row_strips(*pictures.real.shape[-2:]))) == 1
    monkeypatch.setattr(strips, "PIXELS", rows * pictures.real.shape[-1])
    assert values(pictures) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("draw", [suppressed_gradient, canny])
def test_edges_do_not_show_the_strips(draw: type[canny], monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = pair().real
    whole = draw(pictures)
    monkeypatch.setattr(strips, "PIXELS", 3 * pictures.shape[-1])
    assert torch.equal(draw(pictures), whole)


MEASURE = """
import resource, sys, torch
sys.path.insert(0, {root!r})
from metrics.pictures import Pictures
from metrics.pixels.reconstruction import Reconstruction
from metrics.pixels.stylisation import Stylisation
from util import strips
real = torch.randint(0, 256, (1, 3, {side}, {side}), dtype=torch.uint8)
fake = real // 2 + 40
style = real[0, :, :64, :64].clone()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
strips.PIXELS = 1 << 14
metrics = [Reconstruction(("psnr_whole", "ssim_whole")), Stylisation(("ms_ssim", "edge_f1", "colour"), style=style)]
for metric in metrics:
    metric.update(Pictures(fake, real, None, None, ["large"]))
    assert len(metric.compute()) == len(metric.names)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_large_pictures_take_little_memory() -> None:
    """Some 40 bytes a pixel beside the strips; whole maps took 1300."""
    side = 700
    code = MEASURE.format(root=str(ROOT), side=side)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    kilobytes = int(done.stdout)  # as Linux counts them
    assert kilobytes * 1024 < 250 * side**2
