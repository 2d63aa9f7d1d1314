"""A simulated engine behind SGLang's HTTP surface: what a launcher can start where it would start a GPU's.

In: a profile and one rank's argv. Out: a process that serves until it ends, and its exit code. The only
importer of starlette and uvicorn; life.py decides when to start and stop, service.py, shapes.py and
server_info.py what to answer.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from autotune.simulator import server_info
from autotune.simulator.life import Engine, HttpFront
from autotune.simulator.live import StateBodyError, rank_limit, set_internal_state
from autotune.simulator.pace import Pacemaker
from autotune.simulator.profile import Profile
from autotune.simulator.service import AnswerError, Asked, Service, bad_body
from autotune.simulator.startup import Ready

_FLUSHED = (
    "Cache flushed.\nPlease check backend logs for more details. (When there are running or waiting "
    "requests, the operation will not be performed.)\n"
)
_EITHER = ["GET", "POST"]


def serve(profile: Profile, argv: Sequence[str], *, time_scale: float = 1.0, start_scale: float = 1.0) -> int:
    """Run the engine of one rank until it ends, and return its exit code.

    `time_scale` above 1 makes the model faster than real time, `start_scale` multiplies the times of
    start-up and death. An engine that SGLang would end by a signal kills its own process and does not return.
    """
    engine = Engine(profile, _Fronts(), time_scale=time_scale, start_scale=start_scale)
    code = asyncio.run(engine.run(argv))
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


class _Server(uvicorn.Server):
    """A server that leaves signals to the engine."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class _Front:
    """An application on one socket."""

    def __init__(self, routes: Sequence[Route], health: "_Health") -> None:
        app = Starlette(routes=routes, exception_handlers={HTTPException: _as_detail})
        self._server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        self._health = health

    async def serve(self, listener: socket.socket) -> None:
        await self._server.serve(sockets=[listener])

    def open(self) -> None:
        self._health.status = HTTPStatus.OK

    def stop(self) -> None:
        self._health.status = HTTPStatus.SERVICE_UNAVAILABLE
        self._server.should_exit = True


class _Fronts:
    """Makes the servers that life.py asks for."""

    def leader(
        self, profile: Profile, ready: Ready, pacemaker: Pacemaker, say: Callable[[str], None]
    ) -> HttpFront:
        health = _Health(HTTPStatus.SERVICE_UNAVAILABLE)
        routes = [
            *health.routes("/health", "/health_generate", "/ready", "/ping"),
            *_Generation(Service(profile, ready.flags, pacemaker)).routes(),
            *_Control(profile, ready, pacemaker, say).routes(),
        ]
        return _Front(routes, health)

    def follower(self) -> HttpFront:
        health = _Health(HTTPStatus.OK)
        return _Front(health.routes("/health", "/health_generate", "/ping", "/metrics"), health)


class _Health:
    """Whether the rank is ready: 503 while it starts and while it drains."""

    def __init__(self, status: HTTPStatus) -> None:
        self.status = status

    def routes(self, *paths: str) -> list[Route]:
        return [Route(path, self._answer) for path in paths]

    async def _answer(self, request: Request) -> Response:  # noqa: ARG002 - starlette's signature
        return Response(status_code=self.status)


