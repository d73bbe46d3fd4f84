"""A few values of frozen networks, by which a run recognises them, wherever their files are.

Size and sixteen values of each network's largest tensor: the same weights in half precision or in another file
format pass, another model does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from util.errors import UserError
from util.files import write_text
from util.text_files import parse_json

COUNT = 16
RTOL, ATOL = 1e-2, 1e-4


def signature(parts: Mapping[str, nn.Module]) -> dict[str, dict[str, object]]:
    """Return {part: {"parameters": count, "values": [...]}}."""
    summaries = {}
    for name, part in parts.items():
        largest = max(part.parameters(), key=lambda parameter: parameter.numel()).detach().flatten()
        places = torch.linspace(0, len(largest) - 1, COUNT).long().to(largest.device)
        count = sum(parameter.numel() for parameter in part.parameters())
        summaries[name] = {"parameters": count, "values": largest[places].double().tolist()}
    return summaries


def save_signature(parts: Mapping[str, nn.Module], path: Path, *, clip_input: str) -> None:
    """Write what `check_signature` compares; `clip_input` is what CLIP is shown."""
    write_text(path, json.dumps({"clip_input": clip_input, "parts": signature(parts)}, indent=1) + "\n")


def check_signature(parts: Mapping[str, nn.Module], path: Path, *, clip_input: str) -> None:
    """Raise `UserError` if `path` was saved for other networks or CLIP input; a missing file is accepted."""
    if not path.is_file():
        return
    try:
        saved = parse_json(path.read_bytes())
        kept_input = saved["clip_input"]
        compared = {
            name: (summary["parameters"], torch.tensor(summary["values"], dtype=torch.float64).reshape(COUNT))
            for name, summary in saved["parts"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({error!r}): copy it again, or remove it to skip its checks") from error
    if kept_input != clip_input:
        raise UserError(
            f"{path.parent} was trained with --clip_input {kept_input}, not {clip_input}: a style is used as "
            "it was learnt; leave the flag out"
        )
    for name, summary in signature(parts).items():
        ours = torch.tensor(summary["values"], dtype=torch.float64)
        count, values = compared.get(name, (0, ours))
        if count != summary["parameters"] or not torch.allclose(values, ours, rtol=RTOL, atol=ATOL):
            flag = "--clip_model" if name == "vision" else "--base_model"
            raise UserError(
                f"{path.parent} was trained with another {flag}: its {name} differs. A style fits the model that it "
                "was learnt with; name that one"
            )
