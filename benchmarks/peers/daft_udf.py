"""Daft as its guide to batch inference shows it: read paths, download, decode and resize
images with its own expressions, and a class UDF that loads the model once.

Daft makes the class while it already reads ahead. So that neither the loading nor what was read
meanwhile counts, the model is loaded and run before the query, in the process that runs it, and
the class picks it up: timed is the query.
"""

import argparse
import json
import os
import time
from functools import cache
from pathlib import Path

import daft
from daft import DataType, col
from daft.io import IOConfig, S3Config

SIZE = 224
TOP = DataType.struct(
    {"indices": DataType.list(DataType.int64()), "scores": DataType.list(DataType.float32())}
)


@cache
def load(path, batch, threads):
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    predict = tf.saved_model.load(path).signatures["serving_default"]
    name = next(iter(predict.structured_input_signature[1]))
    predict(**{name: tf.zeros((batch, SIZE, SIZE, 3))})
    return predict, name


def classifier(batch, concurrency):
    @daft.cls(max_concurrency=concurrency, use_process=False)
    class Classifier:
        def __init__(self, *model):
            self.predict, self.name = load(*model)

        @daft.method.batch(return_dtype=TOP, batch_size=batch)
        def __call__(self, images):
            import numpy as np
            import tensorflow as tf

            pixels = np.stack(images.to_pylist()).astype(np.float32) / 127.5 - 1.0
            (output,) = self.predict(**{self.name: tf.constant(pixels)}).values()
            scores, indices = tf.math.top_k(output, 5)
            rows = zip(indices.numpy().tolist(), scores.numpy().tolist(), strict=True)
            return [{"indices": row, "scores": top} for row, top in rows]

    return Classifier


def io_config():
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint is None:
        return IOConfig()
    return IOConfig(
        s3=S3Config(
            endpoint_url=endpoint,
            region_name=os.environ["AWS_DEFAULT_REGION"],
            key_id=os.environ["AWS_ACCESS_KEY_ID"],
            access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            use_ssl=False,
        )
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of one operation; 0: all cores")
    asked = parser.parse_args()
    daft.set_planning_config(default_io_config=io_config())
    model = (asked.model, asked.batch, asked.threads)
    load(*model)
    classify = classifier(asked.batch, asked.concurrency)(*model)
    begun = time.perf_counter()
    frame = daft.from_glob_path(f"{asked.images}/*.jpg").select("path")
    frame = frame.with_column("image", col("path").download().decode_image(mode="RGB"))
    frame = frame.with_column("image", col("image").resize(SIZE, SIZE))
    frame = frame.select(col("path").alias("key"), classify(col("image")).alias("top"))
    frame = frame.select("key", col("top").get("indices"), col("top").get("scores"))
    frame.write_json(asked.out)
    seconds = time.perf_counter() - begun
    written = sum(len(path.read_text().splitlines()) for path in Path(asked.out).rglob("*.json"))
    print(json.dumps({"images": written, "seconds": seconds}))


if __name__ == "__main__":
    main()
