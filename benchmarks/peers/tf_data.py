"""tf.data and a SavedModel signature, as TensorFlow's "Better performance with the tf.data API"
and "Using the SavedModel format" recommend: parallel map, batch, prefetch, all AUTOTUNE.

Timed from the first listing to the last line written, after the model is loaded and has run one
batch.
"""

import argparse
import json
import time
from functools import cache

import tensorflow as tf

SIZE = (224, 224)


@cache
def s3():
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(max_pool_connections=64))


def list_s3(source):
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    pages = s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/")
    return [f"s3://{bucket}/{item['Key']}" for page in pages for item in page["Contents"]]


def get(uri):
    bucket, _, key = uri.numpy().decode().removeprefix("s3://").partition("/")
    return s3().get_object(Bucket=bucket, Key=key)["Body"].read()


def dataset(source, batch):
    if source.startswith("s3://"):
        files = tf.data.Dataset.from_tensor_slices(list_s3(source))
        # TensorFlow's own wheels read no S3 any more; the wait is hidden by asking for many.
        read, at_once = lambda uri: tf.ensure_shape(tf.py_function(get, [uri], tf.string), []), 16
    else:
        files = tf.data.Dataset.list_files(source + "/*", shuffle=False)
        read, at_once = tf.io.read_file, tf.data.AUTOTUNE

    def pixels(uri, data):
        image = tf.image.resize(tf.io.decode_jpeg(data, channels=3), SIZE)
        return uri, image / 127.5 - 1.0

    return (
        files.map(lambda uri: (uri, read(uri)), num_parallel_calls=at_once, deterministic=False)
        .map(pixels, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .batch(batch)
        .prefetch(tf.data.AUTOTUNE)
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="of one operation; 0: all cores")
    asked = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(asked.threads)
    predict = tf.saved_model.load(asked.model).signatures["serving_default"]
    name = next(iter(predict.structured_input_signature[1]))
    predict(**{name: tf.zeros((asked.batch, *SIZE, 3))})
    begun = time.perf_counter()
    images = 0
    with open(asked.out, "w") as lines:
        for uris, pixels in dataset(asked.images, asked.batch):
            (output,) = predict(**{name: pixels}).values()
            scores, indices = tf.math.top_k(output, 5)
            for uri, row, top in zip(uris.numpy(), indices.numpy(), scores.numpy(), strict=True):
                line = {"key": uri.decode(), "indices": row.tolist(), "scores": top.tolist()}
                lines.write(json.dumps(line) + "\n")
            images += len(uris)
            ended = time.perf_counter()  # to close the dataset may take it seconds more
    print(json.dumps({"images": images, "seconds": ended - begun}))


if __name__ == "__main__":
    main()
