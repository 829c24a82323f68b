"""A real S3 endpoint on loopback, served by moto, for the demo and the tests."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from millrace.cli.child import Child
from millrace.cli.embedded_server import EmbeddedServer
from millrace.core.errors import MissingExtra, StorageUnavailable

SERVER = "import sys; sys.setswitchinterval(60); from moto.server import main; main()"
"""moto looks whether there is an object yet, and then creates it: no other thread comes between."""


class EmbeddedS3(EmbeddedServer):
    """moto's server in a process of its own; what it holds is gone when it stops.

    Use as a context manager; `environment` points boto3 and millrace at it.
    """

    name = "the S3 endpoint"
    unavailable = StorageUnavailable
    starts_within_s = 30.0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def _start(self, directory: Path) -> Child:
        if find_spec("moto") is None:
            raise MissingExtra("moto", "demo")
        command = [sys.executable, "-c", SERVER, "-H", "127.0.0.1", "-p", str(self.port)]
        return Child(command, log=directory / "log")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/moto-api/data.json", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False