class _Generation:
    """The endpoints that generate."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        paths = {"generate": "/generate", "completions": "/v1/completions", "chat": "/v1/chat/completions"}
        post = ["POST"]
        return [
            *(Route(path, self._endpoint(wire), methods=post) for wire, path in paths.items()),
            Route("/abort_request", self._abort, methods=post),
        ]

    def _endpoint(self, wire: str) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                asked = self._service.understand(wire, await _body(request))
                if asked.streams:
                    return _EventStream(self._stream(asked))
                return JSONResponse(await self._service.answer(asked))
            except AnswerError as error:
                return JSONResponse(error.body, status_code=error.status)

        return answer

    async def _stream(self, asked: Asked) -> AsyncGenerator[str]:
        async with aclosing(self._service.events(asked)) as events:
            async for event in events:
                yield f"data: {json.dumps(event, separators=(',', ':'))}\n\n"
        yield "data: [DONE]\n\n"

    async def _abort(self, request: Request) -> Response:
        body = await _body(request)
        asked: Mapping[str, Any] = body if isinstance(body, dict) else {}
        if asked.get("abort_all") or asked.get("rid"):
            self._service.abort("" if asked.get("abort_all") else str(asked["rid"]))
        return Response()


class _EventStream(StreamingResponse):
    """Server-sent events that end, with their source, as soon as the client is gone.

    Starlette's own way waits for a moment in which the stream waits; a model that runs many times faster
    than real time may never give it one.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(events)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        sending = asyncio.create_task(self.stream_response(send))
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._events.aclose()
        if not sending.cancelled():
            sending.result()


class _Control:
    """The endpoints about the engine itself."""

    def __init__(
        self, profile: Profile, ready: Ready, pacemaker: Pacemaker, say: Callable[[str], None]
    ) -> None:
        self._profile = profile
        self._ready = ready
        self._pacemaker = pacemaker
        self._scheduler = pacemaker.scheduler
        self._say = say

    def routes(self) -> list[Route]:
        return [
            *(Route(path, self._server_info) for path in ("/server_info", "/get_server_info")),
            *(Route(path, self._model_info) for path in ("/model_info", "/get_model_info")),
            Route("/v1/models", self._models),
            Route("/v1/loads", self._loads),
            Route("/metrics", self._metrics),
            Route("/flush_cache", self._flush_cache, methods=_EITHER),
            Route("/set_internal_state", self._set_internal_state, methods=["POST"]),
        ]

    async def _server_info(self, request: Request) -> Response:  # noqa: ARG002 - starlette's signature
        limit = rank_limit(self._scheduler, self._ready)
        page = server_info.server_info(self._profile, self._ready, startup_s={}, rank_limit=limit)
        return JSONResponse(page)

    async def _model_info(self, request: Request) -> Response:  # noqa: ARG002 - starlette's signature
        return JSONResponse(server_info.model_info(self._ready.flags))

    async def _models(self, request: Request) -> Response:  # noqa: ARG002 - starlette's signature
        return JSONResponse(server_info.models(self._ready.flags, int(_label_time())))

    async def _loads(self, request: Request) -> Response:  # noqa: ARG002 - starlette's signature
        return JSONResponse(server_info.loads(self._scheduler, self._ready, _label_time()))

    async def _metrics(self, request: Request) -> Response:  # noqa: ARG002 - starlette's signature
        if not dict(self._ready.flags.given).get("enable-metrics"):
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return PlainTextResponse(server_info.metrics(self._scheduler, self._ready.flags))

    async def _flush_cache(self, request: Request) -> Response:  # noqa: ARG002 - starlette's signature
        if self._pacemaker.is_busy or not self._scheduler.flush_cache():
            return PlainTextResponse("Flush cache failed.\n", status_code=HTTPStatus.BAD_REQUEST)
        self._say("Cache flushed successfully!")
        return PlainTextResponse(_FLUSHED)

    async def _set_internal_state(self, request: Request) -> Response:
        try:
            return JSONResponse(set_internal_state(self._scheduler, self._ready, await _body(request)))
        except StateBodyError as error:
            refused = bad_body("set_internal_state", str(error))
            return JSONResponse(refused.body, status_code=refused.status)


async def _body(request: Request) -> object:
    try:
        body: object = await request.json()
    except ValueError:
        return None
    return body


async def _as_detail(request: Request, error: Exception) -> Response:  # noqa: ARG001 - starlette's signature
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for nothing else
    return JSONResponse({"detail": error.detail}, status_code=error.status_code)


def _label_time() -> float:
    return datetime.now(UTC).timestamp()
