"""Names, shapes and colours of the SIEDOB release (tests/golden/siedob_state_dict.txt)."""

from __future__ import annotations

import re

import pytest
import torch
from hash_fill import HERE, hash_tensor, hash_values
from siedob_nets import GOLDEN, NETWORKS, golden_network, released_key
from torch import Tensor

from models.released_weights.conversion import adam_state, renamed
from util.errors import UserError

TITLES = {"background.": "", "instance_inpainting.": "inp.", "instance_style.": "sty.", "fusion.": ""}
PARAMETERS = {  # of the released networks, counted
    "netG_BG": 13088096, "netD_BG": 4379200, "netD_patch": 4379200, "inp.netG": 81436032, "inp.netD_inp": 4331200,
    "sty.netG": 15364288, "sty.netD_style": 4329600, "netG_F": 3550048, "netD_F": 4324800,
}  # fmt: skip


def released_tables() -> dict[str, dict[str, tuple[str, list[int]]]]:
    """Return, by tag, key -> kind ("P" or "B") and shape of the released networks, in their order."""
    tables: dict[str, dict[str, tuple[str, list[int]]]] = {}
    current: dict[str, tuple[str, list[int]]] = {}
    for line in (HERE / "siedob_state_dict.txt").read_text(encoding="utf-8").splitlines():
        if title := re.match(r"(\w+\.)(\w+) +<->", line):
            current = tables.setdefault(TITLES[title[1]] + title[2], {})
        elif row := re.match(r" *\d+ ([PB]) \[([\d, ]+)\] +(\S+)$", line):
            current[row[3]] = (row[1], [int(n) for n in row[2].split(",")])
    return tables


TABLES = released_tables()


def small_state(tag: str) -> dict[str, Tensor]:
    """Return a released state dict of different values everywhere, as small as its keys and shapes allow."""
    return {key: torch.arange(float(torch.tensor(shape).prod())).view(shape) for key, (_, shape) in TABLES[tag].items()}


def test_the_tables_are_read_whole() -> None:
    assert TABLES.keys() == NETWORKS.keys() == PARAMETERS.keys()
    assert [len(table) for table in TABLES.values()] == [98, 18, 18, 83, 18, 134, 18, 55, 18]


@pytest.mark.parametrize("tag", NETWORKS)
def test_keys_shapes_and_parameters_are_the_released_ones(tag: str) -> None:
    with torch.device("meta"):
        net = NETWORKS[tag][1]()
    parameters = dict(net.named_parameters())
    ours = {
        released_key(tag, key): ("P" if key in parameters else "B", list(value.shape))
        for key, value in net.state_dict().items()
    }
    assert ours == TABLES[tag]
    assert sum(p.numel() for p in parameters.values()) == PARAMETERS[tag]


def test_hashes_weights_and_spectral_vectors_follow_the_golden_rule() -> None:
    checks = GOLDEN["description"]["checks"]
    weight = golden_network("netG_BG").unet.stem.conv.weight  # inputs 0-2 were reversed
    first = weight[0, 2].flatten()[:4]
    assert first.tolist() == pytest.approx(checks["first4_of_netG_BG/init_conv.conv.weight"], abs=1e-8)
    assert weight.flatten()[-1].item() == pytest.approx(checks["last_of_netG_BG/init_conv.conv.weight"], abs=1e-8)
    layer, expected = golden_network("netG_BG").unet.up[0].feature, checks["netG_BG/dec1.gated_conv2d.conv2d"]
    assert layer.weight_u[0].item() == pytest.approx(expected["u[0]"], abs=1e-6)
    assert layer.weight_v[0].item() == pytest.approx(expected["v[0]"], abs=1e-6)
    sigma = layer.weight_u @ layer.weight_orig.flatten(1) @ layer.weight_v
    assert sigma.item() == pytest.approx(expected["sigma=u^T W v"], abs=1e-5)
    hash01 = (hash_values("", 4, first=0) + 1) / 2  # the CRC of nothing is 0
    assert hash01.tolist() == pytest.approx(checks["hash01(4,0)"], abs=1e-15)


