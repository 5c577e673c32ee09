"""Requests and answers of the Open Inference Protocol as bytes."""

import json
from typing import Any

import numpy as np
import pytest

from prunit.edge.portfolio import Preprocessing
from prunit.edge.serve.protocol import Wanted, answer, parse
from prunit.edge.serve.settings import Refusal
from tests.edge.folders import SHAPE, X_BCHW, variant_in

PREPROCESSING = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, size=SHAPE[1:])


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return variant_in(tmp_path_factory.mktemp("protocol"), "large", 4.0).artifact


def tensor(**more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, *SHAPE], "data": X_BCHW.ravel().tolist(), **more}


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def test_a_tensor_is_read_flat_nested_and_binary(artifact: Any) -> None:
    nested = parse(body(tensor(data=X_BCHW.tolist())), None, artifact, PREPROCESSING, 4)
    flat = parse(body(tensor(), id="a", parameters={"timeout": 5000}), None, artifact, PREPROCESSING, 4)
    np.testing.assert_array_equal(flat.x_BCHW, X_BCHW)
    np.testing.assert_array_equal(nested.x_BCHW, X_BCHW)
    assert (flat.id, flat.timeout_ms, flat.outputs) == ("a", 5.0, (Wanted(0),))
    sent = tensor(parameters={"binary_data_size": X_BCHW.nbytes})
    del sent["data"]
    head = body(sent, parameters={"binary_data_output": True})
    found = parse(head + X_BCHW.tobytes(), len(head), artifact, PREPROCESSING, 4)
    np.testing.assert_array_equal(found.x_BCHW, X_BCHW)
    assert found.outputs == (Wanted(0, binary=True),)


def test_null_is_as_if_it_were_not_there(artifact: Any) -> None:
    """Clients that write every field of a record write null for what is not set."""
    unset = dict.fromkeys(("timeout", "priority", "binary_data_output", "sequence_id"))
    own = dict.fromkeys(("binary_data_size", "shared_memory_region", "content_type"))
    for more in (
        {"id": None, "parameters": None, "outputs": None},
        {"id": None, "parameters": unset, "outputs": [{"name": "sum", "parameters": None, "datatype": None}]},
        {"outputs": [{"name": "sum", "parameters": {"classification": None, "binary_data": None, **own}}]},
    ):
        for parameters in (None, own, {}):
            found = parse(body(tensor(parameters=parameters), **more), None, artifact, PREPROCESSING, 4)
            np.testing.assert_array_equal(found.x_BCHW, X_BCHW)
            assert (found.id, found.timeout_ms, found.outputs) == ("", None, (Wanted(0),))
    head = body(tensor(data=None, parameters={"binary_data_size": X_BCHW.nbytes}), id=None)
    found = parse(head + X_BCHW.tobytes(), len(head), artifact, PREPROCESSING, 4)
    np.testing.assert_array_equal(found.x_BCHW, X_BCHW)
    own_wins = {"parameters": {"binary_data_output": True}, "outputs": [{"name": "sum", "parameters": {"x": None}}]}
    assert parse(body(tensor(), **own_wins), None, artifact, PREPROCESSING, 4).outputs[0].binary


@pytest.mark.parametrize(("sent", "text"), [(n, str(n)) for n in (7, 0, -3, 2**63, 2**127, "7")])
def test_an_id_may_be_a_number_and_comes_back_as_text(artifact: Any, sent: Any, text: str) -> None:
    assert parse(body(tensor(), id=sent), None, artifact, PREPROCESSING, 4).id == text
    assert answered(artifact, np.zeros((1, 3), np.float32), id=sent)[0]["id"] == text


