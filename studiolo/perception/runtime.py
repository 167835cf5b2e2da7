"""Opening models in the three runtimes of the embedded models, with a fixed number of threads."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studiolo.errors import SettingsError, WeightsError, nearest


class LiteModel:
    """A TensorFlow Lite model: one float32 input, outputs in a fixed order."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise missing("ai_edge_litert") from None
        with _quiet_stderr():
            self._interpreter = Interpreter(str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __call__(self, x_BHWC: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Outputs for one input [1, H, W, 3], copied."""
        self._interpreter.set_tensor(self._input, x_BHWC)
        self._interpreter.invoke()
        return [np.array(self._interpreter.get_tensor(index)) for index in self._outputs]


def onnx_session(path: Path, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU that keeps no spinning threads behind."""
    try:
        import onnxruntime
    except ImportError:
        raise missing("onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class VinoModel:
    """A model read by OpenVINO: one input and one output, computed in float32 also where the processor has less."""

    def __init__(self, path: Path, threads: int, output: str | None = None) -> None:
        """From `path` (ONNX, or OpenVINO's xml beside its bin); up to the tensor called `output` where one is named."""
        try:
            import openvino
        except ImportError:
            raise missing("openvino", extra="faces") from None
        core = openvino.Core()
        model = core.read_model(path)
        if output is not None:
            model = openvino.Model([_tensor(model, output)], model.get_parameters())
        # By default OpenVINO computes in bfloat16 where it can, and the same input gives other numbers elsewhere.
        config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(model, "CPU", config)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output for one input, copied."""
        return np.array(self._compiled(x)[0])


def _tensor(model: Any, name: str) -> Any:
    found = {name: output for node in model.get_ops() for output in node.outputs() for name in output.get_names()}
    if name not in found:
        raise WeightsError(f"model {model.get_friendly_name()}: no tensor is called {name!r}; {nearest(name, found)}")
    return found[name]


def missing(package: str, extra: str = "embedded") -> SettingsError:
    """The error for a runtime that is not installed; `extra` of ours brings it."""
    return SettingsError(f"embedded models: package {package} is not installed; install studiolo[{extra}]")


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """The interpreter prints which delegate it chose, once a process, past Python's own streams."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as sink:
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
