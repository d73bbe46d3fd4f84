"""A cut picture with its maps and mask, as the sample that every model takes (`util/batch.py`)."""

from __future__ import annotations

import numpy as np
import torch

from data.edges import mark_edges
from data.instances import any_hidden, dense_instances
from data.records import MapRules, Maps
from util.batch import Sample
from util.images import to_tensor


def make_sample(
    maps: Maps, mask: np.ndarray, *, rules: MapRules, inst_class_rule: str, name: str, index: int = 0
) -> Sample:
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
    return Sample(
        image=to_tensor(maps.image),
        label=torch.from_numpy(maps.label.astype(np.int64)),
        inst=torch.from_numpy(dense),
        inst_id=torch.from_numpy(inst_id),
        inst_class=torch.from_numpy(inst_class),
        edge=torch.from_numpy(mark_edges(dense)[None].astype(np.float32)),
        mask=torch.from_numpy(mask.astype(np.float32))[None],
        name=name,
        index=index,
        hidden=any_hidden(dense, mask),
    )
