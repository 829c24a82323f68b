"""The Celery app, configured the way Celery on Redis has to be to behave.

Celery carries hints; claims and leases hold the truth. So: JSON only, no results, no
remote control or events, no prefetching beyond the free chunk slots.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from celery import Celery
from kombu import Exchange, Queue

from millrace.core.settings import Settings

DIRECT = Exchange("", type="direct")


def queue(name: str) -> Queue:
    """A queue addressed by name through the nameless exchange: one Redis list, no bindings."""
    return Queue(name, DIRECT, routing_key=name)


def make_app(
    settings: Settings,
    *,
    transport: str | None = None,
    queues: Sequence[str] = (),
    pool: str = "threads",
    slots: int = 1,
) -> Celery:
    """An app on the settings' Redis that knows no task yet.

    `transport` is the kombu transport to consume through (workers bring their own), `queues`
    what a worker of this app consumes, `slots` how many chunks it holds at once.
    """
    app = Celery("millrace", set_as_current=False)
    tls = settings.redis_tls
    app.conf.update(
        broker_url=settings.redis_url.get_secret_value().partition("?")[0],
        # By itself kombu would not verify the server's certificate.
        broker_use_ssl=None if tls is None else {"ssl_cert_reqs": ssl.CERT_REQUIRED, **tls},
        broker_transport=transport,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # for ever; a supervisor decides otherwise
        broker_pool_limit=4,
        broker_transport_options={
            "priority_steps": [0],  # one list per queue: a job's share is its window
            "socket_timeout": 2 * settings.redis_timeout_s,  # BRPOP waits a second by itself
            "socket_connect_timeout": settings.redis_timeout_s,
            "socket_keepalive": True,
            "health_check_interval": 15,
            "client_name": "millrace",
        },
        task_default_exchange="",
        task_queues=[queue(name) for name in queues],
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_acks_late=False,
        task_publish_retry_policy={
            "max_retries": 3,
            "interval_start": 0.2,
            "interval_step": 0.5,
            "interval_max": 2,
        },
        worker_pool=pool,
        worker_concurrency=slots,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_soft_shutdown_timeout=0,
    )
    return app
