"""The authors' `embeddings.pt`: a pickled module, read without running any code in it.

The file is a pickle of whole Python objects, which could run any code. This reader admits only the classes of such a
module by name and makes empty objects of them, from which it takes the parameters. Anything else in the file is
refused and named, and so is anything that would take more memory than the size of the file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from util.errors import UserError

PLACEHOLDER = "*"
PROTOCOL = 2  # of pickle, that torch.save writes


class Hollow:
    """Stands for an instance of an admitted class: nothing but the attributes that were pickled."""


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    if math.prod(size) > storage.numel():
        raise UserError(f"it holds a tensor of size {tuple(size)} in a storage of {storage.numel()} values")
    return storage.as_strided(size, stride, offset)


def _parameter(tensor: Tensor, *rest: Any) -> Tensor:
    return tensor


ADMITTED: dict[str, Any] = {
    "ldm.modules.embedding_manager.Attentions": Hollow,
    "ldm.modules.attention.CrossAttention": Hollow,
    "torch.nn.modules.linear.Linear": Hollow,
    "torch.nn.modules.dropout.Dropout": Hollow,
    "torch.nn.modules.container.Sequential": Hollow,
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Reads `data.pkl` of an archive that torch.save wrote."""

    def __init__(self, archive: zipfile.ZipFile, entry: str, limit: int) -> None:
        self.archive, self.folder, self.left = archive, entry.removesuffix("data.pkl"), limit
        self.storages: dict[str, Tensor] = {}
        data = self.read_entry(entry)
        check_opcodes(data)
        super().__init__(io.BytesIO(data))

    def read_entry(self, name: str) -> bytes:
        """Return an entry of the archive; all of them together may not be larger than the file."""
        entry = self.archive.getinfo(name)
        self.left -= entry.file_size
        if entry.compress_type != zipfile.ZIP_STORED or self.left < 0:
            raise UserError(f"its entry {name} is packed; torch.save does not pack")
        return self.archive.read(entry)

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in ADMITTED:
            raise UserError(f"it holds {full}, which is refused: only InST's embedding network is read")
        return ADMITTED[full]

    def persistent_load(self, pid: Any) -> Tensor:
        """Return a storage as a flat tensor."""
        _, dtype, key, *_ = pid
        if key not in self.storages:
            self.storages[key] = torch.frombuffer(bytearray(self.read_entry(f"{self.folder}data/{key}")), dtype=dtype)
        return self.storages[key]


def check_opcodes(data: bytes) -> None:
    """Raise `UserError` for opcodes that torch.save does not write, or that ask for a table larger than the pickle."""
    for opcode, argument, _ in pickletools.genops(data):
        places = int(argument or 0) if "PUT" in opcode.name else 0
        if opcode.proto > PROTOCOL or places > len(data):
            raise UserError(f"its pickle has the opcode {opcode.name} ({argument}), which torch.save does not write")


def read_embeddings(path: Path) -> tuple[dict[str, Tensor], int]:
    """Return the tensors of the embedding network under its released names, and the placeholder's token id.

    Raises:
        UserError: the file is missing, is something else, or holds what is refused.
    """
    if not path.is_file():
        raise UserError(f"--source {path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            content = RestrictedUnpickler(archive, entry, path.stat().st_size).load()
        network, number = content["attention"], int(content["string_to_token"][PLACEHOLDER])
        state = tensors_of(network)
    except UserError as error:
        raise UserError(f"--source {path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise UserError(f"--source {path} is not an embeddings.pt of InST or S2PreST ({reason})") from error
    if not state:
        raise UserError(f"--source {path} is not an embeddings.pt of InST or S2PreST: its module has no tensors")
    return state, number


def tensors_of(module: Hollow, prefix: str = "", seen: set[int] | None = None) -> dict[str, Tensor]:
    """Return the parameters of an empty module and its submodules, by name; `seen` are the modules already read.

    Raises:
        ValueError: a parameter is invalid, or a module occurs twice.
    """
    seen = set() if seen is None else seen
    if id(module) in seen:
        raise ValueError(f"module {prefix} is in two places")
    seen.add(id(module))
    tensors = {f"{prefix}{name}": value for name, value in vars(module)["_parameters"].items() if value is not None}
    if other := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{other[0]} is no tensor")
    for name, child in vars(module)["_modules"].items():
        tensors |= tensors_of(child, f"{prefix}{name}.", seen)
    return tensors
