"""One process or several: devices, precision, and what they tell each other."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import distributed

from carspotter.errors import CarspotterError, UsageError
from carspotter.machine import cores
from carspotter.train.schedule import Schedule

T = TypeVar("T")

# The others wait while the first decodes a large data set or averages epochs.
_LONGEST_WAIT = datetime.timedelta(hours=12)

PrecisionName: TypeAlias = Literal["32-true", "bf16-mixed", "16-mixed"]

_PRECISIONS: dict[str, PrecisionName] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def choose_precision(recipe: Schedule, device: torch.device) -> PrecisionName:
    """Fabric's name of the precision that the recipe means on this device."""
    if recipe.precision in _PRECISIONS:
        return _PRECISIONS[recipe.precision]
    if device.type == "cuda":
        wants_bf16 = recipe.precision == "auto" and torch.cuda.is_bf16_supported()
        return "bf16-mixed" if wants_bf16 else "16-mixed"
    able = torch.cpu.get_capabilities()
    return "bf16-mixed" if able.get("avx512_bf16") or able.get("amx_bf16") else "32-true"


def make_fabric(recipe: Schedule, devices: int | None = None, nodes: int | None = None) -> Fabric:
    """Devices and precision; several devices train by DDP, on CPUs over gloo.

    Below `torchrun`, which has started the processes already, its numbers are taken.

    Args:
        recipe: says the precision.
        devices: GPUs, or processes on the CPU, of each node; None: one.
        nodes: machines; None: one.

    Raises:
        UsageError: more GPUs than there are, or numbers that contradict torchrun's.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        here, machines = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["GROUP_WORLD_SIZE"])
        if devices not in (None, here):
            raise UsageError(f"--devices {devices}: torchrun started {here} processes; leave it")
        if nodes not in (None, machines):
            raise UsageError(f"--nodes {nodes}: torchrun runs on {machines} machines; leave it")
        devices, nodes = here, machines
    devices, nodes = devices or 1, nodes or 1
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise UsageError(f"--devices {devices}: there are {torch.cuda.device_count()} GPUs")
    name = choose_precision(recipe, device)
    precision = Precision() if name == "32-true" else MixedPrecision(name, device.type)
    return Fabric(
        accelerator=device.type,
        strategy=DDPStrategy(timeout=_LONGEST_WAIT) if devices * nodes > 1 else "auto",
        devices=devices,
        num_nodes=nodes,
        plugins=[precision],
    )


def loading_processes(device: str, processes: int = 1) -> int:
    """How many processes load pictures for each one that trains.

    On a CPU the cores train as well, and one loader for two of them keeps up with that.

    Args:
        device: the kind that is trained on, "cpu" or "cuda".
        processes: that train on this machine.
    """
    free = cores() // (2 if device == "cpu" else 1)
    return min(8, max(1, free // processes))


def gather(fabric: Fabric, value: T) -> list[T]:
    """What each process holds, in the order of their ranks, in each of them."""
    if fabric.world_size == 1:
        return [value]
    found: list[Any] = [None] * fabric.world_size
    distributed.all_gather_object(found, value)
    return found


def agree(fabric: Fabric, work: Callable[[], T], *, first: bool) -> T | None:
    """Do `work` in the first process (of each node), and fail in all processes if it fails there.

    Args:
        fabric: the processes.
        work: what to do.
        first: in the first process of all; else in the first of each node.

    Returns:
        What it returned; None in the processes that did not do it.

    Raises:
        CarspotterError: what `work` raised, in every process.
    """
    rank = fabric.global_rank if first else fabric.local_rank
    value: T | None = None
    error: CarspotterError | None = None
    if rank == 0:
        try:
            value = work()
        except CarspotterError as caught:
            error = caught
    for failure in gather(fabric, error):
        if failure is not None:
            raise failure
    return value


def alike(fabric: Fabric, work: Callable[[], T]) -> T:
    """The same in all processes; the first of each node does it before the others.

    What the first one leaves on disk, the others find there; where it fails, all fail.

    Raises:
        CarspotterError: what `work` raised.
    """
    first = agree(fabric, work, first=False)
    return work() if first is None else first


@contextlib.contextmanager
def one_message() -> Iterator[None]:
    """An error that all processes raise is told by the first; the others end in silence."""
    try:
        yield
    except CarspotterError:
        if getattr(rank_zero_only, "rank", 0) == 0:
            raise
        raise SystemExit(0) from None
