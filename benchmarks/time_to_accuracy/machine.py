"""What a measurement was made on: processor, load, versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_VERSIONS_OF = ("carspotter", "torch", "torchvision", "timm", "numpy", "pillow")


def computes_in_bf16() -> bool:
    """Whether mixed precision in bf16 pays on the device."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def device() -> str:
    """Where all contenders train: "cuda" where carspotter would use it, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> dict[str, Any]:
    """The processor, its cores, and what torch makes of it."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch_threads": torch.get_num_threads(),
        "bf16": computes_in_bf16(),
        "device": device(),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that the contenders share."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _VERSIONS_OF},
    }


def load() -> list[float]:
    """The load average of the last 1, 5 and 15 minutes: other work on the machine counts too."""
    return [round(value, 2) for value in os.getloadavg()]


def _processor() -> str:
    """The processor's name; Python itself knows it on some systems only."""
    about = Path("/proc/cpuinfo")
    if about.is_file():
        for line in about.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"
