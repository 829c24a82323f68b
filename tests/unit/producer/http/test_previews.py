"""Dry runs: never more at once than may be, however many ask in the same moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

from millrace.core.errors import Busy
from millrace.core.services import Services
from millrace.producer.http.previews import AT_ONCE, Previews
from millrace.producer.preview import Preview
from tests.unit.core.support import a_spec


def test_of_ten_in_one_moment_those_beyond_the_limit_are_refused(
    services: Services, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    spec = a_spec(input={"uri": (tmp_path / "in").as_uri()}, output=str(tmp_path / "out"))

    async def ask() -> list[Preview | BaseException]:
        previews = Previews(services)
        asked = (previews.of(lambda: spec, 20) for _ in range(10))
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert (await previews.of(lambda: spec, 20)).images == 0  # the places are free again
        return found

    kinds = [type(one) for one in asyncio.run(ask())]
    assert (kinds.count(Preview), kinds.count(Busy)) == (AT_ONCE, 10 - AT_ONCE)
