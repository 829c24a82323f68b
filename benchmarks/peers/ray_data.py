"""Ray Data as its guide to offline batch inference shows it: read_images, map_batches with a
class that loads the model once per actor, write_json.

The actors are waited for before anything is read (`wait_for_min_actors_s`), so that neither
their loading nor pictures decoded meanwhile count: timed from the last actor's readiness to the
end of the writing.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import ray

SIZE = (224, 224)
CORES = len(os.sched_getaffinity(0))


class Classifier:
    def __init__(self, model, batch, threads, ready):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        self.predict = tf.saved_model.load(model).signatures["serving_default"]
        self.name = next(iter(self.predict.structured_input_signature[1]))
        self.predict(**{self.name: tf.zeros((batch, *SIZE, 3))})
        Path(ready, str(os.getpid())).write_text(str(time.time()))

    def __call__(self, batch):
        import tensorflow as tf

        pixels = tf.cast(batch["image"], tf.float32) / 127.5 - 1.0
        (output,) = self.predict(**{self.name: pixels}).values()
        scores, indices = tf.math.top_k(output, 5)
        return {"key": batch["path"], "indices": indices.numpy(), "scores": scores.numpy()}


def s3_filesystem():
    from urllib.parse import urlsplit

    from pyarrow.fs import S3FileSystem

    endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    return S3FileSystem(endpoint_override=endpoint.netloc, scheme=endpoint.scheme)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--actors", type=int, default=max(1, CORES // 2))
    parser.add_argument("--actor-cpus", type=float, default=1, help="the rest reads")
    parser.add_argument("--threads", type=int, default=0, help="of one operation; 0: all cores")
    asked = parser.parse_args()
    ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = 300
    with tempfile.TemporaryDirectory() as ready:
        images = ray.data.read_images(
            asked.images,
            filesystem=s3_filesystem() if asked.images.startswith("s3://") else None,
            size=SIZE,
            mode="RGB",
            include_paths=True,
        )
        predictions = images.map_batches(
            Classifier,
            fn_constructor_args=(asked.model, asked.batch, asked.threads, ready),
            batch_size=asked.batch,
            num_cpus=asked.actor_cpus,
            compute=ray.data.ActorPoolStrategy(size=asked.actors),
        )
        predictions.write_json(asked.out)
        ended = time.time()
        begun = max(float(path.read_text()) for path in Path(ready).iterdir())
    written = sum(len(path.read_text().splitlines()) for path in Path(asked.out).rglob("*.json"))
    print(json.dumps({"images": written, "seconds": ended - begun}))


if __name__ == "__main__":
    main()
