"""POST /v1/predict: a photo in, the answer in the form of the task out; and all outputs over the inference protocol."""

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunit.edge.portfolio import Portfolio, TaskRecord
from prunit.edge.serve.predicting import JSON, PNG, chosen, task_of
from prunit.edge.serve.settings import Refusal
from prunit.edge.switching.switch import Switcher
from prunit.errors import PortfolioError
from tests.edge.folders import variant_in
from tests.edge.serving import Served, serving
from tests.edge.tasked import SIZE, tasked_in

Serve = Callable[[str], Served]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A server of a task, started when it is first asked for."""
    found: dict[str, Served] = {}
    with ExitStack() as stack:

        def serve(task: str) -> Served:
            if task not in found:
                folder = tmp_path_factory.mktemp(task)
                tasked_in(folder, task)
                found[task] = stack.enter_context(serving(folder, "--slo-ms", "1000"))
            return found[task]

        yield serve


def photo(*, size: tuple[int, int] = (40, 20), turned: int = 1, kind: str = "PNG") -> bytes:
    """Red in its left half and blue in its right one, as it is stored."""
    image = Image.new("RGB", size, (255, 0, 0))
    image.paste((0, 0, 255), (size[0] // 2, 0, *size))
    exif = Image.Exif()
    exif[0x0112] = turned
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    return file.getvalue()


def predicted(served: Served, body: bytes, **headers: str) -> dict[str, Any]:
    status, _, answer = served.ask("POST", "/v1/predict", body, headers)
    assert status == 200, answer
    found = json.loads(answer)
    assert found["variant"] == "dense"
    assert found["queue_ms"] >= 0
    assert found["compute_ms"] > 0
    return found


def test_a_classifier_gives_labels_as_classify_does(served: Serve) -> None:
    found = predicted(served("classification"), photo(size=(20, 20)))
    assert [row["label"] for row in found["labels"]] == ["red", "blue", "green"]
    assert sum(row["share"] for row in found["labels"]) == pytest.approx(1)
    assert found["photo"] == {"width": 20, "height": 20}
    status, _, body = served("classification").ask("POST", "/v1/classify", photo(size=(20, 20)))
    told = json.loads(body)
    assert (status, told["labels"]) == (200, found["labels"])
    assert sorted(told) == ["compute_ms", "labels", "queue_ms", "variant"]


def test_several_labels_may_be_right(served: Serve) -> None:
    found = predicted(served("multilabel"), photo())
    assert {row["label"] for row in found["labels"]} == {"red", "blue"}
    assert all(row["share"] == pytest.approx(1 / (1 + np.exp(-3)), abs=0.01) for row in found["labels"])


def test_values_are_in_the_users_units(served: Serve) -> None:
    found = predicted(served("regression"), photo())
    assert found["values"] == {"warm": pytest.approx(12.5), "cold": pytest.approx(1.0)}


def test_boxes_are_in_pixels_of_the_photo(served: Serve) -> None:
    """Of 40 x 20 in 8 x 8 there are bars above and below; the boxes are halves of what lies between."""
    found = predicted(served("detection"), photo())
    boxes = {row["label"]: [row[key] for key in ("x1", "y1", "x2", "y2")] for row in found["boxes"]}
    assert boxes == {"rose": pytest.approx([0, 0, 20, 20]), "sea": pytest.approx([20, 0, 40, 20])}
    assert found["photo"] == {"width": 40, "height": 20}
    turned = predicted(served("detection"), photo(turned=6, kind="JPEG"))
    assert turned["photo"] == {"width": 20, "height": 40}
    # The whole height lies in the input, so the boxes, a half of it, are cut at the photo's sides.
    assert max(row["x2"] for row in turned["boxes"]) == pytest.approx(20)
    assert [row[key] for row in turned["boxes"] for key in ("y1", "y2")] == pytest.approx([10, 30, 10, 30])


def test_a_mask_has_the_size_of_the_photo(served: Serve) -> None:
    found = predicted(served("segmentation"), photo(), Accept="*/*")
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["mask"]))))
    assert mask.shape == (20, 40)
    assert (mask[:, :20] == 0).all()
    assert (mask[:, 20:] == 2).all()
    assert sorted((row["label"], row["index"], row["share"]) for row in found["classes"]) == [
        ("blue", 2, 0.5),
        ("red", 0, 0.5),
    ]


def test_a_mask_as_a_png_file(served: Serve) -> None:
    status, headers, body = served("segmentation").ask("POST", "/v1/predict", photo(), {"Accept": "image/png"})
    assert (status, headers["content-type"], headers["vary"]) == (200, "image/png", "accept")
    assert headers["x-prunit-variant"] == "dense"
    assert float(headers["x-prunit-compute-ms"]) > 0
    mask = Image.open(io.BytesIO(body))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "P", (40, 20))
    assert set(np.asarray(mask).ravel().tolist()) == {0, 2}
    upright = served("segmentation").ask(
        "POST", "/v1/predict", photo(turned=6, kind="JPEG"), {"Accept": "image/png, application/json;q=0.5"}
    )
    assert Image.open(io.BytesIO(upright[2])).size == (20, 40)


def test_a_task_of_the_users_own_gives_numbers(served: Serve) -> None:
    found = predicted(served("own"), photo(size=(20, 20)))
    assert list(found["outputs"]) == ["maps", "levels"]
    assert np.shape(found["outputs"]["maps"]) == (3, SIZE, SIZE)
    np.testing.assert_allclose(found["outputs"]["levels"], [0.5, 0, 0.5], atol=0.02)
    assert "note" not in found


def test_what_it_refuses(served: Serve) -> None:
    for task in ("detection", "segmentation", "own"):
        for body, headers, status, complaint in (
            (b"", {}, 400, "the body is empty: send an image file"),
            (b"no image", {}, 415, "no readable image"),
            (photo()[:50], {}, 415, "no readable image"),
            (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "cut short"),
        ):
            found = served(task).ask("POST", "/v1/predict", body, headers)
            assert (found[0], complaint in found[2].decode()) == (status, True), found
        status, _, body = served(task).ask("POST", "/v1/classify", photo())
        assert status == 404
        assert json.loads(body)["error"] == (
            f"these models do not classify, their task is '{task}': POST the image to /v1/predict"
        )
        assert served(task).ask("GET", "/v1/predict")[0] == 405
    status, _, body = served("detection").ask("POST", "/v1/predict", photo(), {"Accept": "image/png"})
    assert (status, "the task 'detection' answers in application/json, and" in body.decode()) == (406, True)
    before = served("own").status()["totals"]["refused"]
    served("own").ask("POST", "/v1/predict", b"")
    assert served("own").status()["totals"]["refused"] == before + 1


def test_the_description_names_what_the_task_answers(served: Serve) -> None:
    for task, field in (("segmentation", "mask"), ("detection", "boxes"), ("own", "outputs")):
        told = json.loads(served(task).ask("GET", "/openapi.json")[2])["paths"]
        content = told["/v1/predict"]["post"]["responses"]["200"]["content"]
        assert field in content["application/json"]["schema"]["properties"]
        assert ("image/png" in content) == (task == "segmentation")
        assert "/v1/classify" not in told
        answer = predicted(served(task), photo())
        assert set(content["application/json"]["schema"]["required"]) <= set(answer)
    assert "/v1/classify" in json.loads(served("classification").ask("GET", "/openapi.json")[2])["paths"]


@pytest.mark.parametrize(
    ("accept", "png"),
    [
        ("", False),
        ("*/*", False),
        ("image/png", True),
        ("IMAGE/PNG; q=0.4", True),
        ("image/*", True),
        ("image/png, application/json", False),
        ("image/png, */*;q=0.8", True),
        ("image/png;q=0.1, application/json", False),
        ("image/png;q=0, */*", False),
        ("image/png;q=no", True),
        ("application/*;q=0.9, image/*;q=0.8", False),
        ("application/json;q=0, */*;q=0.1", True),
        ("text/html, application/xhtml+xml, */*;q=0.8", False),
        ("image/png;q=0.2, image/png;q=0.9, application/json;q=0.5", True),
        ("application/json;charset=utf-8", False),
        ("image/png;q=nan, application/json;q=0.9", True),
    ],
)
def test_what_a_client_would_rather_have(accept: str, png: bool) -> None:
    assert chosen(accept, (JSON, PNG), "segmentation") == (PNG if png else JSON)


@pytest.mark.parametrize(
    ("accept", "offers"),
    [
        *((text, (JSON, PNG)) for text in ("text/html", ",;q=1,;;", "*/*;q=0", "image/png;q=0", "image/jpeg", "png")),
        *((text, (JSON,)) for text in ("image/png", "image/*", "application/json;q=0, image/png", "application/xml")),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_list(accept: str, offers: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match=f"answers in {' or '.join(offers)}, and 'Accept: ") as raised:
        chosen(accept, offers, "x")
    assert raised.value.status == 406


def test_what_a_task_cannot_give_does_not_stand_before_what_it_can(served: Serve) -> None:
    for accept in ("image/png, */*;q=0.1", "image/*, application/json;q=0.2", "image/avif, image/webp, */*"):
        assert predicted(served("detection"), photo(), Accept=accept)["boxes"]
    status, headers, body = served("segmentation").ask("POST", "/v1/predict", photo(), {"Accept": "text/html"})
    assert (status, headers["vary"]) == (406, "accept")
    assert "answers in application/json or image/png, and 'Accept: text/html' takes none" in json.loads(body)["error"]


# ── all outputs over the inference protocol ──


def test_metadata_lists_all_outputs_with_their_shapes(served: Serve) -> None:
    told = json.loads(served("own").ask("GET", "/v2/models/colours")[2])
    assert told["outputs"] == [
        {"name": "maps", "datatype": "FP32", "shape": [-1, 3, SIZE, SIZE]},
        {"name": "levels", "datatype": "FP32", "shape": [-1, 3]},
    ]
    told = json.loads(served("detection").ask("GET", "/v2/models/colours/config")[2])
    assert told["output"] == [{"name": "found", "data_type": "TYPE_FP32", "dims": [2, 6]}]


def test_a_public_client_gets_any_of_the_outputs(served: Serve) -> None:
    code = f"""
