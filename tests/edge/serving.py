"""A server as its users start it, in a process of its own, and how to ask it."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.edge.folders import X_BCHW

TOKEN = "a-token-of-the-tests"
"""Of every server here."""


class Served:
    """A running server: its port, its process, and what it has logged."""

    def __init__(self, folder: Path, *arguments: str, token: str | None = TOKEN) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PRUNIT_TOKEN", None)
        if token:
            environment["PRUNIT_TOKEN"] = token
        command = [sys.executable, "-m", "prunit", "serve", str(folder), "--port", "0", *arguments]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.log: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.told("listening")["url"].rpartition(":")[2])
        self.told("ready")

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(json.loads(line) if line.startswith("{") else {"message": line})

    def told(self, message: str, **fields: object) -> dict[str, Any]:
        """The first line of the log that says so, when it has come."""
        return wait_for(
            lambda: next(
                (
                    line
                    for line in tuple(self.log)
                    if line["message"] == message and all(line.get(k) == v for k, v in fields.items())
                ),
                None,
            )
        )

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            more = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request(method, path, body, {**(headers or {}), **more})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """Of /v1/status."""
        return json.loads(self.ask("GET", "/v1/status")[2])

    def infer(self, x_BCHW: Any = X_BCHW, version: str = "") -> tuple[str, Any]:
        """The variant that answered, and its output."""
        body, headers = binary(x_BCHW)
        path = "/v2/models/numbers/" + (f"versions/{version}/" if version else "") + "infer"
        status, told, answer = self.ask("POST", path, body, headers)
        assert status == 200, answer
        return output_of(told, answer)

    def end(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reader.join()
        assert self.process.stderr
        self.process.stderr.close()
        return code


def output_of(headers: Mapping[str, str], answer: bytes) -> tuple[str, Any]:
    """The variant and the output in a binary answer."""
    length = int(headers["inference-header-content-length"])
    told = json.loads(answer[:length])
    shape = told["outputs"][0]["shape"]
    return told["model_version"], np.frombuffer(answer[length:], "<f4").reshape(shape)


def binary(x_BCHW: Any, **parameters: object) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request for images, tensors in binary both ways."""
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x_BCHW.shape)}
    tensor["parameters"] = {"binary_data_size": x_BCHW.nbytes}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True, **parameters}}).encode()
    return head + x_BCHW.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


@contextmanager
def serving(folder: Path, *arguments: str, token: str | None = TOKEN) -> Iterator[Served]:
    """A server that is ended in any case."""
    found = Served(folder, *arguments, token=token)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.end()


def wait_for(get: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What a function gives as soon as that is something."""
    until = time.monotonic() + seconds
    while not (found := get()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)
    return found
