"""Segmenters from elsewhere: transformers' networks, exported graphs, their class maps."""

from __future__ import annotations

import errno
import shutil
import socket
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from metrics.segments.released import CITYSCAPES_CLASSES
from metrics.segments.segmenter import IGNORED, Segmenter, label_table
from metrics.segments.segmenters import load_segmenter
from util.errors import UserError
from util.weight_files import file_hash

CPU = torch.device("cpu")


def load(spec: str, classes: str | None = None) -> Segmenter:
    path = Path(spec.removeprefix("export:"))
    trust = file_hash(path) if path.is_file() else None
    return load_segmenter(spec, weights=None, checkpoints_dir="none", device=CPU, classes=classes, trust=trust)


def photographs(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a tiny random SegFormer and a tiny random Mask2Former with 19 classes."""
    package = pytest.importorskip("transformers", reason="pip install -r requirements-hf.txt")
    torch.manual_seed(0)
    folders = tmp_path_factory.mktemp("hf")
    labels = dict(enumerate(CITYSCAPES_CLASSES[:19]))
    shape = {"num_labels": 19, "id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    config = package.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[4, 4, 8, 8], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8, **shape
    )
    package.SegformerForSemanticSegmentation(config).save_pretrained(folders / "segformer")
    package.SegformerImageProcessor(size={"height": 64, "width": 96}).save_pretrained(folders / "segformer")
    swin = package.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=[f"stage{i}" for i in range(1, 5)],
    )
    config = package.Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=1, dim_feedforward=8, num_queries=5, **shape,
    )  # fmt: skip
    package.Mask2FormerForUniversalSegmentation(config).save_pretrained(folders / "mask2former")
    package.Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(
        folders / "mask2former"
    )
    return folders / "segformer", folders / "mask2former"


def test_segformer_is_transformers_own(transformers: tuple[Path, Path]) -> None:
    import transformers as package

    segmenter = load(f"hf:{transformers[0]}")
    assert (segmenter.name, segmenter.short_side, segmenter.num_classes) == ("segformer", 64, 19)
    assert segmenter.notes is not None  # they stand beside the values
    assert segmenter.notes["transformers"] == package.__version__
    pictures = photographs(2, 3, 64, 96)
    model = package.SegformerForSemanticSegmentation.from_pretrained(transformers[0]).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        logits = model((pictures / 255 - mean) / std).logits
    expected = nn.functional.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False).argmax(1)
    assert float((segmenter.predict(pictures) == expected).float().mean()) > 0.999
    table = label_table(segmenter, label_nc=35, ignore_label=None)
    assert (int(table[7]), int(table[33]), int(table[0])) == (0, 18, IGNORED)


def test_mask2former_is_transformers_own(transformers: tuple[Path, Path]) -> None:
    import transformers as package

    segmenter = load(f"hf:{transformers[1]}")
    pictures = photographs(1, 3, 64, 64)
    model = package.Mask2FormerForUniversalSegmentation.from_pretrained(transformers[1]).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        out = model((pictures / 255 - mean) / std)
    scores = sum(
        out.class_queries_logits.softmax(-1)[:, q, :-1, None, None] * out.masks_queries_logits.sigmoid()[:, q, None]
        for q in range(5)
    )
    expected = nn.functional.interpolate(scores, size=(64, 64), mode="bilinear", align_corners=False).argmax(1)
    assert float((segmenter.predict(pictures) == expected).float().mean()) > 0.999


def test_ade20ks_other_is_ignored() -> None:
    segmenter = Segmenter("ade", nn.Identity(), ("wall;brick", "Building"), 64, "", "", CPU)
    table = label_table(segmenter, label_nc=3, ignore_label=None, class_names=["other", "wall", "building"])
    assert table.tolist() == [IGNORED, 0, 1]
    full = Segmenter("ade", nn.Identity(), tuple(f"c{i}" for i in range(150)), 64, "", "", CPU)
    assert label_table(full, label_nc=151, ignore_label=None).tolist() == [IGNORED, *range(150)]
    with pytest.raises(UserError, match="their ids do not mean the same"):
        label_table(segmenter, label_nc=3, ignore_label=None, class_names=["other", "building", "wall"])


def test_weights_that_are_pickles_are_not_read(transformers: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(transformers[0], folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"no file named model\.safetensors .*[^.]\. Pickles .* save_pretrained\(FOLDER\)"
    ):
        load(f"hf:{folder}")


def test_a_model_of_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="pip install -r requirements-hf.txt")

    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the hub's five tries
    with pytest.raises(
        UserError, match=r"hf:nobody/no-such-net cannot be loaded: .*a network or the hub's cache"
    ) as told:
        load("hf:nobody/no-such-net")
    assert "\n" not in str(told.value)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be loaded"):
        load(f"hf:{tmp_path / 'empty'}")


@pytest.fixture(params=["script", "export"])
def graph(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A saved network whose classes are the three colours, and its class map."""
    net = nn.Conv2d(3, 3, 1, bias=False)
    net.weight.data = torch.eye(3).view(3, 3, 1, 1)
    path = tmp_path / "colours.pt"
    if request.param == "script":
        torch.jit.trace(net, torch.zeros(1, 3, 16, 16)).save(str(path))
    else:
        sizes = {i: torch.export.Dim.AUTO for i in (0, 2, 3)}
        torch.export.save(torch.export.export(net, (torch.zeros(2, 3, 16, 24),), dynamic_shapes=(sizes,)), str(path))
    card = {"class_names": ["red", "green", "blue"], "short_side": 16, "mean": [10, 10, 10], "label_map": {4: 0, 9: 2}}
    (tmp_path / "colours.pt.yaml").write_text(yaml.safe_dump(card))
    return path


def test_a_saved_graph_answers_through_its_class_map(graph: Path) -> None:
    segmenter = load(f"export:{graph}")
    pictures = photographs(3, 3, 16, 32)
    assert torch.equal(segmenter.predict(pictures), pictures.float().argmax(1))
    table = label_table(segmenter, label_nc=10, ignore_label=None, class_names=["anything"] * 10)
    assert {i: c for i, c in enumerate(table.tolist()) if c != IGNORED} == {4: 0, 9: 2}
    with pytest.raises(UserError, match="label 9 to class 2"):
        label_table(segmenter, label_nc=9, ignore_label=None)


def test_a_graph_that_does_not_fit_is_told(graph: Path, tmp_path: Path) -> None:
    card = tmp_path / "two.yaml"
    card.write_text("class_names: [red, green]\nshort_side: 16\n")
    with pytest.raises(UserError, match="gives 3 channels, its class map names 2"):
        load(f"export:{graph}", str(card)).predict(photographs(3, 3, 16, 32))
    fixed = tmp_path / "fixed.pt"
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(1, 3, 16, 16),)), str(fixed))
    card.write_text("class_names: [red, green, blue]\nshort_side: 16\n")
    with pytest.raises(UserError, match="needs a dynamic batch"):
        load(f"export:{fixed}", str(card)).predict(photographs(3, 3, 16, 32))


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with pytest.raises(UserError, match=r"export:.*net.pt: no such file"):
        load(f"export:{path}")
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"net.pt.yaml: no such file; it holds class_names"):
        load(f"export:{path}")
    card = tmp_path / "card.yaml"
    card.write_text("class_names: [a]\nshort_side: 8\n")
    with pytest.raises(UserError, match=r"neither an exported program .* nor TorchScript"):
        load(f"export:{path}", str(card))
    card.write_text("classes: [a]\n")
    with pytest.raises(UserError, match="has the keys class_names"):
        load(f"export:{path}", str(card))
    for text, fault in (
        ("mean: 3", "mean is 3, expected three numbers"),
        ("std: [1, 0, 1]", "three numbers above 0"),
        ("short_side: big", "expected a number of pixels"),
        ("class_names: road", "expected a list of names"),
        ("label_map: {'7': 0}", "whole numbers, label id: class"),
        ("void: none", "expected the number of a channel"),
    ):
        card.write_text(text)
        with pytest.raises(UserError, match=fault):
            load(f"export:{path}", str(card))
    card.write_text("short_side: 8\n")
    with pytest.raises(UserError, match="class_names and short_side are missing"):
        load(f"export:{path}", str(card))