import numpy as np, tritonclient.http as triton
client = triton.InferenceServerClient("127.0.0.1:{served("own").port}", network_timeout=20.0)
x = np.random.default_rng(0).standard_normal((2, 3, {SIZE}, {SIZE}), dtype=np.float32)
for binary in (True, False):
    given = triton.InferInput("input", list(x.shape), "FP32")
    given.set_data_from_numpy(x, binary_data=binary)
    for names in ((), ("maps",), ("levels",), ("maps", "levels"), ("levels", "maps")):
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names] or None
        found = client.infer("colours", [given], outputs=wanted)
        told = tuple(each["name"] for each in found.get_response()["outputs"])
        assert told == (names or ("maps", "levels")), told
        if "maps" in told:
            assert np.allclose(found.as_numpy("maps"), x, atol=1e-5)
        if "levels" in told:
            assert np.allclose(found.as_numpy("levels"), x.mean((2, 3)), atol=1e-5)
mixed = [triton.InferRequestedOutput(name, binary_data=name == "maps") for name in ("levels", "maps")]
found = client.infer("colours", [given], outputs=mixed)
assert np.allclose(found.as_numpy("maps"), x, atol=1e-5)
assert np.allclose(found.as_numpy("levels"), x.mean((2, 3)), atol=1e-5)
best = client.infer("colours", [given], outputs=[triton.InferRequestedOutput("levels", class_count=1)])
assert best.as_numpy("levels").shape == (2, 1)
for names, complaint in ((["levels", "levels"], "twice"), (["level"], "the outputs are called 'maps', 'levels'")):
    try:
        client.infer("colours", [given], outputs=[triton.InferRequestedOutput(name) for name in names])
    except triton.InferenceServerException as error:
        assert complaint in str(error), error
    else:
        raise AssertionError
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert child.returncode == 0, child.stderr


