"""Routes for operators: alive, ready, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from carspotter.serve.schemas import Health, problem_responses
from carspotter.serve.service import Service


def health_routes(service: Service) -> APIRouter:
    """The routes of a worker that need no key."""
    router = APIRouter(tags=["operation"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", response_model=Health, summary="Whether the process lives")
    async def healthz() -> Response:
        """Answers as long as the worker does."""
        return JSONResponse({"status": "alive"})

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/readyz",
        response_model=Health,
        responses=problem_responses(503),
        summary="Whether photos are answered",
    )
    async def readyz() -> Response:
        """503 while the model is loaded, where it cannot be used, and while it shuts down."""
        service.engine.check_ready()
        return JSONResponse({"status": "ready"})

    return router


def metrics_routes(service: Service) -> APIRouter:
    """The route of its metrics."""
    router = APIRouter(tags=["operation"])

    @router.head("/metrics", include_in_schema=False)
    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        summary="Figures for Prometheus",
    )
    def metrics(request: Request) -> Response:
        """Of all workers together."""
        content, media_type = service.metrics.text(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": media_type})

    return router
