"""Export: a checkpoint becomes one ONNX file, refused if its answers would differ."""

from carspotter.export.cascade import export_cascade
from carspotter.export.int8_file import Loss, export_int8
from carspotter.export.localiser_file import export_localiser
from carspotter.export.onnx_file import Parity, export_run, to_onnx

__all__ = [
    "Loss",
    "Parity",
    "export_cascade",
    "export_int8",
    "export_localiser",
    "export_run",
    "to_onnx",
]
