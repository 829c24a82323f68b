"""What answers look like, for the OpenAPI document: one whole example of each."""

from __future__ import annotations

from typing import Any

from millrace.core.bottleneck import ADVICE
from millrace.core.topology import queue_name

_OUTPUT = "s3://predictions/digits-20261120-174500-4f9c"

STATUS: dict[str, Any] = {
    "schema_version": 1,
    "job_id": "digits-20261120-174500-4f9c",
    "parent_job_id": None,
    "labels": {"team": "catalogue"},
    "state": "running",
    "terminal": False,
    "reason": None,
    "health": "ok",
    "model": {"name": "digits", "version": "1", "digest": "sha256:5d1f0c7a"},
    "input": {
        "uri": "s3://photos/2026/",
        "include": ["*.png"],
        "exclude": [],
        "manifest": None,
        "listing_complete": True,
    },
    "output": {
        "uri": _OUTPUT,
        "results_uri": f"{_OUTPUT}/results/",
        "manifest_uri": f"{_OUTPUT}/manifest/",
        "errors_uri": f"{_OUTPUT}/errors.jsonl",
        "summary_uri": f"{_OUTPUT}/summary.json",
        "by_key_uri": None,
    },
    "counts": {
        "total": 1797,
        "pending": 1029,
        "succeeded": 767,
        "failed": 1,
        "skipped": 0,
        "cancelled": 0,
    },
    "progress": 0.4274,
    "rate_images_per_s": 412.5,
    "eta_s": 2.5,
    "errors": {
        "by_code": {"decode/corrupt": 1},
        "samples": [
            {
                "key": "2026/17.png",
                "etag": '"77aa"',
                "error": {"stage": "decode", "code": "corrupt", "message": "not an image"},
            }
        ],
    },
    "workers": {"active": 1, "live": 2},
    "timing_share": {"fetch": 0.21, "decode": 0.12, "infer": 0.6, "write": 0.07},
    "bottleneck": {
        "stage": "predict",
        "advice": ADVICE["predict"],
        "predicting": 0.91,
        "waiting": {"fetch": 0.06, "decode": 0.02, "write": 0.01},
    },
    "notification": None,
    "created_at": "2026-11-20T17:45:00Z",
    "started_at": "2026-11-20T17:45:01Z",
    "completed_at": None,
    "updated_at": "2026-11-20T17:45:03Z",
}

_VERIFICATION: dict[str, Any] = {
    "job_id": STATUS["job_id"],
    "state": "completed_with_errors",
    "total": 1797,
    "succeeded": 1796,
    "failed": 1,
    "by_code": {"decode/corrupt": 1},
    "chunks": 15,
    "missing_chunks": [],
    "corrupt_chunks": [],
    "strays": [],
    "findings": [{"where": "_SUCCESS", "problem": "is missing"}],
    "asked_redis": True,
    "without_outcome": 0,
    "ok": False,
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "Problem": {
        "type": "urn:millrace:problem:job_not_found",
        "title": "Not Found",
        "status": 404,
        "detail": f"there is no job '{STATUS['job_id']}'",
        "instance": f"/v1/jobs/{STATUS['job_id']}",
        "code": "job_not_found",
        "hint": "`millrace jobs` lists them",
        "request_id": "8c1f0a9be2d34715",
    },
    "JobStatus": STATUS,
    "JobList": {"jobs": [STATUS], "next_cursor": "MTc2NDIzNzkwMDAwMDpkaWdpdHM"},
    "PreviewModel": {
        "job_id": STATUS["job_id"],
        "images": 1797,
        "bytes": 1_234_567,
        "chunks": 15,
        "types": {".png": 1797},
        "first_keys": ["2026/0.png", "2026/1.png"],
        "model": {
            "name": "digits",
            "requested_version": None,
            "version": "1",
            "digest": "sha256:5d1f0c7a",
        },
        "output": _OUTPUT,
        "standing": 0,
        "output_problem": None,
        "complete": True,
    },
    "VerificationModel": _VERIFICATION,
    "CheckModel": {
        "job_id": STATUS["job_id"],
        "done": True,
        "images_checked": 1797,
        "started_at": "2026-11-20T17:50:00Z",
        "result": _VERIFICATION,
    },
    "PredictionModel": {
        "model": STATUS["model"],
        "predictions": [{"label": "seven", "index": 7, "score": 0.98}],
        "took_s": 0.21,
    },
    "ModelList": {
        "models": [
            {
                "name": "digits",
                "version": "1",
                "bytes": 1_234_567,
                "claimed": False,
                "task": "classification",
                "input": "8x8 L",
                "labels": 10,
                "digest": "sha256:5d1f0c7a",
                "problem": None,
                "live_workers": 2,
            }
        ]
    },
    "WorkerList": {
        "workers": [
            {
                "worker": "4242@host/9f3c",
                "model": "digits:1",
                "queues": f"{queue_name('digits', '1')} {queue_name('digits', None)}",
                "state": "busy",
                "slots": 2,
                "images": 768,
                "images_per_s": 412.5,
                "started_ms": 1_795_196_700_000,
                "running": {"engine": "tensorflow", "precision": "float32", "batch_size": 32},
                "last_seen": "2026-11-20T17:45:03Z",
                "lost": False,
            }
        ]
    },
    "Health": {"status": "ok"},
    "Readiness": {"status": "ok", "redis": "ok", "storage": "ok"},
}
"""By the name of the schema."""
