"""Several processes, one per GPU, as `torchrun` starts them: PyTorch's DDP and four small collectives.

Without `torchrun` there is one process and no process group, and every collective is the identity.
"""

from __future__ import annotations

import gc
import inspect
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from util.device import resolve_device
from util.errors import LostProcessError
from util.files import cause

TIMEOUT = 1.0  # minutes
GO_ON = (
    "start all of them again with --continue_train, which goes on from the last checkpoint (--dist_timeout sets how "
    "long is waited)"
)
TELL_EVERY = 0.2  # seconds


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """This process among its peers.

    Attributes:
        rank: number of this process; 0 is the one that writes files and prints.
        world_size: number of processes.
        device: where this process computes.
        aside: the same processes as a group of its own, for `together`.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    aside: Any = field(default=None, repr=False)

    @classmethod
    @contextmanager
    def start(cls, device: str, *, timeout: float = TIMEOUT, remedy: str = GO_ON) -> Iterator[Distributed]:
        """Join the process group that `torchrun`'s environment describes (NCCL on GPUs, Gloo on CPUs), if any.

        Args:
            device: `--device`.
            timeout: minutes that a process waits for the others.
            remedy: what to do when one is lost.

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
            # Gradients by NCCL; what the host has to know by Gloo, which need not wait for the GPU
            backend = "cpu:gloo,cuda:nccl" if local_device.type == "cuda" else "gloo"
            patience = timedelta(minutes=timeout)
            # `--max-restarts` keeps the store, and in it the addresses of processes that are no more
            store = next(rendezvous("env://", rank, world_size, timeout=patience))[0]
            store = dist.PrefixStore(  # type: ignore[attr-defined]
                f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store
            )
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=patience)
            aside = dist.new_group(backend="gloo", timeout=patience)
            yield cls(rank=rank, world_size=world_size, device=local_device, aside=aside)
        except RuntimeError as error:
            if not _tells_of_loss(error):
                raise
            raise LostProcessError(
                f"process {rank} of {world_size}: another process of this run died, or did not answer for {timeout:g} "
                f"minutes ({_brief(error)}). Its own output says why; {remedy}"
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

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let each process do what is in the block for as long as it needs; all leave it when all have done it.

        Meanwhile they tell each other that they live, so that one that does not is noticed within the timeout.
        """
        if self.world_size == 1:
            yield
            return
        done, problems = threading.Event(), list[RuntimeError]()

        def tell() -> None:
            try:
                while self._reduce([float(done.is_set())], dist.ReduceOp.SUM, self.aside)[0] < self.world_size:
                    done.wait(TELL_EVERY)
            except RuntimeError as error:
                problems.append(error)

        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        try:
            yield
        finally:
            done.set()
            telling.join()
        if problems:
            raise problems.pop()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank, in the first one; an empty list in the others."""
        if self.world_size == 1:
            return [value]
        found: list[Any] | None = [None] * self.world_size if self.is_main else None
        dist.gather_object(value, found, group=self.aside)
        return found or []

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

    @staticmethod
    def _reduce(values: list[float], op: dist.ReduceOp.RedOpType, group: Any = None) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op, group)
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