def test_images_of_bytes_are_normalised(artifact: Any) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(1, *SHAPE)
    sent = tensor(datatype="UINT8", data=pixels.ravel().tolist())
    found = parse(body(sent), None, artifact, PREPROCESSING, 4)
    np.testing.assert_allclose(found.x_BCHW, (pixels / 255 - 0.5) / 0.25, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ([], "must hold one tensor"),
        ([tensor(), tensor()], "must hold one tensor"),
        ([tensor(name="y")], "is called 'x'"),
        ([tensor(datatype="FP64")], "must be FP32"),
        ([tensor(shape=[1, 3, 4])], "shape must be"),
        ([tensor(shape=[1, 3, 4, "4"])], "whole number"),
        ([tensor(shape=[1, 3, 4, True])], "whole number"),
        ([tensor(shape=[-1, *SHAPE])], "whole number"),
        ([tensor(shape=[0, *SHAPE], data=[])], "0 images"),
        ([tensor(shape=[10**18, *SHAPE])], "images in one request"),
        ([tensor(data=[1.0])], "must be 48 numbers"),
        ([tensor(data=["1"] * 48)], "must be 48 numbers"),
        ([tensor(data=[[1], [1, 2]])], "rows differ"),
        ([tensor(data=[1e39] * 48)], "not finite"),
        ([tensor(data=[10**400] * 48)], "must be 48 numbers"),
        ([tensor(data="x")], "list of numbers"),
        ([tensor(data=[[0.0] * 24] * 2)], "'shape' says"),
        ([tensor(datatype="UINT8", data=[256] * 48)], "from 0 to 255"),
        ([tensor(parameters={"binary_data_size": 4})], "both data and"),
        ([tensor(parameters=5)], "must be a JSON object"),
        ([7], "must be a JSON object"),
    ],
)
def test_what_is_malformed_is_refused(artifact: Any, inputs: list[Any], complaint: str) -> None:
    with pytest.raises(Refusal, match=complaint) as raised:
        parse(json.dumps({"inputs": inputs}).encode(), None, artifact, PREPROCESSING, 4)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("sent", "length", "complaint"),
    [
        (b"", None, "no JSON"),
        (b"[]", None, "must be a JSON object"),
        (b"\xff\xfe", None, "no JSON"),
        (b"{", 5, "the body has 1 bytes"),
        (b"[" * 100_000, None, "no JSON"),
        (body(tensor(data=[float("nan")] * 48)), None, "no number in JSON"),
        (body(tensor()) + b"1234", len(body(tensor())), "4 bytes follow"),
        (body(tensor(), id=5.5), None, "'id' must be"),
        (body(tensor(), id=True), None, "'id' must be"),
        (body(tensor(), id=10**300), None, "'id' must be"),
        (body(tensor(), id=["a"]), None, "'id' must be"),
        (b'{"inputs": null}', None, "must hold one tensor"),
        (body(tensor(data=None)), None, "list of numbers"),
        (body(tensor(name=None)), None, "is called 'x'"),
        (body(tensor(), outputs=[None]), None, "must be a JSON object"),
        (body(tensor(), parameters={"timeout": -1}), None, "timeout"),
        (body(tensor(), parameters=[]), None, "must be a JSON object"),
        (body(tensor(), outputs=[{"name": "z"}]), None, "the output is called"),
        (body(tensor(), outputs=[{"name": "sum"}] * 2), None, "may name each tensor once"),
        (body(tensor(), outputs=[{"name": "sum", "parameters": {"shared_memory_region": "a"}}]), None, "shared memory"),
        (body(tensor(), outputs=[{"name": "sum", "parameters": {"classification": "3"}}]), None, "classification"),
    ],
)
def test_bodies_that_are_refused(artifact: Any, sent: bytes, length: int | None, complaint: str) -> None:
    with pytest.raises(Refusal, match=complaint):
        parse(sent, length, artifact, PREPROCESSING, 4)


def answered(artifact: Any, output: Any, **asked: Any) -> tuple[dict[str, Any], bytes]:
    request = parse(body(tensor(), **asked), None, artifact, PREPROCESSING, 4)
    sent, head = answer(
        *(request, [output], artifact, ("cat", "dog", "owl")), model="m", variant="v", figures={"queue_ms": 1.0}
    )
    return json.loads(sent[:head]), sent[head:] if head is not None else b""


def test_answers_are_texts_or_bytes(artifact: Any) -> None:
    output = np.array([[0.25, 3.0, -1.0]], np.float32)
    told, rest = answered(artifact, output, id="7")
    assert told["outputs"] == [{"name": "sum", "datatype": "FP32", "shape": [1, 3], "data": [0.25, 3.0, -1.0]}]
    assert (told["id"], told["model_version"], told["parameters"], rest) == ("7", "v", {"queue_ms": 1.0}, b"")
    told, rest = answered(artifact, output, parameters={"binary_data_output": True})
    assert told["outputs"][0]["parameters"] == {"binary_data_size": 12}
    np.testing.assert_array_equal(np.frombuffer(rest, "<f4"), output[0])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([np.nan, 3.0, np.nan], "2 of the 3 outputs of 'v' for this input are NaN: the model divides by zero"),
        ([1.0, -np.inf, 2.0], "1 of the 3 outputs of 'v' for this input are infinity"),
        ([np.nan, np.inf, 2.0], "2 of the 3 outputs of 'v' for this input are NaN and infinity"),
    ],
)
def test_an_output_that_is_not_finite_is_said_as_what_it_is(artifact: Any, values: list[float], told: str) -> None:
    output = np.array([values], np.float32)
    for asked in ({}, {"outputs": [{"name": "sum", "parameters": {"classification": 2}}]}):
        with pytest.raises(Refusal, match=told) as caught:
            answered(artifact, output, **asked)
        assert caught.value.status == 422
    _, rest = answered(artifact, output, parameters={"binary_data_output": True})
    np.testing.assert_array_equal(np.frombuffer(rest, "<f4"), output[0])


def test_the_best_classes_are_texts(artifact: Any) -> None:
    output = np.array([[0.25, 3.0, -1.0]], np.float32)
    wanted = {"name": "sum", "parameters": {"classification": 2}}
    told, _ = answered(artifact, output, outputs=[wanted])
    assert told["outputs"][0] | {"data": None} == {"name": "sum", "datatype": "BYTES", "shape": [1, 2], "data": None}
    assert told["outputs"][0]["data"] == ["3.000000:1:dog", "0.250000:0:cat"]
    wanted["parameters"]["binary_data"] = True
    _, rest = answered(artifact, output, outputs=[wanted])
    assert rest[:4] == (14).to_bytes(4, "little")
    assert rest[4:18] == b"3.000000:1:dog"


def test_an_output_that_json_cannot_hold_is_refused(artifact: Any) -> None:
    with pytest.raises(Refusal) as raised:
        answered(artifact, np.array([[np.inf]], np.float32))
    assert raised.value.status == 422
