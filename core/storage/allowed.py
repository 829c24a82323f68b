"""The places that jobs may name, where whoever runs this process has said so."""

from __future__ import annotations

from millrace.core.errors import BadLocation, LocationNotAllowed, UsageError
from millrace.core.storage.location import Location

VARIABLE = "MILLRACE_ALLOWED_LOCATIONS"


class AllowedLocations:
    """Storage URLs between blanks: jobs lie at or below them. None at all: anywhere.

    Raises UsageError if one of them is no place.
    """

    def __init__(self, urls: str | None) -> None:
        try:
            self.places: list[Location] = [Location.parse(url) for url in (urls or "").split()]
        except BadLocation as error:
            raise UsageError(f"{VARIABLE}: {error.message}", hint=error.hint) from None

    def check(self, *uris: str) -> None:
        """Raise LocationNotAllowed if one of a job's places lies elsewhere."""
        for uri in uris if self.places else ():
            place = Location.parse(uri)
            if not any(allowed.contains(place) for allowed in self.places):
                raise LocationNotAllowed(f"{place} is under none of {VARIABLE}")
