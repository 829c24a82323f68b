"""Signatures: the Standard Webhooks specification's own example, and keys that are none."""

from __future__ import annotations

import pytest

from millrace.core.errors import UsageError
from millrace.core.notify.signature import keys_of, signed
from millrace.core.settings import Settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""As in the libraries' own tests, with what they make of it."""
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_it_is_the_standard_s_own_signature() -> None:
    assert signed(keys_of(SECRET), ID, TIMESTAMP, BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP),
        "webhook-signature": SIGNATURE,
    }


def test_each_of_several_secrets_signs() -> None:
    both = signed(keys_of(f"{SECRET} another-secret-of-24-bytes"), ID, TIMESTAMP, BODY)
    first, second = both["webhook-signature"].split(" ")
    assert first == SIGNATURE
    assert second.startswith("v1,")
    assert second != first


@pytest.mark.parametrize("secret", ["tooshort", "whsec_", "whsec_dG9vc2hvcnQ=", "whsec_no!base64"])
def test_what_is_no_secret_is_refused_and_not_shown(secret: str, no_environment: None) -> None:
    with pytest.raises(UsageError, match="MILLRACE_NOTIFY_SECRET") as refused:
        Settings.load(notify_secret=secret)
    assert (secret.removeprefix("whsec_") or "nothing") not in str(refused.value)


def test_a_secret_is_shown_nowhere(no_environment: None) -> None:
    settings = Settings.load(notify_secret=SECRET)
    assert len(settings.notify_keys) == 1
    assert SECRET not in repr(settings)
    assert Settings.load().notify_keys == []
