"""What the choices of int8 rest on (docs/adr/037-int8.md), measured on small trained networks.

    python -m bench.int8_choices --folder /tmp/int8 --data-dir data

Trains the networks on first use. Of each: the ways to find ranges, which layers stay float, correction of biases,
how far engines are apart on the same file, and how far a wrong file is from a right one.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from bench._int8_nets import NETS, Net, made
from prunit.edge.runtimes import runtime
from prunit.edge.session import Array, outputs_of
from prunit.export.quantising.choosing import (
    METHODS,
    Tried,
    agreement,
    answers,
    error_of,
    float_sets,
    measured,
    opened,
    timed,
)
from prunit.export.quantising.network import Network
from prunit.export.quantising.ranges import Seen, observed


class Case:
    """A network, with what was seen of it on its calibration images."""

    def __init__(self, net: Net) -> None:
        self.net, self.path = net, net.folder / net.artifact.path
        self.network = Network(self.path)
        session = runtime("onnxruntime").open(self.path)
        self.expected = answers(session, net.holdout)
        self.right = answers(session, net.test)[0].argmax(1) == net.labels
        tensors = self.network.float_tensors(self.network.integer_nodes(self.network.layers))
        self.seen = observed(self.network, tensors, net.calibration)

    def tried(self, method: str, stay: Sequence[Any] = (), *, seen: dict[str, Seen] | None = None) -> Tried:
        return measured(self.network, seen or self.seen, method, stay, self.net.holdout, self.expected)

    def judged(self, data: bytes) -> dict[str, float]:
        """Accuracy on the test images, and its paired difference to the float file with 1.96 standard errors."""
        with tempfile.TemporaryDirectory() as folder:
            right = answers(opened(data, Path(folder)), self.net.test)[0].argmax(1) == self.net.labels
        points = 100 * (right.astype(float) - self.right)
        return {
            "accuracy": round(100 * right.mean(), 2),
            "difference": round(points.mean(), 2),
            "interval": round(1.96 * points.std() / len(points) ** 0.5, 2),
        }


def row(case: Case, one: Tried) -> dict[str, Any]:
    found = {"method": one.method, "float": len(one.float_layers), "error": round(one.error, 4)}
    found |= {"agreement": round(one.agreement or 0, 4), "bytes": len(one.data)}
    if one.ms is not None:
        found["ms"] = round(one.ms, 4)
    return found | case.judged(one.data)


def ways(case: Case, *, library: bool) -> list[dict[str, Any]]:
    """The ways to find ranges, every layer int8; those of ONNX Runtime's histograms beside ours."""
    found = [row(case, case.tried(method)) for method in METHODS]
    for name in ("Entropy", "Percentile") if library else ():
        found.append(row(case, _of_library(case, name)) | {"method": f"onnxruntime {name}"})
    return found


def _of_library(case: Case, name: str) -> Tried:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader:
        def __init__(self) -> None:
            self.batches = iter(np.array_split(case.net.calibration, 16))

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            case.path, None, str(Path(folder) / "a.onnx"), calibrate_method=CalibrationMethod[name],
            extra_options={"symmetric": False},
        )  # fmt: skip
        calibrator.collect_data(Reader())
        ranges = calibrator.compute_data()
    none = np.zeros(1, np.int64)
    ends = {name: ranges[name].range_value for name in case.seen if name in ranges}
    seen = {
        name: Seen(float(ends[name][0]), float(ends[name][1]), none) if name in ends else one
        for name, one in case.seen.items()
    }
    return case.tried("minmax", seen=seen)


def sets(case: Case, method: str, *, seconds: float) -> list[dict[str, Any]]:
    """Which layers stay float."""
    tried = [case.tried(method, stay) for stay in float_sets(case.network.layers)]
    float_file = Tried("float", ("all",), case.path.read_bytes(), 0.0, 1.0)
    return [row(case, one) for one in timed([*tried, float_file], case.net.artifact.input_shape, seconds=seconds)]


def corrected(case: Case, method: str) -> dict[str, Any]:
    """The same file with each layer's bias moved by the mean of its error on the calibration images, layer by layer."""
    one = case.tried(method)
    proto = onnx.load_from_string(one.data)
    constants = {t.name: t for t in proto.graph.initializer}
    for node in [n for n in proto.graph.node if n.op_type == "Conv" and len(n.input) > 2]:
        back = next(n for n in proto.graph.node if n.output[0] == node.input[2])
        means = []
        for model in (case.network.proto, proto):  # before the activation, which the integer layer does in passing
            name = next(n for n in model.graph.node if n.name == node.name).output[0]
            seen = onnx.ModelProto()
            seen.CopyFrom(model)
            del seen.graph.output[:]
            seen.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
            with tempfile.TemporaryDirectory() as folder:
                session = opened(seen.SerializeToString(), Path(folder))
                means.append(answers(session, case.net.calibration)[0].mean(axis=(0, 2, 3)))
        scale = numpy_helper.to_array(constants[back.input[1]]).astype(np.float64)
        bias = numpy_helper.to_array(constants[back.input[0]]).astype(np.float64)
        moved = np.clip(bias + np.round((means[0] - means[1]) / scale), -(2**30), 2**30).astype(np.int32)
        constants[back.input[0]].CopyFrom(numpy_helper.from_array(moved, back.input[0]))
    data = proto.SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        found = answers(opened(data, Path(folder)), case.net.holdout)
    after = Tried(method, (), data, error_of(found[0], case.expected[0]), agreement(found, case.expected))
    return {"before": row(case, one), "after": row(case, after)}


