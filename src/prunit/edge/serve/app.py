"""The addresses of the server, and what each answers."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import resources
from typing import Any, Final, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from prunit.edge.portfolio import Variant
from prunit.edge.runtimes import DEFAULT
from prunit.edge.serve import bodies, direct, images, predicting, protocol
from prunit.edge.serve.batching import Result
from prunit.edge.serve.front import Front
from prunit.edge.serve.gate import Gate
from prunit.edge.serve.logs import tell
from prunit.edge.serve.openapi import description
from prunit.edge.serve.service import Service
from prunit.edge.serve.settings import Refusal, Settings
from prunit.errors import PrunitError

_TICK_S: Final = 0.5
_PAGE: Final = {
    "page.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "photo.js": "text/javascript",
}
_PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_SMALL_BYTES: Final = 10_000


def make(settings: Settings, *, open_first: bool = False) -> Starlette:
    """The application; its service opens when the server starts, and requests get 503 until it has.

    With `open_first` the server has not started before that.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        loop = asyncio.get_running_loop()
        opening = asyncio.create_task(asyncio.to_thread(_open, service, loop, _clock()))
        # A worker that takes the place of another lets the others answer meanwhile.
        if open_first or settings.shared is not None:
            await opening
        yield
        await opening
        await asyncio.to_thread(service.close)

    pages, gate = Pages(service), Gate(service)
    app = Starlette(
        routes=pages.routes(),
        lifespan=lifespan,
        middleware=[Middleware(Front, service=service, gate=gate)],
        exception_handlers={HTTPException: _raise},  # errors pass to Front, which puts all in one form
    )
    app.state.settings, app.state.service, app.state.direct = settings, service, direct.Direct(service, gate)
    return app


def _open(service: Service, loop: asyncio.AbstractEventLoop, clock: int | None) -> None:
    try:
        service.open(loop, clock)
    except PrunitError as error:
        service.error, service.problem = error, "the portfolio cannot be served; the server's log says why"
        service.state = "failed"
        tell("the portfolio cannot be served", {"why": str(error)}, level=logging.ERROR)


def _clock() -> int | None:
    """The clock of what this thread computes, for others to read; None where there is no such thing."""
    return time.pthread_getcpuclockid(threading.get_ident()) if hasattr(time, "pthread_getcpuclockid") else None


def _raise(request: Request, error: Exception) -> Response:
    raise error


