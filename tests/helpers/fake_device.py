"""A device that no machine needs to have: each tensor says where it would lie, and has its real values beside it.

PyTorch's `FakeTensorMode` keeps the devices and refuses what a GPU would refuse; a shadow on the CPU keeps the values,
so that branches, loops over objects and shapes that depend on data are the real ones. What the host would wait for is
noted.

Of the two devices, "cuda" is what the code sees of a GPU, but its backward passes are not run (PyTorch's engine asks
the driver): gradients are ones. "lazy", a device of PyTorch's without hardware, runs them, but makes no updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
VALUE = {aten._local_scalar_dense, aten.equal, aten.is_nonzero}  # the host asks for a value
COUNT = {  # the host asks how large the result is
    aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount,
    aten.repeat_interleave,
}  # fmt: skip
READ = {aten.index, aten._unsafe_index}
WRITE = {aten.index_put, aten.index_put_, aten._index_put_impl_}
MASKS = (torch.bool, torch.uint8)


class DeviceMistakeError(AssertionError):
    """What fails on a GPU, or reads what has not arrived from it yet."""


class FakeDevice(TorchDispatchMode):
    """Runs each operation twice: on fakes, for its devices, and on the CPU, for its values.

    Attributes:
        device: to be handed to the code under test.
        waits: what the host has waited for.
    """

    def __init__(self, kind: str, fakes: FakeTensorMode) -> None:
        super().__init__()
        self.device, self.fakes = torch.device(kind, 0), fakes
        self.waits: list[str] = []
        self._in_flight: list[Tensor] = []  # copies to the host that nobody has waited for
        self.stream = "main"  # that operations are given to
        self._elsewhere: list[Tensor] = []  # made on another stream, which the main one has not waited for

    def wait(self) -> None:
        """Wait until all copies to the host are there."""
        self.waits.append("event")
        self._in_flight.clear()

    def values(self, x: Tensor) -> Tensor:
        """Return what is in a tensor, on the CPU."""
        if any(x is copy for copy in self._in_flight):
            raise DeviceMistakeError("a copy to the host is read before it has arrived")
        if self.stream == "main" and any(x is copy for copy in self._elsewhere):
            raise DeviceMistakeError("a copy to the device is used before it has arrived")
        shadow: Tensor = x.shadow if isinstance(x, FakeTensor) else x.data  # type: ignore[attr-defined]
        return shadow

    def wait_on_device(self, event: Any) -> None:
        """Let the main stream wait for the others; stands for `torch.cuda.Stream.wait_event`."""
        self._elsewhere.clear()

    @contextmanager
    def beside(self, stream: Any) -> Iterator[None]:
        """Stands for `torch.cuda.stream`."""
        self.stream = "beside"
        try:
            yield
        finally:
            self.stream = "main"

    def tolist(self, x: Tensor) -> Any:
        """Stands for `Tensor.tolist`."""
        if x.device.type != "cpu":
            self.waits.append("tolist")
        with no_dispatch():
            return torch._C.TensorBase.tolist(self.values(x))

    def numpy(self, x: Tensor, **how: Any) -> Any:
        """Stands for `Tensor.numpy`."""
        if x.device.type != "cpu":
            raise DeviceMistakeError(f"a tensor on {x.device} has no numpy(): move it to the CPU first")
        with no_dispatch():
            return torch._C.TensorBase.numpy(self.values(x), **how)

    # --- one operation ---------------------------------------------------------------------------------------------
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = apply(self._adopt, args), apply(self._adopt, kwargs or {})
        self._note(func.overloadpacket, args, kwargs)
        with no_dispatch():
            real = func(*apply(self._plain, args), **apply(self._plain, kwargs))
        if func.overloadpacket in VALUE:
            self._common_device(func, args)
            return real
        if func.overloadpacket is aten.convolution:  # which fakes of torch 2.11 take from two devices
            self._common_device(func, args)
        try:
            fake = func(*args, **kwargs)
        except (DynamicOutputShapeException, DataDependentOutputException):
            place = self._common_device(func, args)
            fake = apply(lambda x: self._fake(x, place) if isinstance(x, Tensor) else x, real)
        self._attach(fake, real)
        if self.stream != "main":
            self._elsewhere += tensors_of([fake])
        if func.overloadpacket is aten._to_copy and kwargs.get("non_blocking") and args[0].device.type != "cpu":
            self._in_flight += [fake] if fake.device.type == "cpu" else []
        return fake

    def _fake(self, x: Tensor, device: torch.device) -> FakeTensor:
        with no_dispatch():
            shape = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
            return FakeTensor(self.fakes, shape, device)

    def _adopt(self, x: Any) -> Any:
        """Take in a tensor that was made before this device was: it lies on the CPU."""
        if not isinstance(x, Tensor) or isinstance(x, FakeTensor):
            return x
        fake = self._fake(x, x.device)
        with no_dispatch():
            fake.shadow = x.data  # type: ignore[attr-defined]
        return fake

    def _plain(self, x: Any) -> Any:
        if isinstance(x, torch.device):
            return torch.device("cpu")
        return self.values(x) if isinstance(x, Tensor) else x

    def _attach(self, fake: Any, real: Any) -> None:
        if isinstance(fake, FakeTensor):
            fake.shadow = in_order_of(fake, real)  # type: ignore[attr-defined]
        elif isinstance(fake, list | tuple):
            for one, value in zip(fake, real, strict=True):
                self._attach(one, value)

    def _common_device(self, func: Any, args: Any) -> torch.device:
        places = {x.device for x in tensors_of(args) if x.ndim}
        if len(places) > 1:
            raise DeviceMistakeError(f"{func}: tensors on {', '.join(map(str, places))}")
        return next(iter(places or {x.device for x in tensors_of(args)}))

    def _note(self, packet: Any, args: Any, kwargs: Any) -> None:
        """Note what the host waits for, and refuse what fakes do not."""
        first = next(iter(tensors_of(args)), None)
        if first is None:
            if kwargs.get("generator") is not None and kwargs.get("device", self._cpu).type != "cpu":
                raise DeviceMistakeError(f"{packet}: a generator of the CPU draws on a device")
            return
        away = first.device.type != "cpu"
        if packet in (aten._to_copy, aten.copy_):
            source = first if packet is aten._to_copy else args[1]
            target = kwargs.get("device") or first.device
            at_once = kwargs.get("non_blocking") or (packet is aten.copy_ and True in args[2:])
            if source.device.type != target.type and not at_once:
                self.waits.append(f"copy to {target.type}")
        elif packet in READ | WRITE and away:
            masks = [index for index in args[1] if index is not None and index.dtype in MASKS]
            if any(index is not None and index.device.type == "cpu" for index in args[1]):
                self.waits.append("copy of an index")
            elif masks and (packet in READ or args[2].numel() > 1):
                self.waits.append("indexing by a mask")
        elif packet in VALUE | COUNT and away:
            self.waits.append(packet.__name__)

    _cpu = torch.device("cpu")


def apply(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to what is in lists, tuples and dicts; PyTorch's own takes a third of all the time."""
    if isinstance(tree, list | tuple):
        return type(tree)([apply(function, part) for part in tree])
    if isinstance(tree, dict):
        return {name: apply(function, part) for name, part in tree.items()}
    return function(tree)


