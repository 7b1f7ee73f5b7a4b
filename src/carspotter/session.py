"""Opening a model in onnxruntime."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from carspotter.errors import ModelFileError, UsageError

# onnxruntime's own wheels tell their maker of each session, from 1.29 on, unless this is set before
# it is imported; carspotter speaks to nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime, on a Mac"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml, on Windows"),
}
"""What computes, by name: onnxruntime's name of it, and the package that has it."""


class Session:
    """An ONNX file in onnxruntime, for one run at a time or, as `one_thread`, for several.

    Args:
        data: the bytes of an ONNX file.
        path: the file, for errors.
        threads: how many to compute with.
        provider: of `PROVIDERS`.

    Raises:
        ModelFileError: onnxruntime cannot load it.
        UsageError: no such provider, not in this onnxruntime, or it does not start.
    """

    def __init__(self, data: bytes, path: Path, threads: int, provider: str = "cpu") -> None:
        self.ort = open_session(data, path, threads, provider)
        # The bytes are kept only where they are read again.
        self._again = (data, path) if threads > 1 and provider == "cpu" else None
        self._lock = threading.Lock()
        self._one: Session | None = None

    @property
    def one_thread(self) -> Session:
        """The same with one thread to a run, where the CPU computes.

        Threads that share each layer of one run wait for each other; runs side by side, each with
        a thread of its own, do not. It is opened when it is needed, once for all that ask.
        """
        if self._again is None:
            return self
        with self._lock:
            if self._one is None:
                self._one = Session(*self._again, threads=1)
            return self._one


def open_session(
    data: bytes, path: Path, threads: int, provider: str = "cpu"
) -> ort.InferenceSession:
    """An onnxruntime session.

    Args:
        data: the bytes of an ONNX file.
        path: the file, for errors.
        threads: how many to compute with.
        provider: of `PROVIDERS`; what it cannot compute, the CPU does.

    Raises:
        ModelFileError: onnxruntime cannot load it.
        UsageError: no such provider, not in this onnxruntime, or it does not start.
    """
    wanted = _provider(provider)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that go on looking for work after a run keep a core from the next session's run: a
    # localiser and a classifier by turns take more than twice their time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if provider == "openvino":
        # It optimises the graph itself, and cannot read what onnxruntime makes of ours before.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    chosen = [wanted] if provider == "cpu" else [wanted, PROVIDERS["cpu"][0]]
    try:
        session = ort.InferenceSession(data, options, chosen)
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise ModelFileError(f"{path}: onnxruntime cannot load it ({error})") from error
    # Where its libraries are missing, onnxruntime takes the CPU and only says so on stderr.
    if wanted not in session.get_providers():
        raise UsageError(
            f"provider {provider}: it does not start on this machine; are its drivers and "
            "libraries installed?"
        )
    return session


def _provider(name: str) -> str:
    """Onnxruntime's name of a provider that is there.

    Raises:
        UsageError: no such provider, or this onnxruntime does not have it.
    """
    there = [key for key, (full, _) in PROVIDERS.items() if full in ort.get_available_providers()]
    if name not in PROVIDERS:
        raise UsageError(
            f"provider {name}: must be one of {', '.join(PROVIDERS)}; here are {', '.join(there)}"
        )
    full, package = PROVIDERS[name]
    if name not in there:
        raise UsageError(
            f"provider {name}: this onnxruntime has {', '.join(there)} alone; it is in the package "
            f"{package} (pip uninstall onnxruntime first: they share a folder)"
        )
    return full
