"""Samples equal those of a plain form that works as SPMPGAN's release (scripts/benchmarks/data.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scripts import benchmark, prepare_streets
from scripts.benchmarks.data import open_split, plain_sample
from util.batch import one_hot


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_samples_equal_the_plain_ones(cache: str, tmp_path: Path) -> None:
    prepare_streets.main(["--output", str(tmp_path), "--height", "48", "--train", "6", "--test", "0"])
    dataset = open_split(str(tmp_path), 32, cache=cache)
    for epoch in range(4):
        for index in range(len(dataset)):
            plain, fast = plain_sample(dataset, epoch, index), dataset[epoch, index]
            for name in ("image", "label", "edge", "mask"):
                assert torch.equal(plain[name], fast[name]), name  # type: ignore[literal-required]
            assert torch.equal(plain["inst"].long(), fast["inst_id"][fast["inst"]])
            seg = one_hot(fast["label"][None], dataset.label_nc)[0] * fast["mask"]
            assert torch.equal(plain["seg"], seg)
            whole = [bool(fast["mask"][0, fast["inst"] == i].all()) for i in range(len(fast["inst_id"]))]
            assert fast["hidden"] == any(whole)


def test_benchmark_of_samples(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert benchmark.main(["data", "--size", "32", "--num_images", "2", "--json", str(out)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    rows = result["rows"]
    assert result["bytes_per_pixel"] == {"full": 36, "carried": 7}
    assert rows["ours"]["ratio"] == pytest.approx(rows["plain"]["cpu_ms"] / rows["ours"]["cpu_ms"])
    assert rows["decoding alone"]["cpu_ms"] < rows["plain"]["cpu_ms"]
