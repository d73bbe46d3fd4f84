"""Segmenters from elsewhere: `hf:<id or folder>` (Hugging Face transformers) and `export:<file>` (a saved graph).

What the file itself does not say is in a YAML class map (`--segmenter_classes FILE`; for `export:` by default
`<file>.yaml`):

    class_names: [road, sidewalk, ...]   # one per output channel
    short_side: 512                      # pixels, the scale it was trained at
    mean: [123.7, 116.3, 103.5]          # of RGB 0..255, subtracted; default 0
    std: [58.4, 57.1, 57.4]              # then divided by; default 1
    label_map: {7: 0, 8: 1}              # data set's label id: class; ids left out are ignored. Default: equal ids
    void: 19                             # a channel that is not a class

A saved graph is a program: torch evaluates expressions of an exported one, and TorchScript has operators that write
files. It is read only if its SHA-256 was given (`--trust`).

Shapes: B pictures, C classes, H x W pixels.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metrics.segments.segmenter import Segmenter
from util.errors import UserError
from util.files import cause
from util.text_files import load_yaml
from util.unpickling import plain_pickles, weights_only
from util.weight_files import file_hash

CARD_KEYS = {"class_names", "short_side", "mean", "std", "label_map", "void"}


class Normalised(nn.Module):
    """A network behind its normalisation: RGB (B,3,H,W) float in [0, 255] -> logits (B,C,h,w)."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: Any, *, mean: tuple[float, ...], std: tuple[float, ...], queries: bool = False) -> None:
        super().__init__()
        self.net, self.queries = net, queries
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, rgb: Tensor) -> Tensor:
        try:
            out = self.net((rgb - self.mean) / self.std)
        except (RuntimeError, AssertionError) as error:  # a graph of fixed sizes asserts these
            raise UserError(
                f"the segmenter does not take pictures of {tuple(rgb.shape)} (B, RGB, H, W): {str(error)[:200]}; a "
                "saved graph needs a dynamic batch, height and width"
            ) from error
        if self.queries:  # Mask2Former: each query has a mask and a class, the last of which is "none"
            classes = out.class_queries_logits.softmax(-1)[..., :-1]
            scores: Tensor = torch.einsum("bqc,bqhw->bchw", classes, out.masks_queries_logits.sigmoid())
            return scores
        if isinstance(out, (tuple, list)):
            out = out[0]
        elif isinstance(out, dict):
            out = out["logits"] if "logits" in out else out["out"]
        logits: Tensor = out
        return logits


def load_external(spec: str, *, classes: str | None, trust: str | None, device: torch.device) -> Segmenter:
    """Load `hf:...` or `export:...`; `classes` is --segmenter_classes, `trust` --trust.

    Raises:
        UserError: transformers is missing, a file is missing or invalid, a graph is not trusted.
    """
    if spec.startswith("hf:"):
        return _hugging_face(spec, read_card(Path(classes)) if classes else {}, device)
    return _exported(spec, classes, trust, device)


def read_card(path: Path) -> dict[str, Any]:
    """Read a class map; raises `UserError` naming what is wrong in it."""
    if not path.is_file():
        raise UserError(f"--segmenter_classes {path}: no such file; it holds class_names and short_side (see "
                        "docs/protocols.md)")  # fmt: skip
    try:
        card = load_yaml(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no YAML: {error}") from error
    if not isinstance(card, dict) or not card.keys() <= CARD_KEYS:
        raise UserError(f"{path}: a class map has the keys {', '.join(sorted(CARD_KEYS))} only")
    for key, (fits, wanted) in _FORMS.items():
        if card.get(key) is not None and not fits(card[key]):
            raise UserError(f"{path}: {key} is {card[key]!r}, expected {wanted}")
    return card


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _colour(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value)


_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "class_names": (lambda value: isinstance(value, list) and len(value) > 0, "a list of names"),
    "short_side": (lambda value: _whole(value) and value > 0, "a number of pixels"),
    "mean": (_colour, "three numbers"),
    "std": (lambda value: _colour(value) and min(value) > 0, "three numbers above 0"),
    "label_map": (
        lambda value: isinstance(value, dict) and all(map(_whole, [*value, *value.values()])),
        "whole numbers, label id: class",
    ),
    "void": (_whole, "the number of a channel"),
}


