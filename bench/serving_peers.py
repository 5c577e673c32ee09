"""Other servers with the same model: `VENV/bin/python bench/serving_peers.py NAME MODEL.onnx PORT`.

Run by bench/serving_front.py with the Python of a virtual environment that has them, and not prunit. Each has one
worker and one thread for the engine, takes up to 16 requests together and waits for none, as prunit does.

`POST /predict` with `{"data": [numbers]}` gives the scores as JSON. LitServe's also takes the raw numbers as a form's
file, which is how it takes what is no JSON; Ray Serve's takes them as a body. MLServer speaks the protocol that prunit
speaks, at its address: `POST /v2/models/peer/infer`.
"""

import importlib
import importlib.util
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

_SHAPE = (3, 32, 32)
_BATCH = 16
_MODEL = "PRUNIT_BENCH_MODEL"


def session(model: Path) -> Any:
    """The model in ONNX Runtime with one thread, as prunit opens it."""
    engine: Any = importlib.import_module("onnxruntime")
    options = engine.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return engine.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def run(opened: Any, x_BCHW: Any) -> Any:
    """The scores of a batch."""
    return opened.run(None, {opened.get_inputs()[0].name: x_BCHW})[0]


def _imported(name: str) -> Any:
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


_LIT: Any = _imported("litserve")


class LitApi(_LIT.LitAPI if _LIT else object):  # pyright: ignore[reportGeneralTypeIssues]
    """What LitServe asks, in a process of its own: so it stands in the module."""

    model = ""

    def setup(self, device: str) -> None:
        """In the worker."""
        self.opened = session(Path(self.model))

    def decode_request(self, request: Any) -> Any:
        """One image."""
        data = request["data"]
        flat = np.frombuffer(data.file.read(), "<f4") if hasattr(data, "file") else np.array(data, np.float32)
        return flat.reshape(_SHAPE)

    def batch(self, inputs: Any) -> Any:
        """Images together."""
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """Their scores."""
        return run(self.opened, x)

    def unbatch(self, output: Any) -> Any:
        """The scores of each."""
        return list(output)

    def encode_response(self, output: Any) -> Any:
        """As JSON."""
        return output.tolist()


if _LIT:
    LitApi.decode_request.__annotations__["request"] = importlib.import_module("fastapi").Request


def litserve(model: Path, port: int) -> None:
    """Serve with LitServe."""
    asked = LitApi(max_batch_size=_BATCH, batch_timeout=0.0)
    asked.model = str(model)
    made = _LIT.LitServer(asked, accelerator="cpu", workers_per_device=1)
    made.run(port=port, host="127.0.0.1", num_api_servers=1, log_level="error", generate_client_file=False)


def bentoml(model: Path, port: int) -> None:
    """Serve with BentoML: its command reads the service from a module, which is this one."""
    os.environ[_MODEL] = str(model)
    here = Path(__file__)
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", f"{here.stem}:BENTO"]
    os.execv(command[0], [*command, "--working-dir", str(here.parent), "--host", "127.0.0.1", "--port", str(port)])


def bento(model: Path) -> Any:
    """The service that BentoML runs."""
    made: Any = importlib.import_module("bentoml")

    class Bento:
        def __init__(self) -> None:
            self.opened = session(model)

        def predict(self, data: Any) -> Any:
            return run(self.opened, np.asarray(data, np.float32).reshape(-1, *_SHAPE))

    Bento.predict.__annotations__.update({"data": np.ndarray, "return": np.ndarray})  # by which it reads requests
    Bento.predict = made.api(batchable=True, max_batch_size=_BATCH, max_latency_ms=1000)(Bento.predict)
    return made.service(workers=1, logging={"access": {"enabled": False}})(Bento)


def ray(model: Path, port: int) -> None:
    """Serve with Ray Serve: one replica, without its dashboard."""
    core, serve = importlib.import_module("ray"), importlib.import_module("ray.serve")
    core.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(ray_deployment(model).bind(), route_prefix="/predict")
    threading.Event().wait()


def ray_deployment(model: Path) -> Any:
    """The model on Ray Serve, and nothing else."""
    serve = importlib.import_module("ray.serve")
    responses: Any = importlib.import_module("starlette.responses")

    class Peer:
        def __init__(self) -> None:
            self.opened = session(model)

        async def together(self, images: list[Any]) -> list[Any]:
            return list(run(self.opened, np.stack(images)))

        async def __call__(self, request: Any) -> Any:
            body = await request.body()
            binary = request.headers["content-type"] == "application/octet-stream"
            flat = np.frombuffer(body, "<f4") if binary else np.array(json.loads(body)["data"], np.float32)
            scores = await self.together(flat.reshape(_SHAPE))
            # What is handed back as it is Ray sends in chunks, of which the clients of the benchmarks know nothing.
            return responses.Response(scores.tobytes()) if binary else responses.JSONResponse(scores.tolist())

    Peer.together = serve.batch(max_batch_size=_BATCH, batch_wait_timeout_s=0)(Peer.together)
    return serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})(Peer)


_ML: Any = _imported("mlserver")


class MlRuntime(_ML.MLModel if _ML else object):  # pyright: ignore[reportGeneralTypeIssues]
    """What MLServer asks."""

    async def load(self) -> bool:
        """Open the model."""
        self.opened = session(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: Any) -> Any:
        """The scores of the images."""
        codecs: Any = importlib.import_module("mlserver.codecs")
        x_BCHW = codecs.NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        told = codecs.NumpyCodec.encode_output("y", run(self.opened, x_BCHW.reshape(-1, *_SHAPE)))
        return importlib.import_module("mlserver.types").InferenceResponse(model_name="peer", outputs=[told])


def mlserver(model: Path, port: int) -> None:
    """Serve with MLServer: a folder of settings, in its own process, without workers beside it."""
    place = Path(tempfile.mkdtemp())
    settings = {"http_port": port, "host": "127.0.0.1", "grpc_port": port + 1, "metrics_port": port + 2}
    settings |= {"parallel_workers": 0, "debug": False}
    one = {"name": "peer", "implementation": f"{Path(__file__).stem}.MlRuntime", "parameters": {"uri": str(model)}}
    one |= {"max_batch_size": _BATCH, "max_batch_time": 1e-4}
    (place / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (place / "model-settings.json").write_text(json.dumps(one), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = str(Path(sys.executable).parent / "mlserver")
    os.execve(command, [command, "start", str(place)], environment)


if _MODEL in os.environ:
    BENTO = bento(Path(os.environ[_MODEL]))

if __name__ == "__main__":
    begin = {"litserve": litserve, "bentoml": bentoml, "ray": ray, "mlserver": mlserver}[sys.argv[1]]
    begin(Path(sys.argv[2]), int(sys.argv[3]))
