"""A real S3 endpoint on loopback, served by moto, for the demo and the tests."""

from __future__ import annotations

import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from millrace.cli.child import Child
from millrace.cli.embedded_redis import free_port
from millrace.core.errors import MissingExtra, StorageUnavailable

STARTS_WITHIN_S = 30.0


class EmbeddedS3:
    """moto's server in a process of its own; what it holds is gone when it stops.

    Use as a context manager; `environment` points boto3 and millrace at it.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self._directory = Path()
        self._server: Child | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def __enter__(self) -> EmbeddedS3:
        """Start it and wait until it answers. Raises MissingExtra, StorageUnavailable."""
        if find_spec("moto") is None:
            raise MissingExtra("moto", "demo")
        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self._directory = Path(tempfile.mkdtemp(prefix="millrace-s3-"))
        self._server = Child(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            log=self._directory / "moto.log",
        )
        try:
            problem = self._server.wait_until(self._answers, STARTS_WITHIN_S)
            if problem:
                raise StorageUnavailable(f"the S3 endpoint did not start: {problem}")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/moto-api/data.json", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False