def in_order_of(fake: Tensor, real: Tensor) -> Tensor:
    """Return values in the memory order of their fake: a CPU's convolutions of small maps choose another one."""
    strides = zip(fake.shape, fake.stride(), real.stride(), strict=True)
    if all(own == other for size, own, other in strides if size > 1):
        return real
    with no_dispatch():
        return torch.empty_strided(fake.shape, fake.stride(), dtype=real.dtype).copy_(real)


def tensors_of(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    apply(lambda x: found.append(x) if isinstance(x, Tensor) else None, tree)
    return found


def missing_fakes() -> str:
    """Return why this PyTorch cannot fake a GPU, or nothing."""
    if not torch.backends.cuda.is_built():
        return f"PyTorch {torch.__version__} is built without CUDA, whose devices it cannot fake"
    try:
        with FakeTensorMode(), torch.no_grad():
            torch.ones(2, device="cuda") + torch.ones(2, device="cuda")
    except (RuntimeError, NotImplementedError) as error:
        return f"PyTorch {torch.__version__} cannot fake a GPU: {error}"
    return ""


@contextmanager
def fake_device(kind: str) -> Iterator[FakeDevice]:
    """Enter a fake device, "cuda" or "lazy"; tensors that exist already lie on the CPU."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        fakes = stack.enter_context(FakeTensorMode())
        device = stack.enter_context(FakeDevice(kind, fakes))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # its operations have no form on a CPU
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        for made in (Tensor, FakeTensor):
            patch.setattr(made, "tolist", lambda x: device.tolist(x), raising=False)
            patch.setattr(made, "numpy", lambda x, **how: device.numpy(x, **how), raising=False)
        patch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
        patch.setattr(torch.cuda, "Event", lambda: FakeEvent(device))
        patch.setattr(torch.cuda, "Stream", lambda place: object())
        patch.setattr(torch.cuda, "stream", device.beside)
        patch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(wait_event=device.wait_on_device))
        patch.setattr(Tensor, "record_stream", lambda x, stream: None)
        patch.setattr(Tensor, "pin_memory", lambda x: x)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        if kind == "cuda":
            patch.setattr(Tensor, "backward", unit_gradients)
        else:
            patch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
            patch.setattr(torch, "is_autocast_enabled", lambda *args: False)
            for kind in (torch.optim.Adam, torch.optim.AdamW):  # whose step is its own if it is the process's first
                patch.setattr(kind, "step", lambda optimizer: None)  # "cuda" has them, and they take longest
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # so that optimisers keep their parameters
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        patch.setattr(torch.utils, "swap_tensors", swap)
        yield device


def swap(a: Tensor, b: Tensor) -> None:
    """As `torch.utils.swap_tensors`, which refuses tensors that a weak reference knows, as PyTorch's own of fakes."""
    a.__class__, b.__class__ = b.__class__, a.__class__
    a.__dict__, b.__dict__ = b.__dict__, a.__dict__
    torch._C._swap_tensor_impl(a, b)


class FakeEvent:
    """Stands for `torch.cuda.Event`."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def record(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None:
        self.device.wait()


def unit_gradients(loss: Tensor) -> None:
    """Give all leaves that a loss comes from gradients of ones."""
    assert loss.grad_fn is not None
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and leaf.grad is None:
            leaf.grad = torch.ones_like(leaf)
        nodes += [parent for parent, _ in node.next_functions if parent is not None]
