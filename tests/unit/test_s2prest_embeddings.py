"""The authors' embeddings.pt: read without running anything, made a run."""

from __future__ import annotations

import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from s2prest_tiny import picture, run, tiny_model
from torch import nn

import test as test_command
from models import diffusion_files
from models.networks.s2prest.style_attention import StyleAttention
from models.released_weights.s2prest import read_embeddings
from models.s2prest_model import S2PreSTModel
from scripts.convert_weights import main as convert
from util.errors import UserError
from util.images import read_image, save_png


def released_module(net: StyleAttention) -> tuple[nn.Module, dict[str, types.ModuleType]]:
    """Return the authors' module classes with our tensors, and the modules that pickle needs while it writes."""
    modules = {name: types.ModuleType(name) for name in
               ("ldm", "ldm.modules", "ldm.modules.attention", "ldm.modules.embedding_manager")}  # fmt: skip
    cross = type("CrossAttention", (nn.Module,), {"__module__": "ldm.modules.attention"})
    outer = type("Attentions", (nn.Module,), {"__module__": "ldm.modules.embedding_manager"})
    modules["ldm.modules.attention"].CrossAttention = cross  # type: ignore[attr-defined]
    modules["ldm.modules.embedding_manager"].Attentions = outer  # type: ignore[attr-defined]

    def attention(own: Any) -> nn.Module:
        made = cross()
        made.scale, made.heads = 0.125, own.heads
        made.to_q, made.to_k, made.to_v = own.to_q, own.to_k, own.to_v
        made.to_out = nn.Sequential(own.to_out[0], nn.Dropout(0.05))
        return made

    whole = outer()
    whole.attn1, whole.attn2 = attention(net.attn1), attention(net.attn2)
    whole.net = nn.Sequential(nn.Dropout(0.05), net.net[0])
    return whole, modules


def write_embeddings(path: Path, net: StyleAttention, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    module, modules = released_module(net)
    with monkeypatch.context() as patch:
        for name, own in modules.items():
            patch.setitem(sys.modules, name, own)
        torch.save({"string_to_token": {"*": torch.tensor(265)}, "attention": module} | more, path)


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('ran')",)


def test_released_embeddings_are_read_and_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, path = tiny_model().netE, tmp_path / "embeddings.pt"
    write_embeddings(path, net, monkeypatch)
    with pytest.raises(Exception, match=r"Weights only load failed"):
        torch.load(path, weights_only=True)
    state, number = read_embeddings(path)
    assert number == 265
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())

    write_embeddings(path, net, monkeypatch, extra=Evil())
    with pytest.raises(UserError, match=r"embeddings\.pt: it holds __builtin__\.exec, which is refused"):
        read_embeddings(path)
    write_embeddings(path, net, monkeypatch, extra=nn.Conv2d(1, 1, 1))
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.conv\.Conv2d, which is refused"):
        read_embeddings(path)


def rewrite(path: Path, change: Any, *, packing: int = zipfile.ZIP_STORED) -> None:
    """Pass the pickle of an archive of torch.save through `change`."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in entries.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


HIDDEN = {
    "by the stack": (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "SHORT_BINUNICODE"),
    "by getattr": (b"\x80\x02c__builtin__\ngetattr\n.", r"__builtin__\.getattr, which is refused"),
    "by a dotted name": (b"\x80\x02ctorch\n_utils.sys.modules\n.", r"torch\._utils\.sys\.modules, which is refused"),
    "by a reader of torch": (b"\x80\x02ctorch.serialization\nload\n.", r"torch\.serialization\.load, which is refused"),
    "by an old instance": (b"\x80\x02(S'true'\nios\nsystem\n.", r"os\.system, which is refused"),
    "in a huge memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", "LONG_BINPUT"),
    "in a huge string": (b"\x80\x02X\xff\xff\xff\x7fa.", "is not an embeddings"),
    "in a huge buffer": (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00a.", "is not an embeddings"),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_what_hides_in_a_pickle_is_refused(how: str, tmp_path: Path) -> None:
    data, told = HIDDEN[how]
    path = tmp_path / "embeddings.pt"
    torch.save({}, path)
    rewrite(path, lambda _: data)
    with pytest.raises(UserError, match=told):
        read_embeddings(path)


def test_small_files_do_not_become_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, path = tiny_model().netE, tmp_path / "embeddings.pt"
    write_embeddings(path, net, monkeypatch)
    rewrite(path, lambda data: data, packing=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is packed"):
        read_embeddings(path)
    wide = tiny_model().netE
    wide.attn1.to_q.weight = nn.Parameter(torch.zeros(1, 1).expand(10**5, 10**6))
    write_embeddings(path, wide, monkeypatch)
    with pytest.raises(UserError, match=r"a tensor of size \(100000, 1000000\) in a storage of 1 values"):
        read_embeddings(path)
    twice = tiny_model().netE
    twice.attn1.to_k = twice.attn1.to_q
    write_embeddings(path, twice, monkeypatch)
    with pytest.raises(UserError, match="is in two places"):
        read_embeddings(path)


def test_embeddings_become_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = S2PreSTModel.tiny(tmp_path)
    net, path, style = StyleAttention(dim=32, heads=8, dim_head=4), tmp_path / "embeddings.pt", tmp_path / "style.png"
    write_embeddings(path, net, monkeypatch)
    save_png(picture(5), style)
    where = ["--name", "wiki", "--checkpoints_dir", str(tmp_path)]
    flags = [*where, "--model", "s2prest", "--source", str(path)]
    with pytest.raises(UserError, match="--style_image is missing"):
        convert(flags)
    assert convert([*flags, "--style_image", str(style)]) == 0
    with pytest.raises(UserError, match="exists already"):
        convert([*flags, "--style_image", str(style)])
    saved = yaml.safe_load((tmp_path / "wiki" / "opt.yaml").read_text())
    assert (saved["clip_input"], saved["base_model"]) == ("legacy", "CompVis/stable-diffusion-v1-4")
    assert saved["edge_side"] == "released"
    places = [part for flag in ("--base_model", "--clip_model") for part in (flag, tiny[tiny.index(flag) + 1])]
    test = [*where, *places, "--content", str(style), "--size", "64", "--steps", "10", "--results_dir", str(tmp_path)]
    assert test_command.main(test) == 0
    result = read_image(tmp_path / "wiki" / "wt_0.4_steps=10_size=64" / "stylized" / "style.png")
    wanted = S2PreSTModel(
        frozen=diffusion_files.load_diffusion(places[1], places[3]), netE=net.eval(), clip_input="legacy", lr=None,
        style=picture(5), size=64,
    )  # fmt: skip
    assert np.array_equal(result, run(wanted, picture(5)))
    write_embeddings(path, StyleAttention(dim=32, heads=8, dim_head=4), monkeypatch, string_to_token={"*": 7})
    with pytest.raises(UserError, match="its placeholder is token 7"):
        convert([*flags, "--style_image", str(style), "--name", "other"])


def test_other_files_are_no_embeddings(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.pt"
    with pytest.raises(UserError, match="no such file"):
        read_embeddings(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"is not an embeddings\.pt"):
        read_embeddings(path)
    for content in ({"a": torch.zeros(2)}, OrderedDict(attention=1, string_to_token={"*": 1})):
        torch.save(content, path)
        with pytest.raises(UserError, match=r"is not an embeddings\.pt"):
            read_embeddings(path)
