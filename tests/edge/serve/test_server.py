"""The server in a process of its own: the protocol with a public client, the rest of its addresses, its limits."""

import concurrent.futures
import gzip
import io
import json
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunit.edge.pixels import FORMATS
from tests.edge.folders import SHAPE, X_BCHW, gives, portfolio_in, variant_in
from tests.edge.serving import TOKEN, Served, binary, output_of, serving, wait_for


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    portfolio_in(folder)
    # Images are 4 x 4: the limits can be met without large files.
    with serving(folder, "--policy", "fixed:large", "--max-body", "100KB", "--slo-ms", "1000") as found:
        yield found


def picture(size: tuple[int, int] = (8, 8), colour: tuple[int, int, int] = (255, 0, 0), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def test_a_public_client_works_unchanged(served: Served) -> None:
    """In a process of its own: the client brings an event library that changes others."""
    code = f"""
import numpy as np, tritonclient.http as triton
client = triton.InferenceServerClient("127.0.0.1:{served.port}", network_timeout=20.0)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("numbers")
assert client.is_model_ready("numbers", "small")
assert client.get_server_metadata()["name"] == "prunit"
assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
assert client.get_model_metadata("numbers")["versions"] == ["large", "middle", "small"]
assert client.get_model_config("numbers")["max_batch_size"] == 16
assert [row["version"] for row in client.get_model_repository_index()] == ["large", "middle", "small"]
x = np.random.default_rng(0).standard_normal((2, 3, 4, 4), dtype=np.float32)
for binary, packed in ((True, None), (False, None), (True, "gzip"), (False, "deflate")):
    given = triton.InferInput("x", list(x.shape), "FP32")
    given.set_data_from_numpy(x, binary_data=binary)
    wanted = [triton.InferRequestedOutput("sum", binary_data=binary)]
    for version, factor in (("", 4.0), ("small", 1.0)):
        more = {{"request_compression_algorithm": packed, "response_compression_algorithm": packed}}
        more |= {{"request_id": "7", "timeout": 10**7}}
        found = client.infer("numbers", [given], model_version=version, outputs=wanted, **more)
        assert np.allclose(found.as_numpy("sum"), factor * x, atol=1e-4)
        assert found.get_response()["model_version"] == (version or "large")
        assert found.get_response()["parameters"]["compute_ms"] > 0 and found.get_response()["id"] == "7"
given = triton.InferInput("x", [1, 3, 4, 4], "FP32")
given.set_data_from_numpy(x[:1])
found = client.infer("numbers", [given], outputs=[triton.InferRequestedOutput("sum", class_count=2)])
assert found.as_numpy("sum").shape == (1, 2) and b":" in found.as_numpy("sum")[0, 0]
asked = [client.async_infer("numbers", [given]) for _ in range(5)]
assert all(each.get_result().as_numpy("sum").shape == (1, 3, 4, 4) for each in asked)
try:
    client.infer("numbers", [given], model_version="smal")
except triton.InferenceServerException as error:
    assert "no such version" in str(error)
else:
    raise AssertionError
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert child.returncode == 0, child.stderr


def test_a_portfolio_named_after_a_path_is_served_under_a_safe_name(tmp_path: Path) -> None:
    """By the public client, which asks for the names that the index tells, and for the old ones too."""
    portfolio = portfolio_in(tmp_path)
    names = {"large": "large", "middle": "macs=1/2", "small": "the small one"}
    variants = tuple(v.model_copy(update={"name": names[v.name]}) for v in portfolio.variants)
    own = {"name": "/home/ann/net.py:make-photos/", "model": "/home/ann/net.py:make", "data": "photos/"}
    portfolio.model_copy(update={**own, "variants": variants}).write(tmp_path)
    with serving(tmp_path, "--slo-ms", "1000") as served:
        code = f"""
import numpy as np, tritonclient.http as triton
client = triton.InferenceServerClient("127.0.0.1:{served.port}", network_timeout=20.0)
rows = client.get_model_repository_index()
assert [(row["name"], row["version"]) for row in rows] == [
    ("net-make-photos", "large"), ("net-make-photos", "macs-1-2"), ("net-make-photos", "the-small-one")
]
x = np.ones((1, 3, 4, 4), np.float32)
given = triton.InferInput("x", list(x.shape), "FP32")
given.set_data_from_numpy(x)
for model in ("net-make-photos", "/home/ann/net.py:make-photos/"):
    for version, factor in (("", None), ("macs-1-2", 2), ("macs=1/2", 2), ("the-small-one", 1)):
        assert client.is_model_ready(model, version)
        assert client.get_model_metadata(model, version)["name"] == "net-make-photos"
        found = client.infer(model, [given], model_version=version)
        assert factor is None or np.allclose(found.as_numpy("sum"), factor * x, atol=1e-4)
        assert found.get_response()["model_name"] == "net-make-photos"
"""
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
        assert child.returncode == 0, child.stderr
        assert served.ask("GET", "/v2/models/net%2Dmake-photos/versions/%74he-small-one")[0] == 200
        assert served.ask("GET", "/v2/models/net-make-photos/versions/the%20small%20one")[0] == 200
        old = "%2Fhome%2Fann%2Fnet.py%3Amake-photos%2F/versions/macs%3D1%2F2/ready"
        assert served.ask("GET", f"/v2/models/{old}")[0] == 200
        assert served.ask("GET", "/v2/models/net.py:make-photos")[0] == 404
        status, _, told = served.ask("POST", "/v1/pin", '{"variant": "macs-1-2"}', token=TOKEN)
        assert (status, json.loads(told)["pinned"]) == (200, "macs-1-2")
        for path in ("/v1/status", "/openapi.json", "/metrics", "/v2/models/net-make-photos"):
            assert b"/ann" not in served.ask("GET", path)[2], path
        # Another manifest in the same folder.
        portfolio.model_copy(update={"name": "a b"}).write(tmp_path)
        wait_for(lambda: served.ask("GET", "/v2/models/a-b/versions/small")[0] == 200)


def test_images_get_labels(served: Served) -> None:
    for kind in FORMATS:
        mime = {"PPM": "image/x-portable-pixmap"}.get(kind, f"image/{kind.lower()}")
        status, _, body = served.ask("POST", "/v1/classify", picture(kind=kind), {"Content-Type": mime})
        assert status == 200, body
        found = json.loads(body)
        assert found["variant"] == "large"
        # The scores of red are equal, 16 of 48, and far above those of green and blue.
        assert found["labels"][0]["share"] == pytest.approx(1 / 16, abs=1e-3)
        assert found["labels"][0]["share"] >= found["labels"][1]["share"]
        assert found["labels"][0]["label"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("field", ["file", "image"])
def test_a_file_sent_by_curl_as_a_form(served: Served, tmp_path: Path, field: str) -> None:
    pytest.importorskip("python_multipart", reason="python-multipart reads forms")
    (tmp_path / "my photo.webp").write_bytes(picture(kind="WEBP"))
    url = f"http://127.0.0.1:{served.port}/v1/classify"
    for arguments in (["-F", f"{field}=@my photo.webp"], ["--data-binary", "@my photo.webp"]):
        child = subprocess.run(["curl", "-sS", *arguments, url], cwd=tmp_path, capture_output=True, check=True)
        assert json.loads(child.stdout)["labels"][0]["share"] == pytest.approx(1 / 16, abs=1e-3)


def test_a_compressed_image_gets_the_same_labels(served: Served) -> None:
    plain = json.loads(served.ask("POST", "/v1/classify", picture())[2])["labels"]
    for encoding, body in (("gzip", gzip.compress(picture())), ("deflate", zlib.compress(picture()))):
        status, _, found = served.ask("POST", "/v1/classify", body, {"Content-Encoding": encoding})
        assert (status, json.loads(found)["labels"]) == (200, plain)


def test_the_preprocessing_of_the_manifest_is_used(served: Served) -> None:
    """Red is 1, 0, 0; minus 0.5 by 0.2 is 2.5, -2.5, -2.5; times 4. The first 16 scores are those of red."""
    labels = json.loads(served.ask("POST", "/v1/classify", picture())[2])["labels"]
    assert [row["label"] for row in labels] == ["a", "b", "2", "3", "4"]
    assert sum(row["share"] for row in labels) == pytest.approx(5 / 16, abs=1e-4)


def test_what_is_no_image_is_refused(served: Served) -> None:
    bomb = picture((5001, 4001))
    assert len(bomb) < 100_000
    for body, status, complaint in (
        (b"", 400, "empty"),
        (b"GIF89a", 415, "JPEG, PNG, WEBP, BMP, GIF, TIFF and PPM files are read"),
        (picture(kind="TGA"), 415, "no readable image"),
        (picture()[:40], 415, "no readable image"),
        (bomb, 413, "pixels"),
    ):
        found = served.ask("POST", "/v1/classify", body)
        assert (found[0], complaint in found[2].decode()) == (status, True), found


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/numbers/versions/none", 404),
        ("GET", "/v2/models/numbers/infer", 405),
        ("GET", "/nothing", 404),
        ("GET", "/page.html", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("POST", "/v2/models/numbers/infer", 400),
        ("DELETE", "/v1/status", 405),
    ],
)
def test_errors_are_one_line_of_json(served: Served, method: str, path: str, status: int) -> None:
    found, headers, body = served.ask(method, path)
    assert found == status
    assert headers["content-type"] == "application/json"
    assert set(json.loads(body)) == {"error"}
    assert b"Traceback" not in body


def test_a_request_has_an_id_and_no_page_elsewhere_may_read_it(served: Served) -> None:
    _, headers, _ = served.ask("GET", "/v2", headers={"X-Request-Id": "my-7", "Origin": "http://elsewhere"})
    assert headers["x-request-id"] == "my-7"
    assert not [name for name in headers if name.startswith("access-control")]
    assert headers["x-content-type-options"] == "nosniff"
    assert served.ask("GET", "/v2", headers={"X-Request-Id": "a\tb"})[1]["x-request-id"] != "a\tb"
    # A name that was pointed at this machine: a page elsewhere cannot ask by it.
    assert served.ask("GET", "/v2", headers={"Host": "elsewhere.example"})[0] == 421
    assert served.ask("GET", "/v2", headers={"Host": f"localhost:{served.port}"})[0] == 200


def test_changes_need_the_token(served: Served) -> None:
    body = json.dumps({"variant": "middle"})
    assert served.ask("POST", "/v1/pin", body)[0] == 401
    assert served.ask("POST", "/v1/pin", body, token="wrong")[0] == 401
    status, _, answer = served.ask("POST", "/v1/pin", body, token=TOKEN)
    assert (status, json.loads(answer)) == (200, {"pinned": "middle", "active": "middle"})
    name, output = served.infer()
    assert (name, gives(output, X_BCHW, "middle")) == ("middle", True)
    assert served.ask("POST", "/v1/target", '{"ms": 500}', token=TOKEN)[0] == 200
    assert served.status()["target_ms"] == 500
    for path, bad in (("pin", '{"variant": "x"}'), ("pin", "{}"), ("pin", "[]"), ("pin", '{"variant": 5}')):
        assert served.ask("POST", f"/v1/{path}", bad, token=TOKEN)[0] in (400, 404)
    for bad in ('{"ms": 0}', '{"ms": "5"}', '{"ms": true}', "{", '{"ms": 1e9}'):
        assert served.ask("POST", "/v1/target", bad, token=TOKEN)[0] == 400
    assert served.ask("POST", "/v1/pin", '{"variant": null}', token=TOKEN)[0] == 200
    wait_for(lambda: served.status()["active"] == "large")


def test_limits(served: Served) -> None:
    body, headers = binary(np.zeros((17, *SHAPE), np.float32))
    assert served.ask("POST", "/v2/models/numbers/infer", body, headers)[0] == 400
    assert served.ask("POST", "/v2/models/numbers/infer", b" " * 100_001)[0] == 413
    many = {f"X-Header-{i}": "1" for i in range(70)}
    assert served.ask("GET", "/v2", headers=many)[0] == 431
    assert served.ask("GET", "/v2", headers={"X-Long": "a" * 300_000})[0] == 431
    compressed = {**headers, "Content-Encoding": "br"}
    status, told, answer = served.ask("POST", "/v2/models/numbers/infer", body[:500], compressed)
    assert (status, told["accept-encoding"]) == (415, "gzip, deflate")
    assert b"'br' is not read" in answer
    # More than a body may have, in a few hundred bytes.
    for path in ("/v2/models/numbers/infer", "/v1/classify"):
        packed = gzip.compress(b" " * 100_001)
        assert served.ask("POST", path, packed, {"Content-Encoding": "gzip"})[0] == 413
    with socket.create_connection(("127.0.0.1", served.port)) as link:
        # Without a length: as many pieces as it takes.
        link.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        link.sendall((b"4e20\r\n" + b"x" * 20_000 + b"\r\n") * 6)
        assert b" 413 " in link.recv(1000)


def test_a_request_whose_time_is_over_is_told(served: Served) -> None:
    body, headers = binary(X_BCHW, timeout=1)
    status, _, answer = served.ask("POST", "/v2/models/numbers/infer", body, headers)
    assert status == 504, answer
    assert served.status()["totals"]["expired"] >= 1


def test_many_at_once_each_get_their_own(served: Served) -> None:
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((1 + i % 3, *SHAPE), dtype=np.float32) for i in range(200)]
    names = [("large", "middle", "small")[i % 3] for i in range(200)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(served.infer, images, names))
    for x_BCHW, name, (variant, output) in zip(images, names, found, strict=True):
        assert (variant, gives(output, x_BCHW, name)) == (name, True)


def test_figures_for_prometheus(served: Served) -> None:
    served.infer()
    status, headers, body = served.ask("GET", "/metrics")
    text = body.decode()
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
    for name in (
        'prunit_requests_total{code="200",variant="large"}',
        'prunit_request_seconds_bucket{le="0.001",variant="large"}',
        "prunit_queue_length 0.0",
        "prunit_memory_bytes",
        'prunit_active_variant{variant="large"}',
    ):
        assert name in text, text


def test_events_come_as_they_happen(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as link:
        link.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stream = link.makefile("rb")
        first = next(json.loads(line[6:]) for line in stream if line.startswith(b"data: "))
        assert first["history"] is not None
        served.ask("POST", "/v1/pin", '{"variant": "small"}', token=TOKEN)
        found = next(
            status
            for line in stream
            if line.startswith(b"data: ") and (status := json.loads(line[6:]))["active"] == "small"
        )
        assert found["events"][-1]["why"] == "pinned"
    served.ask("POST", "/v1/pin", '{"variant": null}', token=TOKEN)


def test_it_loads_no_torch_and_says_what_it_lacks(tmp_path: Path) -> None:
    portfolio_in(tmp_path)
    code = "import sys; sys.modules[{!r}] = None; from prunit.cli import main; main()"
    child = subprocess.run(
        [sys.executable, "-c", code.format("httptools"), "serve", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 2
    assert "pip install 'prunit[serve]'" in child.stderr
    code = "import sys; sys.modules['torch'] = None; import prunit.edge.serve.server"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_token_nothing_can_be_changed_and_with_it_nothing_read(tmp_path: Path) -> None:
    portfolio_in(tmp_path)
    with serving(tmp_path, token=None) as open_one:
        assert open_one.ask("POST", "/v1/pin", '{"variant": "small"}', token="anything")[0] == 403
        assert open_one.infer()[0] == "large"
    with serving(tmp_path, "--token-for-all", "--access-log") as closed:
        assert closed.ask("GET", "/v1/status")[0] == 401
        body, headers = binary(X_BCHW)
        assert closed.ask("POST", "/v2/models/numbers/infer", body, headers)[0] == 401
        status, told, answer = closed.ask("POST", "/v2/models/numbers/infer", body, headers, token=TOKEN)
        assert (status, output_of(told, answer)[0]) == (200, "large")
        assert closed.ask("GET", "/v2/health/ready")[0] == 200
        line = closed.told("request", status=200, path="/v2/models/numbers/infer")
        assert line["request"] == told["x-request-id"]


def test_a_new_variant_is_used_without_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "portfolio"
    portfolio = portfolio_in(folder, {"small": 1.0})
    with serving(folder, "--slo-ms", "1000") as served:  # which a busy machine keeps to, too: nothing is held back
        assert served.infer()[0] == "small"
        portfolio.adding(variant_in(folder, "large", 4.0)).write(folder)
        served.told("reloaded")
        wait_for(lambda: served.status()["active"] == "large")
        assert gives(served.infer()[1], X_BCHW, "large")
