"""Style bank: raw codes per class, drawn for instances of which nothing is visible (DivSem, Sec. 3.3).

The authors' `style_codes.pt` holds the same: means of the encoder's output over whole instances of training pictures,
before normalisation.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util.errors import UserError
from util.files import write_text
from util.locks import locked
from util.sealed import load_tensors, save_tensors
from util.seeds import derive_seed

PREFIX = "class_"


@dataclass(frozen=True)
class Origin:
    """Where a code is from: a picture of the training split, and the original id of an instance in it."""

    picture: str
    instance: int


class StyleBank:
    """Codes by class: {class id: (n, D) float32}; `origins` has as many entries per class, or is empty if unknown.

    Args:
        rule: how the codes were chosen, in words, as stored beside them.
        weights: which weights of the run made them ("step 200, averaged"): codes of other weights are meaningless.
    """

    def __init__(
        self, codes: dict[int, Tensor], *, origins: dict[int, list[Origin]] | None = None, rule: str = "unknown",
        weights: str = "",
    ) -> None:  # fmt: skip
        if not codes:
            raise UserError("the style bank is empty: the training split has no labelled pixel to take a code from")
        self.codes, self.origins, self.rule, self.weights = codes, origins or {}, rule, weights
        self.mean = torch.cat(list(codes.values())).mean(0)

    def draw(self, label: int, rng: random.Random) -> Tensor | None:
        """Return one code (D,) of a class by `rng.choice`, or None if the bank has none."""
        rows = self.codes.get(label)
        return None if rows is None else rows[rng.choice(range(len(rows)))]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.codes.values())

    def save(self, path: Path) -> None:
        """Write safetensors, one tensor per class, and a JSON of the same name with each code's origin."""
        tensors = {f"{PREFIX}{label}": rows for label, rows in sorted(self.codes.items())}
        content = {
            "rule": self.rule,
            "weights": self.weights,
            "codes": {str(label): [asdict(o) for o in origins] for label, origins in sorted(self.origins.items())},
        }
        # Several tests of a new run may write at once: both files must come from one of them.
        with locked(path.parent, busy="another process writes a style bank", name=".bank.lock", wait=True):
            write_text(path.with_suffix(".json"), json.dumps(content, indent=1) + "\n")
            save_tensors(path, tensors, {"weights": self.weights})

    @classmethod
    def load(cls, path: Path, *, style_dim: int) -> StyleBank:
        """Read `save`'s file; raises `UserError` if it is damaged or of another code width."""
        try:
            tensors, metadata = load_tensors(path)
            codes = {int(key.removeprefix(PREFIX)): rows for key, rows in tensors.items()}
            odd = [k for k, rows in codes.items() if rows.ndim != 2 or not len(rows) or not rows.is_floating_point()]
            if odd or not codes:
                raise ValueError(f"class {odd[0]} has no codes" if odd else "it has no classes")
        except ValueError as error:
            raise UserError(f"{path}: not a style bank ({error}). Delete it: test.py makes it again.") from error
        if other := {rows.shape[1] for rows in codes.values()} - {style_dim}:
            raise UserError(f"{path}: codes of width {min(other)}, but the run's --style_dim is {style_dim}")
        return cls(codes, weights=metadata.get("weights", ""))


class CodeStore(nn.Module):
    """A bank's codes as buffers: they are part of the checkpoints of a model that took them from another run."""

    def put(self, bank: StyleBank) -> None:
        """Replace the stored codes by these."""
        self._buffers.clear()
        for label, rows in sorted(bank.codes.items()):
            self.register_buffer(f"{PREFIX}{label}", rows)

    def bank(self) -> StyleBank:
        """Return the codes, on the CPU."""
        codes = {int(name.removeprefix(PREFIX)): rows.cpu() for name, rows in self.named_buffers()}
        return StyleBank(codes, rule="taken over from another run")

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """Take the codes of a checkpoint, whatever their classes and numbers."""
        device = next((rows.device for rows in self.buffers()), torch.device("cpu"))
        self._buffers.clear()
        for name, rows in state_dict.items():
            self.register_buffer(name, rows.to(device, torch.float32))  # those of an export may be float16
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


Rank = tuple[int, str, int, int]  # negated hash, picture, instance, its place in the picture; the largest are kept


@dataclass(frozen=True, order=True)
class _Kept:
    rank: Rank
    code: Tensor = field(compare=False)


class BankBuilder:
    """Keep at most `cap` codes per class: those with the smallest seeded hash of (picture, instance).

    The choice does not depend on the order of the pictures, and a larger cap keeps what a smaller one keeps. Of regions
    of one picture that share an id, as `--label_map` can make them, the later place counts first.
    """

    def __init__(self, *, cap: int, seed: int) -> None:
        self.cap, self.seed = cap, seed
        self._heaps: dict[int, list[_Kept]] = {}

    def wanted(self, inst_id: Tensor, inst_class: Tensor, names: Iterable[str]) -> list[int]:
        """Return the places in a batch of the pictures of which `add` would keep a code."""
        pictures = zip(inst_id.tolist(), inst_class.tolist(), names, strict=True)
        return [place for place, picture in enumerate(pictures) if self._wants(*picture)]

    def _wants(self, ids: list[int], labels: list[int], name: str) -> bool:
        return any(
            label >= 0 and self._keeps(label, self._rank(name, number, place))
            for place, (number, label) in enumerate(zip(ids, labels, strict=True))
        )

    def _rank(self, name: str, number: int, place: int) -> Rank:
        return -derive_seed(self.seed, name, number), name, number, place

    def _keeps(self, label: int, rank: Rank) -> bool:
        heap = self._heaps.get(label, [])
        return len(heap) < self.cap or rank > heap[0].rank

    def add(self, codes: Tensor, inst_id: Tensor, inst_class: Tensor, names: Iterable[str]) -> None:
        """Codes (B, I, D) with the batch's `inst_id` and `inst_class` (B, I) padded with -1, and its names."""
        for rows, ids, labels, name in zip(codes.cpu(), inst_id.tolist(), inst_class.tolist(), names, strict=True):
            for place, (row, number, label) in enumerate(zip(rows, ids, labels, strict=True)):
                if label >= 0:
                    self._offer(label, _Kept(self._rank(name, number, place), row.clone()))

    def _offer(self, label: int, entry: _Kept) -> None:
        if self._keeps(label, entry.rank):
            heap = self._heaps.setdefault(label, [])
            (heapq.heappush if len(heap) < self.cap else heapq.heapreplace)(heap, entry)

    def bank(self, *, weights: str) -> StyleBank:
        """The codes gathered so far, in the order of their hashes; `weights`: which of the run made them."""
        ordered = {label: sorted(heap, reverse=True) for label, heap in sorted(self._heaps.items())}
        return StyleBank(
            {label: torch.stack([entry.code for entry in heap]) for label, heap in ordered.items()},
            origins={label: [Origin(*entry.rank[1:3]) for entry in heap] for label, heap in ordered.items()},
            rule=f"raw codes of whole training pictures; per class the {self.cap} with the smallest hash of "
            f"(seed {self.seed}, picture, instance)",
            weights=weights,
        )
