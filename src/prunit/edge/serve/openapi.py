"""The description of the server's addresses (OpenAPI 3.1)."""

from typing import Any

from prunit.edge.portfolio import Portfolio
from prunit.version import VERSION

_OBJECT: dict[str, Any] = {"type": "object"}
_OBJECT_OR_NULL: dict[str, Any] = {"type": ["object", "null"]}
_FILE: dict[str, Any] = {"type": "string", "format": "binary"}
_IMAGES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif", "image/tiff", "image/x-portable-anymap")
"""The media types of `fitting.FORMATS`. They inform: what a body holds is seen from its bytes."""
_ERRORS = {
    "400": "the request is malformed",
    "401": "the token is missing or wrong",
    "403": "the server was started without a token",
    "404": "no such model, version or task",
    "405": "another method is needed",
    "406": "the task cannot answer in anything that the header Accept takes",
    "408": "the request came too slowly",
    "413": "the body or the image is too large",
    "415": "the body is of another kind or encoding",
    "421": "the server answers to localhost only",
    "422": "the output is not finite",
    "429": "the queue is full; see Retry-After",
    "431": "the head is too long",
    "500": "the server failed",
    "503": "the server is not ready",
    "504": "the request's time was over",
}


def description(portfolio: Portfolio) -> dict[str, Any]:
    """Every address with what it takes and answers; model and versions by their names here."""
    model, version = _parameter("model", portfolio.name), _parameter("version", *(v.name for v in portfolio.variants))
    infer = {
        "summary": "Open Inference Protocol v2: tensors in, tensors out; without a version the server chooses",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _infer_request()}, "application/octet-stream": {}},
        },
    }
    task = portfolio.task.name
    predict = {"summary": f"An image file in, the answer of the task '{task}' out", "requestBody": _image_body()}
    classify = {"summary": "An image file in, its best labels out", "requestBody": _image_body()}
    change: dict[str, Any] = {"security": [{"token": []}]}
    paths: dict[str, Any] = {
        "/v2/health/live": {"get": _answering({"summary": "The process answers"})},
        "/v2/health/ready": {"get": _answering({"summary": "A variant is open"})},
        "/v2": {"get": _answering({"summary": "Server metadata"})},
        "/v2/repository/index": {"post": _answering({"summary": "The variants as versions"})},
        "/v2/models/{model}": {"parameters": [model], "get": _answering({"summary": "Model metadata"})},
        "/v2/models/{model}/ready": {"parameters": [model], "get": _answering({"summary": "The model answers"})},
        "/v2/models/{model}/config": {"parameters": [model], "get": _answering({"summary": "Model configuration"})},
        "/v2/models/{model}/infer": {"parameters": [model], "post": _answering(infer)},
        "/v2/models/{model}/versions/{version}": {
            "parameters": [model, version],
            "get": _answering({"summary": "Model metadata"}),
        },
        "/v2/models/{model}/versions/{version}/ready": {
            "parameters": [model, version],
            "get": _answering({"summary": "The variant answers"}),
        },
        "/v2/models/{model}/versions/{version}/infer": {"parameters": [model, version], "post": _answering(infer)},
        "/v1/predict": {"post": _predicting(predict, task)},
        **({"/v1/classify": {"post": _answering(classify)}} if task == "classification" else {}),
        "/v1/status": {"get": _answering({"summary": "What the page shows"})},
        "/v1/pin": {
            "post": _answering({**change, "requestBody": _json_body({"variant": {"type": ["string", "null"]}})})
        },
        "/v1/target": {"post": _answering({**change, "requestBody": _json_body({"ms": {"type": "number"}})})},
        "/metrics": {"get": _answering({"summary": "Figures for Prometheus"})},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "prunit serve", "version": VERSION},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _parameter(name: str, *known: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": list(known)}}


def _answering(operation: dict[str, Any]) -> dict[str, Any]:
    responses = {code: {"description": text} for code, text in {"200": "done", **_ERRORS}.items()}
    return {**operation, "responses": responses}


def _predicting(operation: dict[str, Any], task: str) -> dict[str, Any]:
    """With what an answer holds; what tasks share, and what is theirs (`_ANSWERS`)."""
    number, text = {"type": "number"}, {"type": "string"}
    size = {**_OBJECT, "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}}}
    shared = {"photo": size, "variant": text, "queue_ms": number, "compute_ms": number}
    own = _ANSWERS.get(task, {"outputs": _OBJECT, "note": text})
    schema = {**_OBJECT, "properties": {**own, **shared}, "required": [*shared, next(iter(own))]}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if task == "segmentation":
        content["image/png"] = {"schema": _FILE}
    found = _answering(operation)
    found["responses"]["200"] = {"description": "the answer", "content": content}
    return found


def _rows(*fields: str) -> dict[str, Any]:
    """A list of objects with a label and numbers."""
    properties = {"label": {"type": "string"}, **{name: {"type": "number"} for name in fields}}
    return {"type": "array", "items": {**_OBJECT, "properties": properties, "required": list(properties)}}


_ANSWERS: dict[str, dict[str, Any]] = {
    "classification": {"labels": _rows("share")},
    "multilabel": {"labels": _rows("share")},
    "regression": {"values": {**_OBJECT, "additionalProperties": {"type": "number"}}},
    "segmentation": {"mask": {"type": "string", "contentEncoding": "base64"}, "classes": _rows("share", "index")},
    "detection": {"boxes": _rows("score", "x1", "y1", "x2", "y2")},
}
"""What the answer of each task holds, by its name; one of the user's own gives its outputs."""


def _image_body() -> dict[str, Any]:
    form = {**_OBJECT, "properties": {"file": _FILE}, "required": ["file"]}
    content = {kind: {"schema": _FILE} for kind in _IMAGES}
    return {"required": True, "content": {**content, "multipart/form-data": {"schema": form}}}


def _json_body(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {**_OBJECT, "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _infer_request() -> dict[str, Any]:
    tensor = {
        **_OBJECT,
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": ["FP32", "UINT8"]},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": ["array", "null"]},
            "parameters": _OBJECT_OR_NULL,
        },
        "required": ["name", "datatype", "shape"],
    }
    return {
        **_OBJECT,
        "properties": {
            "id": {"type": ["string", "integer", "null"]},
            "parameters": _OBJECT_OR_NULL,
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
            "outputs": {"type": ["array", "null"], "items": _OBJECT},
        },
        "required": ["inputs"],
    }
