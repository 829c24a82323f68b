"""The environment of the real command, and a model slow enough to watch."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.cli.embedded_s3 import EmbeddedS3

SIDE = 8


@pytest.fixture(scope="session")
def slow_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `slow:1`: 8 × 8 grey pixels, 4 classes, some 30 ms an image."""
    from millrace.core.load_tensorflow import load_tensorflow

    load_tensorflow()
    import keras
    from keras import layers

    from millrace.export import export_keras

    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            layers.UpSampling2D(32),
            *(layers.Conv2D(16, 3, activation="relu") for _ in range(14)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    path = tmp_path_factory.mktemp("slow-repository")
    export_keras(model, name="slow", version="1", repository=str(path), scale="0,255", channels="L")
    return path


@pytest.fixture
def env(redis_url: str, repository: Path) -> dict[str, str]:
    """What a shell would export: this test's Redis and a repository with `tiny`."""
    return {"MILLRACE_REDIS_URL": redis_url, "MILLRACE_MODELS": str(repository)}


@pytest.fixture
def s3_env(env: dict[str, str], s3: EmbeddedS3) -> dict[str, str]:
    """The same with the S3 endpoint."""
    return env | s3.environment
