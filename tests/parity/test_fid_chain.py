"""The whole way from two folders to a number: scripts/evaluate.py against pytorch-fid's calculate_fid_given_paths."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid import fid_score, inception

from metrics.features.inception import find_inception, read_inception
from scripts.evaluate import main

COUNT, SIZE = 11, (430, 340)  # larger than the network's 299: how it is shrunk shows


def photograph(seed: int) -> Image.Image:
    """Smooth colours with some grain, or a street scene where there is one."""
    folder = Path(os.environ.get("TEST_ASSETS", "")) / "camvid" / "test" / "images"
    files = sorted(folder.glob("*.jpg")) if "TEST_ASSETS" in os.environ else []
    if files:
        return Image.open(files[7 * seed % len(files)]).convert("RGB").resize(SIZE)
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(coarse) * 0.9 + rng.integers(0, 25, (*SIZE[::-1], 3))).astype(np.uint8))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """PNG and JPEG, colour and palette, other names in the second folder; it has one picture more."""
    for which, count in (("real", COUNT), ("fake", COUNT + 1)):
        (tmp_path / which).mkdir()
        for i in range(count):
            picture = photograph(i if which == "real" else 40 + i)
            if i == 3:
                picture = picture.quantize(64)
            name = f"{which[0]}{i}.{'jpg' if i % 4 == 1 else 'png'}"
            picture.save(tmp_path / which / name)
    return tmp_path / "real", tmp_path / "fake"


def exact_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1^(1/2) S2 S1^(1/2))^(1/2)) by symmetric eigenproblems.

    SciPy's sqrtm, which pytorch-fid takes, is off by 1e-4 for singular covariances.
    """
    values, vectors = torch.linalg.eigh(torch.from_numpy(sigma1))
    values = torch.where(values > 1e-10 * values.max(), values, 0)
    root = vectors * values.sqrt()
    inner = torch.linalg.eigvalsh(root.T @ torch.from_numpy(sigma2) @ root)
    cross = torch.where(inner > 1e-10 * inner.max(), inner, 0).sqrt().sum()
    return float(((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * float(cross))


def test_fid_of_two_folders_is_pytorch_fids(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = folders
    state = read_inception(find_inception())
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}  # unused by the features
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *args, **kwargs: state)  # else a download
    monkeypatch.setattr(fid_score, "calculate_frechet_distance", exact_distance)
    cpu = torch.device("cpu")
    expected = fid_score.calculate_fid_given_paths([str(fake), str(real)], 4, cpu, dims=2048, num_workers=0)
    out = fake.parent / "out.json"
    args = ["--real", str(real), "--fake", str(fake), "--metrics", "fid", "--device", "cpu", "--cache_dir", "none"]
    assert main([*args, "--num_workers", "0", "--batch_size", "5", "--json", str(out)]) == 0
    line = json.loads(out.read_text())
    assert (line["details"]["fid"]["num_generated"], line["details"]["fid"]["num_real"]) == (COUNT + 1, COUNT)
    assert expected > 20
    assert line["metrics"]["fid"] == pytest.approx(expected, rel=1e-4)
