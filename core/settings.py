"""What the environment says, read once into a typed value and passed in.

Every field is the environment variable `MILLRACE_<FIELD>`; command-line options carry the
same names and win over them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from millrace.core.errors import UsageError
from millrace.core.notify.signature import keys_of
from millrace.core.notify.target import host_of
from millrace.core.sizes import MIB

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class EnvironmentSettings(BaseSettings):
    """A group of settings read from `MILLRACE_…`."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment; `overrides` that are not None win over it.

        Raises UsageError naming the variable and what is wrong with it.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            message = first["msg"].removeprefix("Value error, ")
            name = "_".join(str(part) for part in first["loc"]).upper()
            raise UsageError(f"MILLRACE_{name}: {message}" if name else message) from None


class StorageSettings(EnvironmentSettings):
    """How object storage is talked to."""

    storage_request_timeout_s: Seconds = Field(30, description="one request, seconds")
    storage_connect_timeout_s: Seconds = Field(5, description="connecting, seconds")
    storage_max_retries: int = Field(10, ge=0, description="retries of a failed request")
    storage_retry_timeout_s: Seconds = Field(
        60, description="no retry is begun this long after a request's first try, seconds"
    )
    allowed_locations: str | None = Field(
        None, description="storage URLs between blanks; jobs read and write below them alone"
    )
    storage_overwrite: bool = Field(
        False,
        description="for stores without conditional writes: overwrite instead of create-only",
    )


class NotifySettings(EnvironmentSettings):
    """How the ends of jobs are told to their `--notify` URLs."""

    notify_secret: SecretStr | None = Field(
        None, description="signs notifications; several between blanks: each of them does"
    )
    notify_hosts: str | None = Field(
        None,
        description="hosts between blanks: no others are notified; private and http ones may be",
    )
    notify_allow_private: bool = Field(
        False, description="notify private addresses, of this machine too, and by plain http"
    )
    notify_timeout_s: Seconds = Field(10, le=60, description="one try, seconds")
    notify_attempts: int = Field(12, ge=1, le=100, description="tries before it is given up")
    notify_backoff_s: Seconds = Field(
        5, description="before the second try; then four times as long"
    )

    @field_validator("notify_secret")
    @classmethod
    def _are_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            keys_of(value.get_secret_value())
        return value

    @field_validator("notify_hosts")
    @classmethod
    def _are_hosts(cls, value: str | None) -> str | None:
        for host in (value or "").split():
            host_of(host)
        return value

    @property
    def notify_keys(self) -> list[bytes]:
        """Empty without a secret."""
        secret = self.notify_secret
        return [] if secret is None else keys_of(secret.get_secret_value())


TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
"""Of a `rediss://` URL: paths of PEM files. The server's certificate is always verified."""

_EXPECTED = "expected redis://HOST:PORT/DB or rediss://…"


class Settings(StorageSettings, NotifySettings):
    """What producers and workers share."""

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    redis_timeout_s: Seconds = Field(5, ge=1, description="one try of one command, seconds")
    message_key: SecretStr | None = Field(
        None, min_length=16, description="signs queue messages; workers then take no others"
    )
    models: str | None = Field(None, description="the model repository: a directory or URL")
    lease_s: Seconds = Field(30, ge=1, description="a silent worker's chunks are free after this")
    reconcile_s: Seconds = Field(10, description="how often lost chunks are looked for")
    max_attempts: int = Field(5, ge=1, description="claims of a chunk before it is given up")
    window: int = Field(8, ge=1, description="least number of a job's chunks waiting in its queue")
    max_object_bytes: int = Field(256 * MIB, ge=1, description="larger objects are error lines")
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            _ = parts.port  # raises if it is none
        except ValueError:
            raise ValueError(_EXPECTED) from None
        # redis-py and kombu read other paths and queries differently.
        if parts.scheme not in ("redis", "rediss") or not re.fullmatch(r"(/\d*)?", parts.path):
            raise ValueError(_EXPECTED)
        options = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        if not options <= (TLS_OPTIONS if parts.scheme == "rediss" else set()):
            raise ValueError(
                f"{_EXPECTED}; a rediss:// URL may have {', '.join(sorted(TLS_OPTIONS))}"
            )
        return value

    @property
    def message_key_bytes(self) -> bytes | None:
        return None if self.message_key is None else self.message_key.get_secret_value().encode()

    @property
    def redis_tls(self) -> dict[str, str] | None:
        """The TLS options of a `rediss://` URL; None without TLS."""
        parts = urlsplit(self.redis_url.get_secret_value())
        return dict(parse_qsl(parts.query)) if parts.scheme == "rediss" else None

    @property
    def redis_display(self) -> str:
        """The Redis URL without its password, for logs and messages."""
        parts = urlsplit(self.redis_url.get_secret_value())
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        netloc = f"{host}:{parts.port}" if parts.port else host
        return urlunsplit((parts.scheme, netloc, parts.path, "", ""))