def test_in_a_batch_each_request_gets_its_own_part_of_every_output(served: Serve) -> None:
    server = served("own")

    def ask(seed: int) -> int:
        x_BCHW = np.random.default_rng(seed).standard_normal((1 + seed % 3, 3, SIZE, SIZE)).astype(np.float32)
        tensor = {"name": "input", "datatype": "FP32", "shape": list(x_BCHW.shape), "data": x_BCHW.ravel().tolist()}
        status, _, body = server.ask("POST", "/v2/models/colours/infer", json.dumps({"inputs": [tensor]}))
        assert status == 200, body
        told = json.loads(body)
        maps, levels = (np.reshape(each["data"], each["shape"]) for each in told["outputs"])
        np.testing.assert_allclose(maps, x_BCHW, atol=1e-5)
        np.testing.assert_allclose(levels, x_BCHW.mean((2, 3)), atol=1e-5)
        return told["parameters"]["batch"] - len(x_BCHW)

    with ThreadPoolExecutor(16) as pool:
        others = list(pool.map(ask, range(120)))
    assert min(others) >= 0


# ── folders that are not as they should be ──


def test_settings_that_the_task_does_not_take_are_not_served(tmp_path: Path) -> None:
    portfolio = tasked_in(tmp_path, "segmentation")
    bad = portfolio.model_copy(update={"task": TaskRecord(name="segmentation", metric="mIoU", settings={"dise": 1})})
    complaint = "the task 'segmentation' does not take the portfolio's settings {'dise': 1}"
    with pytest.raises(PortfolioError, match=re.escape(complaint)):
        task_of(bad)
    with serving(tmp_path, "--slo-ms", "1000") as served:
        bad.write(tmp_path)
        assert complaint in served.told("the portfolio was not reloaded")["why"]
        assert "mask" in predicted(served, photo())
    assert task_of(bad.model_copy(update={"task": TaskRecord(name="counting", metric="mae")})) is None


def test_a_variant_with_other_outputs_cannot_stand_in(tmp_path: Path) -> None:
    portfolio = tasked_in(tmp_path, "segmentation")
    other = variant_in(tmp_path, "other", 2.0, shape=(3, SIZE, SIZE))
    portfolio.adding(other).write(tmp_path)
    best = max(Portfolio.read(tmp_path).variants, key=lambda variant: variant.metrics.accuracy or 0)
    with Switcher(tmp_path) as switcher:
        assert switcher.failed == {"other": "its outputs are sum; the portfolio's are found"}
        assert switcher.active == best.name == "dense"
