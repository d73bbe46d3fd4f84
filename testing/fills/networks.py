"""Fills by networks of another make, given as files: ONNX models, and inpainting pipelines of diffusers.

Both need packages of their own (requirements-onnx.txt, requirements-diffusion.txt), imported when they are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from testing.fills.plain import FILLS, Colours, Fill
from testing.packs.forms import Picture
from util.errors import DataError, UserError
from util.files import cause
from util.seeds import torch_generator

ONNX, DIFFUSERS = "onnx:", "diffusers:"
KNOWN = f"{', '.join(FILLS)}, {ONNX}FILE or {DIFFUSERS}FOLDER_OR_ID"


def make_fill(name: str, colours: Colours, *, steps: int, device: str) -> Fill:
    """Return a fill by its name.

    Args:
        name: of `FILLS`, "onnx:FILE" or "diffusers:FOLDER_OR_ID".
        colours: mean colours of the classes in the training split.
        steps, device: of diffusers.

    Raises:
        UserError: there is no such fill, its package is missing, its files are unusable.
    """
    if name.startswith(ONNX):
        return onnx_fill(Path(name.removeprefix(ONNX)))
    if name.startswith(DIFFUSERS):
        return diffusers_fill(name.removeprefix(DIFFUSERS), steps=steps, device=device)
    if name not in FILLS:
        raise UserError(f"--fill {name}: unknown. Known: {KNOWN}")
    return FILLS[name](colours)


def onnx_fill(path: Path) -> Fill:
    """Return the fill of an ONNX model, on the CPU.

    Its inputs are a picture (1,3,H,W) in 0..1 with masked pixels 0 and a mask (1,1,H,W) of 1 where to generate, in
    either order, or both as (1,4,H,W); its first output is a picture (1,3,H,W) in 0..255 if it exceeds 2, else in 0..1.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"--fill {ONNX}{path}: pip install -r requirements-onnx.txt ({error})") from error
    if not path.is_file():
        raise UserError(f"--fill {ONNX}{path}: no such file")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # of many kinds, none of them public
        raise UserError(f"--fill {ONNX}{path}: not an ONNX model that can be loaded ({cause(error)})") from error
    inputs = {entry.shape[1] if len(entry.shape) == 4 else 0: entry.name for entry in session.get_inputs()}
    if inputs.keys() not in ({3, 1}, {4}):
        shapes = ", ".join(f"{entry.name} {entry.shape}" for entry in session.get_inputs())
        raise UserError(
            f"--fill {ONNX}{path}: takes {shapes}; an inpainting model takes a picture (1,3,H,W) and a mask "
            "(1,1,H,W), or both as (1,4,H,W)"
        )

    def fill(item: Picture) -> np.ndarray:
        picture = item.image.astype(np.float32).transpose(2, 0, 1)[None] / 255
        mask = item.mask.astype(np.float32)[None, None]
        given: dict[Any, np.ndarray] = {3: picture, 1: mask, 4: np.concatenate([picture, mask], 1)}
        try:
            out = np.asarray(session.run(None, {name: given[channels] for channels, name in inputs.items()})[0])
        except Exception as error:  # as where the model has another size
            raise DataError(
                f"--fill {ONNX}{path}, {item.name}: {cause(error)}; is the pack of its --crop_size?"
            ) from error
        return as_picture(out[0].transpose(1, 2, 0) * (1 if out.max(initial=0) > 2 else 255), item, f"{ONNX}{path}")

    return fill


def diffusers_fill(name: str, *, steps: int, device: str) -> Fill:
    """Return the fill of an inpainting pipeline of diffusers, by the text of the classes under the mask.

    Args:
        name: folder or hub id; safetensors files alone are read, and no code.
        steps: of denoising.
        device: where it runs.
    """
    try:
        import diffusers
    except ImportError as error:
        raise UserError(f"--fill {DIFFUSERS}{name}: pip install -r requirements-diffusion.txt ({error})") from error
    try:
        kind: Any = diffusers.AutoPipelineForInpainting
        pipeline = kind.from_pretrained(name, use_safetensors=True).to(device)
    except Exception as error:  # of many kinds: no such folder, no network, another layout
        raise UserError(f"--fill {DIFFUSERS}{name}: no inpainting pipeline can be loaded ({cause(error)})") from error
    pipeline.set_progress_bar_config(disable=True)

    def fill(item: Picture) -> np.ndarray:
        height, width = item.mask.shape
        made = pipeline(
            prompt=item.text, image=Image.fromarray(item.image), mask_image=Image.fromarray(item.mask), height=height,
            width=width, num_inference_steps=steps, generator=torch_generator("diffusers", item.name),
        )  # fmt: skip
        if any(getattr(made, "nsfw_content_detected", None) or ()):
            raise DataError(f"--fill {DIFFUSERS}{name}, {item.name}: the pipeline's safety checker blanked the result")
        return as_picture(np.asarray(made.images[0].convert("RGB")), item, f"{DIFFUSERS}{name}")

    return fill


def as_picture(values: np.ndarray, item: Picture, name: str) -> np.ndarray:
    """Return (H,W,3) uint8 of values in 0..255; raises `DataError` for another size or what is not finite."""
    if values.shape != item.image.shape or not np.isfinite(values).all():
        raise DataError(f"--fill {name}, {item.name}: gives {values.shape}, or values that are not finite; wanted "
                        f"{item.image.shape}")  # fmt: skip
    return np.round(values).clip(0, 255).astype(np.uint8)
