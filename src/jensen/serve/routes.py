"""The addresses of the server, described for OpenAPI; a route reads a request, talks to the queue, and answers."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, TypeVar

import torch
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from jensen.data.grid import image_bytes
from jensen.data.pictures import pictures_of
from jensen.errors import InputError
from jensen.provenance import jensen_version
from jensen.run.labels import sample_labels
from jensen.serve.answers import CSV, JSON, NPY, PNG, Answer, chosen
from jensen.serve.asks import AskExample, AskFilm
from jensen.serve.bodies import parsed_json
from jensen.serve.guard import Guard, unexpected
from jensen.serve.limits import Limits
from jensen.serve.metrics import CONTENT_TYPE, Metrics
from jensen.serve.problems import Problem, problem_of
from jensen.serve.questions import VERBS, Content, Conversation, Verb
from jensen.serve.queue import Job, Queue, full, late
from jensen.serve.served import Served
from jensen.serve.shown import examples
from jensen.serve.work import Film, Row

LOG = logging.getLogger("jensen.serve")
SMALL = 1 << 15  # bytes of a body, and numbers of an answer, that are handled between two events
Found = TypeVar("Found")


class Gone(Exception):  # noqa: N818
    """The client has gone."""


class Service:
    """The runs, the queue and the limits behind the routes."""

    def __init__(self, runs: Sequence[Served], limits: Limits, metrics: Metrics) -> None:
        self.runs = {served.name: served for served in runs}
        self.limits, self.metrics = limits, metrics
        self.queue = Queue(limits, metrics.batch)
        self.numbers = 0
        """The numbers that requests and answers hold."""
        metrics.watch(lambda: len(self.queue))
        for served in runs:
            for network in served.run.model.networks:
                network.register_forward_pre_hook(lambda *_: self.queue.check())

    def named(self, name: str | None) -> Served:
        """The run with this name; the first if None. Raises `Problem` 404."""
        if name is None:
            return next(iter(self.runs.values()))
        if name not in self.runs:
            raise Problem(404, f"run {name!r}", f"one of {', '.join(self.runs)}", "name one of them")
        return self.runs[name]

    def answering(self, name: str | None, verb: str) -> Served:
        """The run with this name, which answers `verb`. Raises `Problem`."""
        served = self.named(name)
        if verb not in served.verbs:
            raise Problem(422, f"/{verb} of {served.name}", f"one of {', '.join(served.verbs)}", "ask another run")
        return served

    async def converse(self, request: Request, talk: Conversation, served: Served, small: bool, held: "Held") -> Answer:
        """Ask the queue whatever the conversation asks, and return its answer."""
        deadline, found = time.monotonic() + self.limits.deadline, None
        try:
            while True:
                step = partial(_step, talk, found)
                asked = step() if small else await run_in_threadpool(step)
                if isinstance(asked, Answer):
                    return asked
                work, rows = asked
                held.add(work.numbers(rows))
                found = await wait(request, self.queue.submit(work, rows, deadline))
                small = small and sum(row.size for row in rows) < SMALL
        except InputError as error:
            raise problem_of(error, served.secrets()) from None


@dataclass
class Held:
    """The numbers of one request."""

    service: Service
    numbers: int = 0

    def add(self, count: int) -> None:
        """Count further numbers. Raises `Problem` 429 if all requests together hold too many."""
        service = self.service
        if service.numbers and service.numbers + count > service.limits.numbers_held:
            raise full(len(service.queue), 1)
        self.numbers, service.numbers = self.numbers + count, service.numbers + count

    def release(self) -> None:
        """Count them no more."""
        self.service.numbers, self.numbers = self.service.numbers - self.numbers, 0


class Sent(Response):
    """An answer, whose numbers count until it is sent."""

    def __init__(self, content: bytes, kind: str, held: Held) -> None:
        super().__init__(content, media_type=kind)
        self._held = held

    async def __call__(self, *asgi: Any) -> None:
        try:
            await super().__call__(*asgi)
        finally:
            self._held.release()


def _step(talk: Conversation, found: Any) -> Any:
    """What the conversation asks next, or its answer."""
    try:
        return talk.send(found)
    except StopIteration as end:
        return end.value


async def wait(request: Request, job: Job) -> list[Any]:
    """The results of a job. Raises `Problem` 504 at its deadline, and `Gone` if the client has gone."""
    future = asyncio.wrap_future(job.future)
    gone = asyncio.ensure_future(_gone(request))
    try:
        left = max(0.0, job.deadline - time.monotonic())
        await asyncio.wait((future, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise Gone if gone.done() else late()
    finally:
        job.abandoned = True
        future.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# ---------------------------------------------------------------------------------------------- reading


async def read(request: Request, verb: Verb, limits: Limits) -> tuple[Any, int]:
    """The settings of a request, with its examples if the body is no JSON, and the bytes of the body."""
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind not in (JSON, NPY, PNG, CSV):
        raise Problem(415, f"a body of type {kind}", f"{JSON}, {NPY}, {PNG} or {CSV}", "convert it")
    body = await _body(request)
    if kind == JSON:
        value = await run_in_threadpool(parsed_json, body, limits) if len(body) > SMALL else parsed_json(body, limits)
        if not isinstance(value, dict):
            raise Problem(400, f"JSON of type {type(value).__name__}", "one JSON object", "send an object")
        return validated(verb.ask, value), len(body)
    if verb.content is None:
        raise Problem(415, f"a body of type {kind}", JSON, "send JSON")
    values: dict[str, Any] = {name: value for name, value in request.query_params.items() if name != "grid"}
    return validated(verb.ask, {**values, verb.content: Content(kind, body)}), len(body)


async def _body(request: Request) -> bytes:
    parts = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


Settings = TypeVar("Settings", bound=BaseModel)


def validated(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """The settings of a request. Raises `Problem` 422 that names the first wrong field.

    pydantic makes an error for each of a million unknown fields, so they are refused before.
    """
    for name in values:
        if name not in kind.model_fields:
            raise invalid({"type": "extra_forbidden", "loc": (name,)}, list(kind.model_fields))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise invalid(error.errors()[0], list(kind.model_fields)) from None


def invalid(error: Any, known: Sequence[str]) -> Problem:
    """The problem of a field that pydantic refuses."""
    place = ".".join(str(one)[:50] for one in error["loc"][:4])
    if error["type"] == "extra_forbidden":
        return Problem(422, f"the field {place}", f"fields among {', '.join(known)}", "leave it out")
    if error["type"] == "missing":
        return Problem(422, f"no field {place}", f"the field {place}", "add it")
    return Problem(422, f"the field {place} = {str(error.get('input'))[:100]}", error["msg"], "correct it")


# ---------------------------------------------------------------------------------------------- the application


def application(service: Service, *, token: bytes | None = None, loopback: bool = True) -> Guard:
    """The ASGI application."""
    app = FastAPI(
        title="jensen", version=jensen_version(), docs_url=None, redoc_url=None, openapi_url="/openapi.json",
        redirect_slashes=False,
        description="Samples, scores and imputations of trained runs. docs/serving.md describes every field.",
    )  # fmt: skip
    _add_questions(app, service)
    _add_verbs(app, service)
    _add_examples(app, service)
    _add_film(app, service)
    _add_page(app)
    _add_errors(app)
    return Guard(app, service.limits, service.metrics, token, loopback)


def _add_questions(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Whether the server accepts requests")
    async def healthz(request: Request) -> dict[str, Any]:
        status = "draining" if service.queue.draining else "ok"
        return {"status": status, "runs": list(service.runs) if request.scope["authorised"] else []}

    @app.get("/runs", summary="The runs: data, shapes, labels, columns, verbs, histogram of the test scores")
    async def runs() -> Response:
        found = [served.description() for served in service.runs.values()]
        return Response(json.dumps(found, allow_nan=False), media_type=JSON)

    @app.get("/metrics", summary="Counts and times for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _add_verbs(app: FastAPI, service: Service) -> None:
    for name, verb in VERBS.items():
        about, described = (verb.ask.__doc__ or "").strip(), _described(verb, [*service.runs])
        app.post(f"/{name}", summary=about, openapi_extra=described, name=name)(_route(service, name, verb))


def _route(service: Service, name: str, verb: Verb) -> Callable[..., Any]:
    async def route(request: Request) -> Response:
        held = Held(service)
        try:
            return await answered(request, held)
        except Gone:
            held.release()
            return Response(status_code=499)  # nobody reads it
        except BaseException:
            held.release()
            raise

    async def answered(request: Request, held: Held) -> Response:
        ask, size = await read(request, verb, service.limits)
        served = service.answering(ask.run, name)
        talk = verb.talk(served, ask, service.limits)
        answer = await service.converse(request, talk, served, size < SMALL, held)
        kind = chosen(request.headers.get("accept", "*/*"), answer.forms())
        make = partial(answer.content, kind, request.query_params.get("grid", "true").lower() not in ("false", "0"))
        heavy = size >= SMALL or kind in (PNG, CSV) or (answer.array is not None and answer.array.size > SMALL)
        return Sent(await run_in_threadpool(make) if heavy else make(), kind, held)

    return route


def _described(verb: Verb, runs: Sequence[str]) -> dict[str, Any]:
    """The body of a verb for OpenAPI."""
    schema = verb.ask.model_json_schema()
    schema["properties"]["run"]["anyOf"] = [{"enum": runs}, {"type": "null"}]
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if verb.content:
        binary = {"schema": {"type": "string", "format": "binary"}}
        content |= {NPY: binary, PNG: binary, CSV: {"schema": {"type": "string"}}}
    return {"requestBody": {"required": True, "content": content}}


def _add_examples(app: FastAPI, service: Service) -> None:
    @app.get("/examples", summary=(AskExample.__doc__ or "").strip())
    async def shown(request: Request) -> Response:
        ask = validated(AskExample, dict(request.query_params))
        answer = examples(service.named(ask.run), ask)
        kind = chosen(request.headers.get("accept", "*/*"), answer.forms())
        return Response(await run_in_threadpool(answer.content, kind, grid=True), media_type=kind)


def _add_film(app: FastAPI, service: Service) -> None:
    @app.get("/film", summary=(AskFilm.__doc__ or "").strip(), response_class=StreamingResponse)
    async def film(request: Request) -> StreamingResponse:
        ask = validated(AskFilm, dict(request.query_params))
        served = service.answering(ask.run, "film")
        try:
            labels = sample_labels(served.run, ask.label or "in-turn", 1, seed=ask.seed, first=0)
        except InputError as error:
            raise problem_of(error, served.secrets()) from None
        row = Row(ask.seed, 0, label=None if labels is None else int(labels[0]))
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(event: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        work = Film(served, partial(_show, served, put), ask.frames)
        job = service.queue.submit(work, [row], time.monotonic() + service.limits.deadline)
        return StreamingResponse(_events(job, events), media_type="text/event-stream")


def _show(
    served: Served, put: Callable[[Any], Any], step: int, of: int, state: torch.Tensor, estimate: torch.Tensor
) -> None:
    pictures = [pictures_of(x.nan_to_num(), served.run.spec)[0] for x in (state, estimate)]
    first, second = (base64.b64encode(image_bytes(one)).decode() for one in pictures)
    put({"step": step, "of": of, "png": first, "estimate": second})


async def _events(job: Job, events: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[str]:
    """The frames of a film as server-sent events; a client that goes stops the film."""
    future = asyncio.wrap_future(job.future)
    try:
        while True:
            event = asyncio.ensure_future(events.get())
            left = max(0.0, job.deadline - time.monotonic())
            await asyncio.wait((future, event), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if event.done():
                yield f"data: {json.dumps(event.result())}\n\n"
                continue
            event.cancel()
            if future.done() and not events.empty():
                continue
            error = future.exception() if future.done() else late()
            if error is None:
                yield "event: done\ndata: {}\n\n"
            else:
                problem = error if isinstance(error, Problem) else unexpected()
                yield f"event: error\ndata: {json.dumps(problem.body())}\n\n"
            return
    finally:
        job.abandoned = True
        future.cancel()


def _add_page(app: FastAPI) -> None:
    """The page, if the package has one: files of the package only."""
    folder = resources.files("jensen.serve") / "page"
    kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    if not folder.is_dir():
        return
    files = {one.name: one.read_bytes() for one in folder.iterdir() if f".{one.name.rpartition('.')[2]}" in kinds}

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(files["index.html"], media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in files:
            raise Problem(404, f"/page/{name}", "a file of the page", "open /")
        return Response(files[name], media_type=kinds[f".{name.rpartition('.')[2]}"])


def _add_errors(app: FastAPI) -> None:
    def respond(problem: Problem) -> Response:
        return Response(json.dumps(problem.body()), problem.status, dict(problem.headers), JSON)

    @app.exception_handler(Problem)
    async def on_problem(_: Request, problem: Problem) -> Response:
        return respond(problem)

    @app.exception_handler(Exception)
    async def on_fault(_: Request, fault: Exception) -> Response:
        return respond(unexpected())  # the guard logs it

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        return respond(invalid(error.errors()[0], []))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        known = ", ".join(sorted({route.path for route in app.routes if hasattr(route, "path")}))
        path = request.scope["path"][:100]
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            found = Problem(405, f"{request.method} {path}", allowed, "use that method", dict(error.headers or {}))
        else:
            found = Problem(error.status_code, path, f"one of {known}", "correct the address")
        return respond(found)
