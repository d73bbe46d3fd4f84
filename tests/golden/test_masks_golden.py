"""Masks of the release, number by number (`masks` in the golden file)."""

import json
import random
from pathlib import Path

import numpy as np
import PIL
import pytest

from data.masks import brush, brush_strokes, extension, outpainting

GOLDEN = json.loads((Path(__file__).parent / "divsem_golden.json").read_text(encoding="utf-8"))["masks"]


def pair(seed):
    return random.Random(seed), np.random.RandomState(seed)


@pytest.mark.parametrize("case", GOLDEN["brush"], ids=lambda case: f"seed{case['seed']}")
def test_brush_strokes_and_the_state_after_them(case):
    R, NP = pair(case["seed"])
    vertices, width = brush_strokes(R, NP, 256)
    assert [list(vertex) for vertex in vertices] == case["vertices"]
    assert width == case["width"]
    assert R.random() == pytest.approx(case["next_random"], abs=1e-8)
    assert NP.rand() == pytest.approx(case["next_np"], abs=1e-8)


@pytest.mark.parametrize("case", GOLDEN["brush"], ids=lambda case: f"seed{case['seed']}")
def test_brush_pixels(case):
    mask = brush(*pair(case["seed"]), 256)
    same_pillow = PIL.__version__ == GOLDEN["versions"]["pillow"]
    assert mask.sum() == pytest.approx(case["sum"], rel=0 if same_pillow else 0.02)
    if same_pillow:
        assert mask[[0, 64, 128, 192]].sum(1).tolist() == case["row_sums_0_64_128_192"]


def test_outpainting_window():
    rows, columns = np.nonzero(outpainting(random.Random(0), 256) == 0)
    window = GOLDEN["center_seed0"]
    assert (rows.min(), rows.max() + 1) == (window["h1"], window["h2"])
    assert (columns.min(), columns.max() + 1) == (window["w1"], window["w2"])


def test_extension_erases_the_right_half():
    mask = extension(256)
    assert mask[:, :128].sum() == 0
    assert mask[:, 128:].all()


@pytest.mark.parametrize("size", [64, 128, 256])
def test_brush_coverage_at_every_size(size):
    """400 masks: standard error of the mean 0.006; the constants scale with the size."""
    R, NP = pair(0)
    shares = [brush(R, NP, size).mean() for _ in range(400)]
    golden = GOLDEN["brush_coverage_1500"]
    assert np.mean(shares) == pytest.approx(golden["mean"], abs=0.025)
    assert np.std(shares) == pytest.approx(golden["std"], abs=0.02)
