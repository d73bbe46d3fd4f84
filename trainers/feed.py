"""Batches on their way to the device: each is copied and expanded while the device works on the step before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from util.batch import Batch, CompactBatch, to_device


class Feed:
    """Moves batches to a device as they are asked for; to a GPU on a stream of its own, beside its work.

    What it yields may still be on its way: `arrived` comes before the first use.
    """

    def __init__(self, batches: Iterable[CompactBatch], device: torch.device) -> None:
        self.batches, self.device = iter(batches), device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self.batches)
        if self.stream is None:
            return to_device(batch, self.device)
        with torch.cuda.stream(self.stream):
            moved = to_device(batch, self.device)
        moved["copied"] = torch.cuda.Event()
        moved["copied"].record(self.stream)
        return moved


def arrived(batch: Batch) -> Batch:
    """Let the device, not the host, wait for a batch of a `Feed`."""
    copied = batch.pop("copied", None)
    if copied is not None:
        stream = torch.cuda.current_stream()
        stream.wait_event(copied)
        for value in batch.values():
            if isinstance(value, Tensor):
                value.record_stream(stream)  # its memory is not given away before this stream is done with it
    return batch
