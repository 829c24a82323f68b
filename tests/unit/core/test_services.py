"""The parts put together: cheap to make, and complete."""

from __future__ import annotations

import pytest

from millrace.cli.embedded_server import free_port
from millrace.core.errors import UsageError
from millrace.core.services import Services
from millrace.core.settings import Settings

pytestmark = pytest.mark.usefixtures("no_environment")


def test_making_them_touches_no_network() -> None:
    Services(Settings.load(redis_url=f"redis://127.0.0.1:{free_port()}/0", models="s3://nowhere"))


def test_without_a_repository_a_hint_says_how_to_name_one() -> None:
    with pytest.raises(UsageError, match="no model repository") as caught:
        Services(Settings.load()).repository()
    assert "MILLRACE_MODELS" in (caught.value.hint or "")


def test_the_repository_is_where_the_settings_say() -> None:
    repository = Services(Settings.load(models="memory://models/all")).repository()
    assert repository.location.uri == "memory://models/all"
    assert repository.names() == []
