"""The HTTP API and the page, as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from fastnst import __version__
from fastnst.errors import FastnstError, ImageError, printable
from fastnst.studio import job_routes, picture_routes
from fastnst.studio.guard import Access, Guard, Keys, TooLarge
from fastnst.studio.inspector import Inspector, Superseded
from fastnst.studio.runner import Conflict, Runner
from fastnst.studio.services import Services, setting_of
from fastnst.studio.store import Store

PAGE = Path(__file__).with_name("page")
HOST, PORT = "127.0.0.1", 7860


def create_app(
    folder: str | PathLike[str],
    *,
    host: str = HOST,
    port: int = PORT,
    token: str | None = None,
    parallel: int = 1,
    max_pixels: int | None = None,
) -> FastAPI:
    """The studio as an ASGI application.

    Args:
        folder: where pictures, runs and results are kept; made if it is missing. One application at a time uses it.
        host, port: where the application is served; requests for other hosts are refused.
        token: needed to enter, as ``?token=...`` in the address of the page; None where only this machine can.
        parallel: number of runs that are computed at a time.
        max_pixels: largest picture that is read; None for the limit of Pillow.

    Example:
        >>> import tempfile
        >>> from fastnst.studio import create_app
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     create_app(folder).title
        'fastnst studio'
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    store = Store(root)
    access = Access(host, port, Keys(root), token)
    inspector, planner = Inspector(max_pixels), Inspector(max_pixels)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.services = Services(store, Runner(store.visitors(), parallel), inspector, planner, access)
        try:
            yield
        finally:
            app.state.services.close()

    app = FastAPI(
        title="fastnst studio",
        version=__version__,
        description="Queue runs of neural style transfer, follow and steer them, and fetch their pictures.",
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.access = access
    app.add_middleware(Guard, access=access)
    app.include_router(picture_routes.router)
    app.include_router(job_routes.router)
    app.mount("/static", StaticFiles(directory=PAGE))
    _add_errors(app)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    return app


def _add_errors(app: FastAPI) -> None:
    """Answer errors with ``{"error": ...}``, one line each."""

    @app.exception_handler(FastnstError)
    async def of_fastnst(request: Request, error: FastnstError) -> JSONResponse:
        status = 409 if isinstance(error, (Conflict, Superseded)) else 422
        text = printable(" ".join(str(error).split()), 1000)
        setting = None if isinstance(error, ImageError) else setting_of(text)
        return JSONResponse({"error": text, "setting": setting}, status)

    @app.exception_handler(OSError)
    async def of_system(request: Request, error: OSError) -> JSONResponse:
        return JSONResponse({"error": f"the studio cannot write: {error.strerror or error}", "setting": None}, 507)

    @app.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "path", "query"))
        return JSONResponse({"error": printable(f"{where}: {first['msg']}", 500), "setting": None}, 422)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(
            {"error": printable(str(error.detail), 500), "setting": None}, error.status_code, error.headers
        )

    @app.exception_handler(TooLarge)
    async def of_size(request: Request, error: TooLarge) -> JSONResponse:
        return JSONResponse({"error": str(error), "setting": None}, 413)
