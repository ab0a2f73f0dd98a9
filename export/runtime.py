"""ONNX Runtime, which reports to its maker from the moment it is imported unless the environment forbids it by then."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["ort"]
