"""What the environment says about the HTTP server: `MILLRACE_HTTP_…` and its tokens."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from pydantic import Field, SecretStr

from millrace.core.errors import UsageError
from millrace.core.settings import EnvironmentSettings, Seconds
from millrace.core.sizes import MIB
from millrace.producer.waiting import LONGEST_PREDICTION_S

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class HttpSettings(EnvironmentSettings):
    """Where the server listens, whom it lets in, and how much it takes."""

    http_host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    http_port: int = Field(8000, ge=0, le=65_535, description="port; 0 takes a free one")
    viewer_token: SecretStr | None = Field(
        None, min_length=16, description="bearer token of those who may look"
    )
    operator_token: SecretStr | None = Field(
        None, min_length=16, description="bearer token of those who may also act"
    )
    tokens_file: str | None = Field(None, description="file of more: `ROLE NAME TOKEN` a line")
    no_auth: bool = Field(False, description="let everybody on this machine do everything")
    any_location: bool = Field(False, description="serve without MILLRACE_ALLOWED_LOCATIONS")
    uploads: str | None = Field(
        None, description="storage URL under which pictures to predict at once are kept meanwhile"
    )
    cors_origins: str | None = Field(
        None, description="origins between blanks whose pages may call the API"
    )
    max_body_bytes: int = Field(MIB, ge=1024, description="larger requests are refused")
    max_upload_bytes: int = Field(32 * MIB, ge=1024, description="larger pictures are refused")
    metrics_open: bool = Field(False, description="/metrics wants no token")
    thumbnail_cache: str = Field(
        default_factory=lambda: str(
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            / "millrace"
            / "thumbnails"
        ),
        description="where the dashboard keeps the thumbnails it has made",
    )
    thumbnail_cache_bytes: int = Field(256 * MIB, ge=MIB, description="and how many bytes of them")
    predict_timeout_s: Seconds = Field(
        30, le=LONGEST_PREDICTION_S, description="longest wait for one picture"
    )

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        if self.http_host in LOCAL_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.http_host).is_loopback
        except ValueError:
            return False

    @property
    def origins(self) -> list[str]:
        """The origins of `cors_origins`. Raises UsageError if one is none."""
        found = (self.cors_origins or "").split()
        for origin in found:
            scheme, separator, host = origin.partition("://")
            if scheme not in ("http", "https") or not separator or not host or "/" in host:
                raise UsageError(f"MILLRACE_CORS_ORIGINS: {origin!r} is not SCHEME://HOST[:PORT]")
        return found
