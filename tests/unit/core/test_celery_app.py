"""The Celery app: every setting that keeps a message a mere hint."""

from __future__ import annotations

import ssl

import pytest

from millrace.core.celery_app import make_app, queue
from millrace.core.settings import Settings


def test_only_json_is_sent_or_taken(settings: Settings) -> None:
    conf = make_app(settings).conf
    assert (conf.task_serializer, list(conf.accept_content)) == ("json", ["json"])


def test_nothing_is_sent_back(settings: Settings) -> None:
    conf = make_app(settings).conf
    assert conf.task_ignore_result
    assert conf.result_backend is None
    assert not conf.worker_send_task_events
    assert not conf.worker_enable_remote_control


def test_messages_are_acknowledged_early_and_not_hoarded(settings: Settings) -> None:
    conf = make_app(settings, slots=3).conf
    assert not conf.task_acks_late
    assert (conf.worker_concurrency, conf.worker_prefetch_multiplier) == (3, 1)
    assert conf.worker_disable_prefetch


def test_a_worker_consumes_the_queues_it_is_given(settings: Settings) -> None:
    app = make_app(settings, queues=["millrace.tiny", "millrace.tiny:1"])
    assert sorted(app.amqp.queues) == ["millrace.tiny", "millrace.tiny:1"]


def test_a_queue_is_one_redis_list_of_its_own_name() -> None:
    made = queue("millrace.tiny:1")
    assert (made.name, made.routing_key, made.exchange.name) == (
        "millrace.tiny:1",
        "millrace.tiny:1",
        "",
    )


def test_an_app_is_not_the_process_wide_one(settings: Settings) -> None:
    from celery import current_app

    app = make_app(settings)
    assert current_app._get_current_object() is not app
    assert app.conf.broker_url == settings.redis_url.get_secret_value()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://host/0", None),
        ("rediss://host/0", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        (
            "rediss://host/0?ssl_ca_certs=/ca.pem",
            {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"},
        ),
    ],
)
def test_with_tls_the_server_is_verified(url: str, options: dict[str, object] | None) -> None:
    with make_app(Settings.load(redis_url=url)).connection_for_write() as connection:
        assert connection.ssl == options
