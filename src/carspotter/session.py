"""Opening a model in onnxruntime."""

from __future__ import annotations

import os
from pathlib import Path

from carspotter.errors import ModelFileError

# onnxruntime's own wheels tell their maker of each session, from 1.29 on, unless this is set before
# it is imported; carspotter speaks to nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort


def open_session(data: bytes, path: Path, threads: int) -> ort.InferenceSession:
    """An onnxruntime session on the CPU.

    Args:
        data: the bytes of an ONNX file.
        path: the file, for errors.
        threads: how many to compute with.

    Raises:
        ModelFileError: onnxruntime cannot load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(data, options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise ModelFileError(f"{path}: onnxruntime cannot load it ({error})") from error


def cores() -> int:
    """Cores that this process may use: fewer than the machine's, in a container or by taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
