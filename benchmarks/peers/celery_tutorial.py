"""A Celery app as the tutorials show it: one image per task, prefork, results in Redis.

Follows Celery's "First steps", "Canvas: groups" and "Tasks: instantiation" (a task class that
loads the model once per process, at its first call: forked TensorFlow does not work). The
broker is CELERY_BROKER_URL, as Celery itself reads it. Timed from the first task sent to the
last line written, after every worker process has predicted once.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from celery import Celery, Task, group

app = Celery("celery_tutorial", backend=os.environ["CELERY_BROKER_URL"])
app.conf.task_ignore_result = False


class ModelTask(Task):
    """Holds the model; one instance per worker process."""

    _predict = None
    _s3 = None

    @property
    def predict(self):
        if self._predict is None:
            import tensorflow as tf

            # Two processes on two cores: threads of their own would only fight each other.
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
            loaded = tf.saved_model.load(os.environ["MODEL_DIR"])
            self._predict = loaded.signatures["serving_default"]
            self._name = next(iter(self._predict.structured_input_signature[1]))
        return lambda pixels: next(iter(self._predict(**{self._name: pixels}).values())).numpy()

    @property
    def s3(self):
        if self._s3 is None:
            import boto3

            self._s3 = boto3.client("s3")
        return self._s3


@app.task(base=ModelTask, bind=True)
def classify(self, uri):
    import io

    import numpy as np
    import tensorflow as tf
    from PIL import Image

    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        data = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    else:
        data = Path(uri).read_bytes()
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.BILINEAR)
    pixels = np.asarray(image, np.float32)[None] / 127.5 - 1
    scores = self.predict(tf.constant(pixels))[0]
    best = scores.argsort()[::-1][:5]
    return {"key": uri, "indices": best.tolist(), "scores": scores[best].tolist()}


@app.task(base=ModelTask, bind=True)
def warm(self):
    import tensorflow as tf

    self.predict(tf.zeros((1, 224, 224, 3)))
    time.sleep(0.2)  # long enough that the other processes get the next ones
    return os.getpid()


def list_images(source):
    if not source.startswith("s3://"):
        return [str(path) for path in sorted(Path(source).iterdir())]
    import boto3

    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    pages = (
        boto3.client("s3")
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket, Prefix=prefix + "/")
    )
    return [f"s3://{bucket}/{item['Key']}" for page in pages for item in page["Contents"]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--concurrency", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    command = [sys.executable, "-m", "celery", "-A", "celery_tutorial", "worker"]
    command += ["--pool=prefork", f"--concurrency={asked.concurrency}", "--loglevel=WARNING"]
    worker = subprocess.Popen(
        command, cwd=Path(__file__).parent, env={**os.environ, "MODEL_DIR": asked.model}
    )
    try:
        ready = set()
        while len(ready) < asked.concurrency:
            sent = group(warm.s() for _ in range(2 * asked.concurrency)).apply_async()
            ready |= set(sent.get(timeout=120))
        begun = time.perf_counter()
        uris = list_images(asked.images)
        results = group(classify.s(uri) for uri in uris).apply_async().get()
        with open(asked.out, "w") as lines:
            lines.writelines(json.dumps(result) + "\n" for result in results)
        seconds = time.perf_counter() - begun
    finally:
        worker.terminate()
        worker.wait()
    print(json.dumps({"images": len(results), "seconds": seconds}))


if __name__ == "__main__":
    main()
