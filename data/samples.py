"""A cut picture with its maps and mask, as the compact sample that a loader carries (`util/batch.py`)."""

from __future__ import annotations

import numpy as np
import torch

from data.instances import any_hidden, dense_instances
from data.records import MapRules, Maps
from util.batch import CompactSample

_SHORT = 1 << 15  # numbers of instances that 16 bits have


def make_sample(
    maps: Maps, mask: np.ndarray, *, rules: MapRules, inst_class_rule: str, name: str, index: int = 0
) -> CompactSample:
    """Return the tensors of a picture (S, S, 3) with its maps (S, S) and mask (S, S), 1 = to be generated.

    Args:
        rules: which instance ids mean "none", which a region.
        inst_class_rule: "majority" of an instance's labels, or "mod120": its id modulo 120 (converted DivSem runs).
    """
    own_ids = rules.own_ids(maps.inst, maps.label)
    dense, inst_id, inst_class = dense_instances(own_ids, maps.label)
    inst_id = rules.region_ids(inst_id, inst_class)
    if inst_class_rule == "mod120":
        inst_class = inst_id % 120
    label = maps.label.astype(np.uint8 if maps.label.max() < 256 else np.int32)
    inst = dense.astype(np.int16 if len(inst_id) <= _SHORT else np.int32)
    return CompactSample(
        image=torch.from_numpy(np.ascontiguousarray(maps.image.transpose(2, 0, 1))),
        label=torch.from_numpy(label),
        inst=torch.from_numpy(inst),
        inst_id=torch.from_numpy(inst_id),
        inst_class=torch.from_numpy(inst_class),
        mask=torch.from_numpy(mask.astype(np.uint8))[None],
        name=name,
        index=index,
        hidden=any_hidden(inst, mask),
    )