def engines(case: Case, method: str) -> dict[str, Any]:
    """How far other engines are from ONNX Runtime, as a share of the output's range, on noise and on real images.

    `wrong`: how far a file is that is not this one: one layer's weights backwards, by layer; the least counts.
    """
    import openvino

    x_BCHW = np.concatenate([np.load(case.net.folder / case.net.artifact.self_test)["input"], case.net.test[:13]])
    found: dict[str, Any] = {}
    for stay in float_sets(case.network.layers)[:3]:
        data = case.tried(method, stay).data
        with tempfile.TemporaryDirectory() as folder:
            expected = answers(opened(data, Path(folder)), x_BCHW)[0]
            path = Path(folder) / "candidate.onnx"
            core: Any = openvino.Core()
            others = {"reference": outputs_of(runtime("reference").open(path), x_BCHW)[0]}
            for precision in ("f32", "bf16"):
                model = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": precision})
                others[f"openvino {precision}"] = model(x_BCHW)[0]
            rows = {name: _share(values, expected) for name, values in others.items()}
            rows["wrong"] = min(
                _share(answers(opened(other, Path(folder)), x_BCHW)[0][:3], expected[:3]) for other in _wrong(data)
            )
        found[str(len(stay))] = rows
    return found


def _share(found: Array, expected: Array) -> float:
    return round(float(np.abs(found - expected).max() / np.ptp(expected)), 4)


def _wrong(data: bytes) -> list[bytes]:
    proto = onnx.load_from_string(data)
    found = []
    for i, tensor in enumerate(proto.graph.initializer):
        if tensor.name.endswith(".weight_quantized"):
            other = onnx.ModelProto()
            other.CopyFrom(proto)
            values = numpy_helper.to_array(tensor)
            turned = values.reshape(-1)[::-1].reshape(values.shape)
            other.graph.initializer[i].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(turned), tensor.name))
            found.append(other.SerializeToString())
    return found


def of_nncf(case: Case) -> dict[str, Any]:
    """The file that NNCF makes of the same images."""
    import nncf

    batches = nncf.Dataset(np.array_split(case.net.calibration, 64), lambda batch: {"input": batch})
    data = nncf.quantize(onnx.load(case.path), batches, subset_size=64).SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        found = answers(opened(data, Path(folder)), case.net.holdout)
    return row(case, Tried("nncf", (), data, error_of(found[0], case.expected[0]), agreement(found, case.expected)))


def bf16(case: Case) -> float:
    """How far OpenVINO in bf16 is from float32, as a share of the output's range."""
    import openvino

    x_BCHW = np.load(case.net.folder / case.net.artifact.self_test)["input"]
    core: Any = openvino.Core()
    model = core.compile_model(str(case.path), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    return _share(model(x_BCHW)[0], answers(runtime("onnxruntime").open(case.path), x_BCHW)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the trained networks are kept")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--nets", nargs="*", default=list(NETS))
    parser.add_argument("--seconds", type=float, default=2.0, help="for how long each candidate is timed")
    parser.add_argument("--library", action="store_true", help="the histograms of ONNX Runtime too, which take long")
    parser.add_argument("--nncf", action="store_true", help="NNCF beside it, which has to be installed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for name in options.nets:
        case = Case(made(name, options.folder, options.data_dir))
        results[name] = found = {"layers": len(case.network.layers), "float_accuracy": 100 * case.right.mean()}
        found["ways"] = ways(case, library=options.library)
        print(name, json.dumps(found), flush=True)
        method = min(found["ways"][: len(METHODS)], key=lambda one: one["error"])["method"]
        for what, measure in (
            ("engines", partial(engines, case, method)),
            ("bf16", partial(bf16, case)),
            ("bias correction", partial(corrected, case, method)),
            ("nncf", partial(of_nncf, case) if options.nncf else dict),
            ("sets", partial(sets, case, method, seconds=options.seconds)),
        ):
            found[what] = measure()
            print(name, what, json.dumps(found[what]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