def _hugging_face(spec: str, card: dict[str, Any], device: torch.device) -> Segmenter:
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"--segmenter {spec} needs `pip install -r requirements-hf.txt` ({error})") from error
    source = spec.removeprefix("hf:")
    safely = {"trust_remote_code": False}  # None, the default, would ask the user
    try:
        config = transformers.AutoConfig.from_pretrained(source, **safely)
        queries = "mask2former" in config.model_type
        kind = (
            transformers.AutoModelForUniversalSegmentation if queries else transformers.AutoModelForSemanticSegmentation
        )
        model = kind.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **safely)
        prepared = transformers.AutoImageProcessor.from_pretrained(source, **safely)
    except Exception as error:  # transformers raises many kinds of errors for invalid files
        needed = (
            "Name a folder with config.json, model.safetensors and preprocessor_config.json, or a model of the Hugging "
            "Face hub, which takes a network or the hub's cache"
        )
        if isinstance(error, OSError) and ".safetensors" in str(error):
            needed = (
                "Pickles (pytorch_model.bin) are not read, since they can run any code. If you trust its maker, load "
                "it with transformers and write it anew with save_pretrained(FOLDER)"
            )
        raise UserError(f"--segmenter {spec} cannot be loaded: {cause(error).rstrip('.')}. {needed}") from error
    names = tuple(config.id2label[i] for i in range(len(config.id2label)))
    size = {key: value for key, value in dict(prepared.size or {}).items() if value}
    stored_side = size.get("shortest_edge") or min(size.get("height", 512), size.get("width", 512))
    mean, std = (
        tuple(card.get(key) or [255 * v for v in values])
        for key, values in (("mean", prepared.image_mean), ("std", prepared.image_std))
    )
    notes = {"revision": getattr(config, "_commit_hash", None), "transformers": transformers.__version__}
    return Segmenter(
        name=source.rstrip("/").rpartition("/")[2],
        net=Normalised(model, mean=mean, std=std, queries=queries).eval().requires_grad_(False).to(device),
        class_names=tuple(map(str, card.get("class_names") or names)),
        short_side=int(card.get("short_side") or stored_side),
        weights=source,
        sha256=_state_hash(model),
        device=device,
        void=card.get("void"),
        notes=notes,
        label_map=card.get("label_map"),
    )


def _exported(spec: str, classes: str | None, trust: str | None, device: torch.device) -> Segmenter:
    path = Path(spec.removeprefix("export:"))
    if not path.is_file():
        raise UserError(f"--segmenter {spec}: no such file")
    card = read_card(Path(classes or f"{path}.yaml"))
    if not card.get("class_names") or not card.get("short_side"):
        raise UserError(f"{classes or f'{path}.yaml'}: class_names and short_side are missing")
    sha256 = file_hash(path)
    if (trust or "").lower() != sha256:
        problem = "needs --trust" if trust is None else f"is not the file of --trust {trust}"
        raise UserError(f"--segmenter {spec} {problem}: a saved graph can run any code on this machine. If you know "
                        f"who made it, confirm it by --trust {sha256}")  # fmt: skip
    net = _read_graph(path, device)
    mean, std = (tuple(card.get(key) or (default,) * 3) for key, default in (("mean", 0.0), ("std", 1.0)))
    return Segmenter(
        name=path.stem,
        net=Normalised(net, mean=mean, std=std).to(device),
        class_names=tuple(map(str, card["class_names"])),
        short_side=int(card["short_side"]),
        weights=path.name,
        sha256=sha256,
        device=device,
        void=card.get("void"),
        label_map=card.get("label_map"),
    )


def _read_graph(path: Path, device: torch.device) -> Any:
    """Return an exported program's module or a TorchScript module; each kind of file is given to its own reader."""
    try:
        with zipfile.ZipFile(path) as archive:
            script = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if script:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                return torch.jit.load(str(path), map_location=device).eval()
        with weights_only(), plain_pickles():
            return torch.export.load(str(path)).module().to(device)
    except UserError:
        raise
    except Exception as error:  # a damaged file, or one of another kind, can raise anything
        raise UserError(
            f"{path} is neither an exported program (torch.export.save) nor TorchScript: {cause(error)}"
        ) from error


def _state_hash(model: nn.Module) -> str:
    """SHA-256 of all tensors, by name: a hub model may lie in several files."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
