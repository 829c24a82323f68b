"""Signed as the Standard Webhooks specification says, so that its libraries verify it.

The header `webhook-signature` holds `v1,` and the base64 of HMAC-SHA256 over
`<webhook-id>.<webhook-timestamp>.<body>`, once per secret, between blanks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"
SHORTEST = 16


def keys_of(secrets: str) -> list[bytes]:
    """The keys of secrets between blanks: `whsec_` and base64, or any text of 16 characters or
    more. Several, for the time in which receivers change to the first. Raises ValueError."""
    keys = []
    for secret in secrets.split():
        if secret.startswith(PREFIX):
            try:
                key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
            except binascii.Error:
                raise ValueError(f"what follows {PREFIX} is not base64") from None
        else:
            key = secret.encode()
        if len(key) < SHORTEST:
            raise ValueError(f"a secret is shorter than {SHORTEST} bytes")
        keys.append(key)
    return keys


def signed(keys: list[bytes], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers; `timestamp` in seconds."""
    content = b"%s.%d.%s" % (event_id.encode(), timestamp, body)
    digests = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            f"v1,{base64.b64encode(digest).decode()}" for digest in digests
        ),
    }
