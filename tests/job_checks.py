"""What must hold of any job that ended, checked from object storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores
from millrace.producer import open_job
from tests.support import millrace_json


def assert_exact(
    job: str,
    uri: str,
    env: Mapping[str, str],
    bundle: Path,
    pixels: Mapping[str, npt.NDArray[np.uint8]],
) -> None:
    """Every manifest row has exactly one outcome line, the status says what `verify` finds, and
    the predictions are the model's own."""
    settings = Settings.load(redis_url=env["MILLRACE_REDIS_URL"])
    status = open_job(job, settings).status().model_dump(mode="json")
    outcomes = check_job(f"{uri}/{job}", status)
    verified = millrace_json("verify", job, env=env)
    assert verified["ok"]
    assert verified["asked_redis"]
    check_predictions(bundle, outcomes, pixels)


def check_job(uri: str, status: dict[str, Any]) -> list[dict[str, Any]]:
    """Every manifest row has exactly one outcome line, in order; counts equal the status.

    Returns the outcomes.
    """
    stores = Stores(Settings.load())
    location = Location.parse(uri)
    directory = JobDirectory(stores, location)
    spec = directory.read_spec()
    rows = _manifest(stores, location, directory.parts())
    outcomes = _outcomes(directory, spec, len(rows))
    assert [outcome["key"] for outcome in outcomes] == [row["key"] for row in rows]
    assert [outcome["etag"] for outcome in outcomes] == [row["etag"] for row in rows]
    counts = status["counts"]
    failed = [outcome for outcome in outcomes if "error" in outcome]
    assert all(("predictions" in o) != ("error" in o) for o in outcomes)
    assert counts["total"] == len(rows)
    assert counts["failed"] == len(failed)
    assert counts["succeeded"] == len(rows) - len(failed)
    assert counts["pending"] == counts["cancelled"] == counts["skipped"] == 0
    by_code = Counter(f"{o['error']['stage']}/{o['error']['code']}" for o in failed)
    assert status["errors"]["by_code"] == dict(by_code)
    _check_published(stores, location, status, failed)
    return outcomes


AT_ONCE = 64
"""Images that are predicted together: a slow model is also a large one, and fills the memory with
a whole job's."""


def check_predictions(
    bundle: Path,
    outcomes: list[dict[str, Any]],
    pixels: Mapping[str, npt.NDArray[np.uint8]],
) -> None:
    """Each prediction is what the SavedModel itself answers, called without any of millrace.

    `pixels` are of each key, [height, width] grey; the model takes them as 0 to 1.
    """
    import tensorflow as tf

    predicted = [outcome for outcome in outcomes if "predictions" in outcome]
    call: Any = tf.saved_model.load(str(bundle)).signatures["serving_default"]
    (name,) = call.structured_input_signature[1]
    batch = np.stack([pixels[outcome["key"]] for outcome in predicted])
    given = batch[..., np.newaxis].astype(np.float32) / 255
    expected = list[Any]()
    for at in range(0, len(given), AT_ONCE):
        (scores,) = call(**{name: tf.constant(given[at : at + AT_ONCE])}).values()
        expected.extend(scores.numpy())
    for outcome, scores in zip(predicted, expected, strict=True):
        answered = {answer["index"]: answer["score"] for answer in outcome["predictions"]}
        found = [answered[index] for index in range(len(scores))]
        assert np.allclose(found, scores, atol=1e-4), outcome["key"]


def _manifest(stores: Stores, location: Location, parts: list[int]) -> list[dict[str, Any]]:
    store, folder = stores.open(location), f"{location.prefix}manifest/"
    names = [f"{folder}part-{part:05d}.jsonl" for part in parts]
    rows = [orjson.loads(line) for name in names for line in store.get(name).splitlines()]
    whole = orjson.loads(store.get(f"{folder}complete.json"))
    assert whole == {"parts": len(parts), "images": len(rows)}
    return rows


def _outcomes(directory: JobDirectory, spec: JobSpec, rows: int) -> list[dict[str, Any]]:
    committed = sorted(directory.committed_chunks(spec.plan))
    full, rest = divmod(rows, spec.plan.rows_per_part)
    expected = full * spec.plan.chunks_per_part + spec.plan.chunks_in(rest)
    assert committed == list(range(expected))
    bodies = [directory.read_chunk(spec.plan, chunk) or b"" for chunk in committed]
    assert all(body.endswith(b"\n") for body in bodies)
    return [orjson.loads(line) for body in bodies for line in body.splitlines()]


def _check_published(
    stores: Stores, location: Location, status: dict[str, Any], failed: list[dict[str, Any]]
) -> None:
    store = stores.open(location)
    errors = store.get(f"{location.prefix}errors.jsonl").splitlines()
    assert [orjson.loads(line) for line in errors] == failed
    summary = orjson.loads(store.get(f"{location.prefix}summary.json"))
    assert summary["state"] == status["state"]
    assert summary["counts"] == status["counts"]
    names = {item.key.removeprefix(location.prefix) for item in store.list(location.prefix)}
    assert ("_SUCCESS" in names) == (status["state"] in ("succeeded", "completed_with_errors"))