class Pages:
    """Every address, by method."""

    def __init__(self, service: Service) -> None:
        self.service, self.settings = service, service.settings
        self._files = {name: resources.files(__package__ or "").joinpath(name).read_bytes() for name in _PAGE}

    def routes(self) -> list[Route]:
        """All addresses."""
        get, post = ["GET"], ["POST"]
        table: list[tuple[str, Callable[..., Any], list[str]]] = [
            ("/v2/models/{model}/infer", self.infer, post),
            ("/v2/models/{model}/versions/{version}/infer", self.infer, post),
            ("/v1/classify", self.classify, post),
            ("/v1/predict", self.predict, post),
            ("/v2/health/live", self.live, get),
            ("/v2/health/ready", self.ready, get),
            ("/v2", self.server, get),
            ("/v2/models/{model}", self.model, get),
            ("/v2/models/{model}/versions/{version}", self.model, get),
            ("/v2/models/{model}/ready", self.model_ready, get),
            ("/v2/models/{model}/versions/{version}/ready", self.model_ready, get),
            ("/v2/models/{model}/config", self.config, get),
            ("/v2/models/{model}/versions/{version}/config", self.config, get),
            ("/v2/repository/index", self.index, post),
            ("/v1/status", self.status, get),
            ("/v1/pin", self.pin, post),
            ("/v1/target", self.target, post),
            ("/metrics", self.metrics, get),
            ("/events", self.events, get),
            ("/openapi.json", self.openapi, get),
            ("/", self.page, get),
            ("/page.css", self.page, get),
            ("/page.js", self.page, get),
            ("/photo.js", self.page, get),
        ]
        return [Route(path, endpoint, methods=methods) for path, endpoint, methods in table]

    # ── inference ──

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/MODEL[/versions/VARIANT]/infer: those requests that do not go the direct way."""
        began = time.perf_counter()
        variant = self._variant(request)
        body = await self._body(request)
        length = _length(request)
        artifact = (variant or self.service.portfolio.variants[0]).artifact
        asked = direct.parsed(self.service, body, length, artifact)
        found = await self.service.infer(asked.x_BCHW, variant.name if variant else None, asked.timeout_ms)
        body, head = direct.written(self.service, asked, found, artifact)
        headers = {"x-prunit-variant": found.variant}
        if head is not None:
            headers[protocol.HEADER] = str(head)
        self.service.count(found, 1000 * (time.perf_counter() - began))
        return Response(body, headers=headers, media_type="application/octet-stream" if head else "application/json")

    async def classify(self, request: Request) -> Response:
        """POST /v1/classify: an image file in, as the body or in a form, its best labels out."""
        self._ready()
        task = self.service.portfolio.task.name
        if task != "classification":
            raise Refusal(404, f"these models do not classify, their task is '{task}': POST the image to /v1/predict")
        began = time.perf_counter()
        found, prediction = await self._predicted(request)
        answer = predicting.told(prediction, self.service.portfolio)  # of a few scores: a thread would take longer
        self.service.count(found, 1000 * (time.perf_counter() - began))
        return JSONResponse({"labels": answer["labels"], **_figures(found)})

    async def predict(self, request: Request) -> Response:
        """POST /v1/predict: an image file in, as the body or in a form, the answer in the form of the task out."""
        self._ready()
        began = time.perf_counter()
        portfolio = self.service.portfolio
        # A header may come several times: that is a list. Before the photo is read: what is refused costs nothing.
        accept = ", ".join(request.headers.getlist("accept"))
        kind = predicting.chosen(accept, predicting.offered(portfolio), portfolio.task.name)
        found, prediction = await self._predicted(request)
        # Masks are as large as the photo.
        answer = await asyncio.to_thread(
            predicting.mask_png if kind == predicting.PNG else predicting.told, prediction, portfolio
        )
        self.service.count(found, 1000 * (time.perf_counter() - began))
        headers = {"x-prunit-variant": found.variant, "vary": "accept"}
        if isinstance(answer, bytes):
            times = {f"x-prunit-{key.replace('_', '-')}": str(value) for key, value in _figures(found).items()}
            return Response(answer, headers={**headers, **times}, media_type=predicting.PNG)
        return JSONResponse({**answer, **_figures(found)}, headers=headers)

    async def _predicted(self, request: Request) -> tuple[Result, predicting.Prediction]:
        """What the active variant makes of the image file in a request."""
        body = bodies.file_in(await self._body(request), request.headers.get("content-type", ""))
        if not body:
            raise Refusal(400, "the body is empty: send an image file, curl -F file=@photo.jpg")
        portfolio = self.service.portfolio
        # Decoding takes long and holds no lock.
        x_BCHW, placing = await asyncio.to_thread(
            images.decode, body, portfolio.preprocessing, self.settings.max_pixels
        )
        found = await self.service.infer(x_BCHW)
        for output in found.outputs:
            protocol.check_finite(output, found.variant)
        return found, predicting.Prediction(found.outputs, portfolio.variants[0].artifact, placing)

    # ── what there is ──

    async def live(self, request: Request) -> Response:
        """GET /v2/health/live."""
        return Response(status_code=200)

    async def ready(self, request: Request) -> Response:
        """GET /v2/health/ready: 503 before the first variant is open, and once the server is told to end."""
        return Response(status_code=200 if self.service.state == "ready" else 503)

    async def server(self, request: Request) -> Response:
        """GET /v2."""
        return JSONResponse(protocol.server_metadata())

    async def model(self, request: Request) -> Response:
        """GET /v2/models/MODEL[/versions/VARIANT]."""
        variant, engine = self._told_of(request)
        return JSONResponse(protocol.model_metadata(self.service.portfolio, variant.artifact, engine))

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/MODEL[/versions/VARIANT]/ready."""
        variant = self._variant(request)
        if variant is not None:
            self.service.check(variant.name)
        return Response(status_code=200 if self.service.state == "ready" else 503)

    async def config(self, request: Request) -> Response:
        """GET /v2/models/MODEL[/versions/VARIANT]/config."""
        variant, engine = self._told_of(request)
        portfolio, most = self.service.portfolio, self.settings.max_batch
        return JSONResponse(protocol.model_config(portfolio, variant.artifact, most, engine))

    def _told_of(self, request: Request) -> tuple[Variant, str]:
        """The variant of which metadata tell, and its engine: of the model those of the one that answers now."""
        service, variant = self.service, self._variant(request)
        if variant is not None:
            return variant, service.switcher.engine(variant)
        first = service.portfolio.variants[0]  # inputs and outputs are the same of all
        if service.state not in ("ready", "draining"):
            return first, DEFAULT
        active = next((v for v in service.portfolio.variants if v.name == service.switcher.active), first)
        return first, service.switcher.engine(active)

    async def index(self, request: Request) -> Response:
        """POST /v2/repository/index: each variant as a version of the one model."""
        self._ready()
        failed = self.service.switcher.failed
        rows = [
            {
                "name": self.service.portfolio.name,
                "version": variant.name,
                "state": "UNAVAILABLE" if variant.name in failed else "READY",
                "reason": "put aside" if variant.name in failed else "",
            }
            for variant in self.service.portfolio.variants
        ]
        return JSONResponse(rows)

    # ── watching and changing ──

    async def status(self, request: Request) -> Response:
        """GET /v1/status: what the page shows, as JSON."""
        self._ready()
        return JSONResponse({**self.service.overview(), "history": list(self.service.board.history)})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        self._ready()
        self.service.figures.gauge(self.service.status())
        body, kind = self.service.figures.page()
        return Response(body, headers={"content-type": kind})

    async def events(self, request: Request) -> Response:
        """GET /events: the status twice a second, and at once when something happens (server-sent events)."""
        self._ready()
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncGenerator[bytes, None]:
        happened = asyncio.Event()
        stop = self.service.listen(happened.set)
        try:
            history = True
            while self.service.state == "ready":
                status = self.service.overview()
                if history:
                    status["history"], history = list(self.service.board.history), False
                yield b"data: " + json.dumps(status).encode() + b"\n\n"
                with suppress(TimeoutError):
                    await asyncio.wait_for(happened.wait(), _TICK_S)
                happened.clear()
        finally:
            stop()

    async def pin(self, request: Request) -> Response:
        """POST /v1/pin {"variant": NAME or null}."""
        told = await self._told(request)
        variant = told.get("variant")
        if "variant" not in told or not (variant is None or isinstance(variant, str)):
            raise Refusal(400, 'the body must be {"variant": "NAME"}, or null to leave the choice to the policy')
        await asyncio.to_thread(self.service.change, pinned=variant, unpin=variant is None)
        tell("pinned", {"variant": variant})
        return JSONResponse({"pinned": variant, "active": self.service.switcher.active})

    async def target(self, request: Request) -> Response:
        """POST /v1/target {"ms": NUMBER}."""
        ms = (await self._told(request)).get("ms")
        if not isinstance(ms, int | float) or isinstance(ms, bool) or not 0.1 <= ms <= 600_000:
            raise Refusal(400, 'the body must be {"ms": NUMBER} from 0.1 to 600000')
        await asyncio.to_thread(self.service.change, target_ms=float(ms))
        tell("target", {"ms": ms})
        return JSONResponse({"target_ms": ms})

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        self._ready()
        return JSONResponse(description(self.service.portfolio))

    async def page(self, request: Request) -> Response:
        """GET /, /page.css, /page.js, /photo.js."""
        name = request.url.path.lstrip("/") or "page.html"
        return Response(self._files[name], media_type=_PAGE[name], headers=_PAGE_HEADERS)

    # ── what they have in common ──

    def _ready(self) -> None:
        if self.service.state not in ("ready", "draining"):
            raise Refusal(503, self.service.problem or "the server is starting", retry_after_s=1)

    def _variant(self, request: Request) -> Variant | None:
        """The version that is asked for, None without one."""
        self._ready()
        name, version = request.path_params["model"], request.path_params.get("version")
        if name != self.service.portfolio.name:
            raise Refusal(404, f"there is no such model; the one here is '{self.service.portfolio.name}'")
        return self.service.check(version) if version else None

    async def _body(self, request: Request) -> bytes:
        """The body before it was compressed."""
        encoding = ",".join(request.headers.getlist("content-encoding"))
        body = await request.body()
        if not encoding or not body:
            return body
        # Unpacking takes long and holds no lock.
        return await asyncio.to_thread(bodies.unpacked, body, encoding, self.settings.max_body_bytes)

    async def _told(self, request: Request) -> dict[str, Any]:
        self._ready()
        body = await self._body(request)
        if len(body) > _SMALL_BYTES:
            raise Refusal(413, "the body is too long")
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise Refusal(400, "the body must be a JSON object")
        return cast("dict[str, Any]", told)


def _figures(found: Result) -> dict[str, Any]:
    """Who answered, and in what time."""
    return {
        "variant": found.variant,
        "queue_ms": round(found.queue_ms, 3),
        "compute_ms": round(found.compute_ms, 3),
    }


def _length(request: Request) -> int | None:
    text = request.headers.get(protocol.HEADER)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise Refusal(400, f"{protocol.HEADER} must be a number of bytes")
    return int(text)
