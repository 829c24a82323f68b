"""`millrace serve`: the HTTP API, and the dashboard on top of it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command


@command
def serve(
    host: Annotated[
        str | None, typer.Option(envvar="MILLRACE_HTTP_HOST", help="Address to listen on.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(envvar="MILLRACE_HTTP_PORT", min=0, max=65535, help="Port; 0: a free one."),
    ] = None,
    no_auth: Annotated[
        bool,
        typer.Option(
            "--no-auth", envvar="MILLRACE_NO_AUTH", help="Loopback only: let everybody in."
        ),
    ] = False,
    tokens_file: Annotated[
        str | None,
        typer.Option(envvar="MILLRACE_TOKENS_FILE", help="File of tokens: ROLE NAME TOKEN a line."),
    ] = None,
    any_location: Annotated[
        bool,
        typer.Option(
            "--any-location",
            envvar="MILLRACE_ANY_LOCATION",
            help="Let jobs read and write wherever this machine may.",
        ),
    ] = False,
    uploads: Annotated[
        str | None,
        typer.Option(
            envvar="MILLRACE_UPLOADS", help="Storage URL for pictures to predict at once."
        ),
    ] = None,
    models: o.Models = None,
    redis_url: o.RedisUrl = None,
    log_level: o.LogLevel = None,
    log_format: o.LogFormat = None,
) -> None:
    """Serve the dashboard and the HTTP API until told to stop."""
    from millrace.core.errors import RedisUnavailable
    from millrace.core.log import configure
    from millrace.core.redis_client import RedisClient
    from millrace.core.services import Services
    from millrace.core.settings import Settings

    refuse_missing()
    from millrace.producer.http.app import create_app
    from millrace.producer.http.server import serve_app
    from millrace.producer.http.settings import HttpSettings

    settings = Settings.load(
        redis_url=redis_url, models=models, log_level=log_level, log_format=log_format
    )
    http = HttpSettings.load(
        http_host=host,
        http_port=port,
        no_auth=no_auth or None,
        tokens_file=tokens_file,
        any_location=any_location or None,
        uploads=uploads,
    )
    configure(settings.log_level, settings.log_format)
    app = create_app(Services(settings), http)
    try:
        RedisClient(settings, timeout_s=2).ping()
    except RedisUnavailable as error:
        print(f"millrace serve: {error.message}; waiting for it", file=sys.stderr)
    serve_app(app, http, lambda url: print(f"serving on {url}", flush=True))


def refuse_missing() -> None:
    """Raise MissingExtra if what the server needs is not installed."""
    from importlib.util import find_spec

    from millrace.core.errors import MissingExtra

    for library in (
        "fastapi",
        "uvicorn",
        "python_multipart",
        "jinja2",
        "PIL",
        "numpy",
        "prometheus_client",
    ):
        if find_spec(library) is None:
            raise MissingExtra(library, "http")
