"""SPMPGAN's and DivSem's tensors are the released ones by name and shape, and their blocks give the recorded values."""

from __future__ import annotations

import pytest
import torch
from hash_fill import HERE, assert_stats, fill, golden, hash_tensor, hash_values
from torch import Tensor

from models.networks.blocks.discriminator import MultiScaleDiscriminator
from models.networks.blocks.spm import SPMConv, SPMUp
from models.networks.cascade.stages import CascadeGenerator
from models.networks.cascade.style_encoder import StyleEncoder, style_conv
from models.released_weights.divsem import (
    released_block_key,
    released_discriminator_key,
    released_generator_key,
)

GOLDEN = golden("divsem_golden.json")


def table(section: str) -> dict[str, tuple[str, str, str]]:
    """Return key -> shapes (label_nc 34, 151, SPMPGAN's column) of one part of the released tables."""
    rows: dict[str, tuple[str, str, str]] = {}
    current = "netG"
    for line in (HERE / "divsem_state_dict.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            current = line.removeprefix("## ") if line.startswith("## ") else current
            continue
        cells = [cell.strip() for cell in line.split("|")]
        if current == section and len(cells) >= 5:
            rows[cells[2]] = (cells[3], cells[3] if cells[4] == "=" else cells[4], cells[-1])
    return rows


def shape_text(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape)


def spmpgan_shape(row: tuple[str, str, str], column: int) -> str | None:
    """Read the table's third shape: "=" as DivSem's, "-" absent, "a / b" for 34 and 151 classes, or one for both."""
    if row[2] == "=":
        return row[column]
    if row[2] == "-":
        return None
    return [part.strip() for part in row[2].split("/")][column if "/" in row[2] else 0]


@pytest.mark.parametrize(("column", "label_nc"), [(0, 34), (1, 151)])
def test_generator_keys_and_shapes_are_the_released_ones(column: int, label_nc: int) -> None:
    rows = table("netG")
    with torch.device("meta"):
        divsem = CascadeGenerator(style_encoder=StyleEncoder(), label_nc=label_nc, crop_size=256, ngf=32)
        spmpgan = CascadeGenerator(label_nc=label_nc, crop_size=256, ngf=32)
    for net, wanted in (
        (divsem, {key: row[column] for key, row in rows.items()}),
        (spmpgan, {key: s for key, row in rows.items() if (s := spmpgan_shape(row, column)) is not None}),
    ):
        assert {released_generator_key(k): shape_text(v) for k, v in net.state_dict().items()} == wanted
    assert len(rows) == 820
    counts = GOLDEN["param_counts"]
    assert sum(p.numel() for p in divsem.parameters()) == counts["DivSem_G"][str(label_nc)]["total"]
    assert sum(p.numel() for p in spmpgan.parameters()) == counts["SPMPGAN_G"][str(label_nc)]["total"]


@pytest.mark.parametrize(("column", "label_nc"), [(0, 34), (1, 151)])
def test_discriminator_keys_and_shapes_are_the_released_ones(column: int, label_nc: int) -> None:
    with torch.device("meta"):
        net = MultiScaleDiscriminator(label_nc=label_nc, crop_size=256, ndf=64)
    ours: dict[str, dict[str, str]] = {}
    for key, value in net.state_dict().items():
        entry, released = released_discriminator_key(key)
        ours.setdefault(entry, {})[released] = shape_text(value)
    for entry in ("netD_1", "netD_2", "netD_3"):
        assert ours[entry] == {key: row[column] for key, row in table(entry).items()}


# --- blocks ---

UNITS = GOLDEN["units"]


def unit_context(style: bool) -> Tensor:
    """[style, seg, mask] at 32 pixels, reduced to the block's output size by the block's caller."""
    mask = torch.from_numpy(hash_values("unit:mask", 2 * 32 * 32).reshape(2, 1, 32, 32) > 0).float()
    parts = [hash_tensor("unit:seg", 2, 5, 32, 32), mask]
    return torch.cat(([hash_tensor("unit:style", 2, 7, 32, 32)] if style else []) + parts, dim=1)


def test_encoder_block() -> None:
    block = SPMConv(4, 6, ctx_channels=6, stride=2)
    fill(block, released_block_key)
    out = block(hash_tensor("unit:x", 2, 4, 16, 16), unit_context(False)[..., ::4, ::4])
    assert_stats(out, UNITS["unit_enc_block"]["out"])


def test_decoder_block_in_evaluation_and_training() -> None:
    block = SPMUp(9, 5, ctx_channels=13)
    fill(block, released_block_key)
    x, skip = hash_tensor("unit:x2", 2, 6, 8, 8), hash_tensor("unit:skip", 2, 3, 16, 16)
    ctx, expected = unit_context(True)[..., ::2, ::2], UNITS["unit_dec_block"]
    assert_stats(block.eval()(x, skip, ctx), expected["out_eval"])
    u = block.spm.conv.weight_u
    assert torch.allclose(u, torch.tensor(expected["u_before"]), atol=1e-6)
    assert_stats(block.train()(x, skip, ctx), expected["out_train_first_call"])
    assert torch.allclose(u, torch.tensor(expected["u_after_train_call"]), atol=1e-6)


def test_style_encoder_block() -> None:
    block = style_conv(4, 6, stride=2)
    fill(block, lambda key: key)
    assert_stats(block(hash_tensor("unit:x", 2, 4, 16, 16)), UNITS["unit_conv_in_replicate"]["out"])