CHANGED = {  # what meets a picture: its colour channels as (dimension, first)
    "netG_BG": {"init_conv.conv.weight": (1, 0), "conv_img.conv.weight": (0, 0)},
    "netD_BG": {"dis_model.0.conv.weight_orig": (1, 34), "dis_model.0.conv.weight_v": (1, 34)},
    "netD_patch": {"dis_model.0.conv.weight_orig": (1, 0), "dis_model.0.conv.weight_v": (1, 0)},
    "inp.netG": {"init_conv.conv.weight": (1, 0), "conv_img.conv.weight": (0, 0)},
    "inp.netD_inp": {"dis_model.0.conv.weight_orig": (1, 0), "dis_model.0.conv.weight_v": (1, 0)},
    "sty.netG": {
        "enc_style.model.0.conv.weight": (1, 0),
        "cycle_style.model.0.conv.weight": (1, 0),
        "conv_img.conv.weight": (0, 0),
    },
    "sty.netD_style": {"dis_model.0.conv.weight_orig": (1, 0), "dis_model.0.conv.weight_v": (1, 0)},
    "netG_F": {"init_conv.conv.weight": (1, 0), "conv_img.conv.weight": (0, 0)},
    "netD_F": {"dis_model.0.conv.weight_orig": (1, 0), "dis_model.0.conv.weight_v": (1, 0)},
}


@pytest.mark.parametrize("tag", NETWORKS)
def test_colours_are_reversed_in_exactly_the_listed_tensors(tag: str) -> None:
    released, state = NETWORKS[tag][0], small_state(tag)
    unprefixed = released.unprefixed(state)
    changed = {key for key, value in unprefixed.items() if not torch.equal(released.to_rgb(key, value), value)}
    assert changed == CHANGED[tag].keys()
    for key, (dim, first) in CHANGED[tag].items():
        value, result = unprefixed[key], released.to_rgb(key, unprefixed[key])
        blocks = value.view(1, -1, 5, 5) if key.endswith("weight_v") else value
        order = list(range(blocks.shape[dim]))
        order[first : first + 3] = order[first : first + 3][::-1]
        assert torch.equal(result, blocks.index_select(dim, torch.tensor(order)).reshape(value.shape))


@pytest.mark.parametrize("tag", ["inp.netG", "sty.netG"])
def test_a_file_may_have_lost_the_wrappers_name(tag: str) -> None:
    released = NETWORKS[tag][0]
    with_prefix = {key: torch.zeros(0) for key in TABLES[tag]}
    without = released.unprefixed(with_prefix)
    assert len(without) == len(with_prefix)
    assert not any(key.startswith(released.prefix) for key in without)
    assert released.unprefixed(without) == without


def test_what_does_not_fit_is_listed() -> None:
    released = NETWORKS["netD_F"][0]
    with torch.device("meta"):
        ours = NETWORKS["netD_F"][1]().state_dict()
    state = small_state("netD_F")
    assert renamed(ours, state, released.name, released.to_rgb).keys() == ours.keys()
    state["dis_model.5.conv.weight_u"] = torch.zeros(4)
    state["extra"] = state.pop("dis_model.1.conv.weight_v")
    with pytest.raises(UserError, match=r"3 tensors(.|\n)*missing: dis_model.1.conv.weight_v(.|\n)*unknown: extra"):
        renamed(ours, state, released.name, released.to_rgb)


def test_moments_are_placed_by_name_and_their_colours_reversed() -> None:
    released, table = NETWORKS["netG_BG"][0], TABLES["netG_BG"]
    keys = [key for key, (kind, _) in table.items() if kind == "P"]
    theirs = {
        i: {
            "step": 5,
            "exp_avg": hash_tensor(f"m:{k}", *table[k][1]),
            "exp_avg_sq": hash_tensor(f"v:{k}", *table[k][1]),
        }
        for i, k in enumerate(keys)
    }
    with torch.device("meta"):
        names = [released.name(key) for key, _ in NETWORKS["netG_BG"][1]().named_parameters()]
    assert names != keys  # their numbers differ from ours
    target: dict[str, dict[int, dict[str, Tensor]]] = {"state": {}}
    adam_state({"state": theirs}, keys, names.index, target, released.to_rgb)
    assert len(target["state"]) == len(keys)
    first = target["state"][names.index("init_conv.conv.weight")]
    wanted = hash_tensor("m:init_conv.conv.weight", 32, 39, 7, 7)
    assert torch.equal(first["exp_avg"][:, [2, 1, 0, *range(3, 39)]], wanted)
    bias = target["state"][names.index("dec3.gated_conv2d.mask_conv2d.bias")]
    assert torch.equal(bias["exp_avg_sq"], hash_tensor("v:dec3.gated_conv2d.mask_conv2d.bias", 64))
    assert bias["step"] == 5
