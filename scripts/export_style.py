"""What scripts/export.py adds for a run that holds a style: its picture, its base model, its token for diffusers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from models.s2prest_model import BASE_FILE, STYLE_FILE

TOKEN_FILE = "learned_embeds.safetensors"  # the name that diffusers looks for in a folder
STYLE_FILES = (TOKEN_FILE, STYLE_FILE, BASE_FILE)


def write_style(model: Any, run: Path, folder: Path, *, half: bool) -> str:
    """Write `STYLE_FILES`, and return the word that stands for the style in prompts: `<name of the folder>`."""
    for name in (STYLE_FILE, BASE_FILE):
        if (run / name).is_file():  # converted runs know no base model
            shutil.copyfile(run / name, folder / name)
    word = f"<{re.sub(r'[^A-Za-z0-9]+', '-', folder.name).strip('-').lower()}>"
    token = model.style_token()
    save_file({word: token.half() if half else token}, folder / TOKEN_FILE)
    return word


def about_style(folder: Path, word: str, *, summary: str, step: int) -> list[str]:
    """Return the paragraphs of a model card that say what the style is and how it is used."""
    return [
        f"{summary}. It repaints photographs in the style of `{STYLE_FILE}`, learnt in {step} steps. It fits the base "
        "model that it was learnt with, which is not part of this folder.",
        f"```\npython test.py --name {folder.name}/ --base_model M --clip_model C --content photos/\n```",
        f"**With diffusers**: `{TOKEN_FILE}` holds the token of the style picture as an embedding of textual "
        "inversion. Prompts with it know the style; the content's edges and the mixed latents are S2PreST's own.",
        f'```python\npipeline.load_textual_inversion("{folder.name}")\npipeline("a harbour by {word}")\n```',
    ]
