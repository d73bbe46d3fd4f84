"""Several processes, one per GPU, as `torchrun` starts them: PyTorch's DDP and four small collectives.

Without `torchrun` there is one process and no process group, and every collective is the identity.
"""

from __future__ import annotations

import gc
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from util.device import resolve_device
from util.errors import LostProcessError
from util.files import cause

TIMEOUT = 10.0  # minutes: the others wait while the main process draws previews and saves


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """This process among its peers.

    Attributes:
        rank: number of this process; 0 is the one that writes files and prints.
        world_size: number of processes.
        device: where this process computes.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    @contextmanager
    def start(cls, device: str, *, timeout: float = TIMEOUT) -> Iterator[Distributed]:
        """Join the process group that `torchrun`'s environment describes (NCCL on GPUs, Gloo on CPUs), if any.

        Args:
            device: `--device`.
            timeout: minutes that a process waits for the others.

        Raises:
            LostProcessError: another process died, or did not answer within the timeout.
        """
        rank, world_size = int(os.environ.get("RANK", 0)), planned_processes()
        local_device = resolve_device(device, int(os.environ.get("LOCAL_RANK", 0)))
        if local_device.type == "cuda":
            torch.cuda.set_device(local_device)
        if world_size == 1:
            yield cls(device=local_device)
            return
        # NCCL's watchdog would kill the process after the timeout; a blocking wait raises instead. Its price: with
        # several processes, the host waits for the device after each backward pass.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        try:
            dist.init_process_group(
                "nccl" if local_device.type == "cuda" else "gloo", timeout=timedelta(minutes=timeout)
            )
            yield cls(rank=rank, world_size=world_size, device=local_device)
        except RuntimeError as error:
            if not _tells_of_loss(error):
                raise
            raise LostProcessError(
                f"process {rank} of {world_size}: another process of this run died, or did not answer for {timeout:g} "
                f"minutes ({_brief(error)}). Its own output says why; start all of them again with --continue_train, "
                "which goes on from the last checkpoint (--dist_timeout sets how long is waited)"
            ) from error
        finally:
            # A group that is still referenced survives this call, and its threads then abort the exiting interpreter.
            gc.collect()
            if dist.is_initialized():
                dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def wrap(self, net: nn.Module, *, unused_parameters: bool) -> nn.Module:
        """Return `net` in DDP: gradients are averaged over the processes in `backward`.

        Buffers are not broadcast: spectral norm's vectors follow from the weights, which are equal everywhere.
        Parameters may be left out of a forward pass (a method's branch that this batch does not need); where none
        ever is, PyTorch warns once that the search for them was unnecessary.
        """
        ids = [self.device.index] if self.device.type == "cuda" else None
        # PyTorch 2.14 renamed the switch.
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        switch: dict[str, Any] = {name: False}
        return DistributedDataParallel(net, device_ids=ids, find_unused_parameters=unused_parameters, **switch)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            self._reduce([0.0], dist.ReduceOp.MAX)

    def all_any(self, flags: list[bool]) -> list[bool]:
        """Return, for each flag, whether it is set in any process."""
        return self.agree(flags, {})[0]

    def agree(self, flags: list[bool], values: Mapping[str, float]) -> tuple[list[bool], dict[str, float]]:
        """Return for each flag whether any process has set it, and the means of values, in one exchange.

        All processes must pass as many flags, and the same names in the same order.
        """
        if self.world_size == 1:
            return flags, dict(values)
        total = self._reduce([*map(float, flags), *values.values()], dist.ReduceOp.SUM)
        means = (value / self.world_size for value in total[len(flags) :])
        return [count > 0 for count in total[: len(flags)]], dict(zip(values, means, strict=True))

    def equal(self, values: list[float]) -> bool:
        """Whether all processes pass the same numbers."""
        if self.world_size == 1:
            return True
        highest = self._reduce(values + [-value for value in values], dist.ReduceOp.MAX)
        return highest == values + [-value for value in values]

    def _reduce(self, values: list[float], op: dist.ReduceOp.RedOpType) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op)
        return tensor.tolist()


def planned_processes() -> int:
    """Return how many processes `torchrun` starts; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def _tells_of_loss(error: RuntimeError) -> bool:
    """Whether an error comes from the exchange between processes; out of a backward pass they are plain."""
    texts = ("gloo", "nccl", "pair closure", "closed by peer", "reset by peer", "timed out")
    return isinstance(error, dist.DistError) or any(text in str(error).lower() for text in texts)


def _brief(error: RuntimeError) -> str:
    """Return the first sentence of Gloo's message, without its source file."""
    return re.sub(r"\[/\S*\] ", "", cause(error)).split(". ")[0]
