"""Options several commands share. Each is also an environment variable, shown in its help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from millrace.core.services import Services

RedisUrl = Annotated[
    str | None,
    typer.Option(envvar="MILLRACE_REDIS_URL", help="redis://HOST:PORT/DB or rediss://…"),
]
Models = Annotated[
    str | None,
    typer.Option(envvar="MILLRACE_MODELS", help="Model repository: a directory or URL."),
]
AsJson = Annotated[bool, typer.Option("--json", envvar="MILLRACE_JSON", help="Print JSON.")]
LogLevel = Annotated[
    str | None,
    typer.Option(envvar="MILLRACE_LOG_LEVEL", help="debug, info, warning or error."),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A bundle's directory, or NAME[:VERSION] in the repository."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", envvar="MILLRACE_YES", help="Do not ask.")]

Source = Annotated[
    str, typer.Argument(metavar="SRC", help="Images: a directory, file:// or s3:// URL.")
]
Out = Annotated[
    str,
    typer.Option(
        "--out", envvar="MILLRACE_OUT", help="Results: a directory, file:// or s3:// URL."
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(envvar="MILLRACE_INCLUDE", help="Only keys that match; repeatable. '*.jpg'"),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(envvar="MILLRACE_EXCLUDE", help="Not keys that match; repeatable."),
]
Manifest = Annotated[
    str | None,
    typer.Option(
        envvar="MILLRACE_MANIFEST",
        help='Instead of listing: a file or URL with one key or {"key": …} a line.',
    ),
]
ChunkSize = Annotated[
    int, typer.Option(envvar="MILLRACE_CHUNK_SIZE", min=1, max=8192, help="Images per chunk.")
]
Priority = Annotated[
    str,
    typer.Option(envvar="MILLRACE_PRIORITY", help="Share of the queue: high, normal or low."),
]
TopK = Annotated[
    int | None,
    typer.Option(envvar="MILLRACE_TOP_K", min=1, help="Classes per image; default: the model's."),
]
JobLayout = Annotated[
    str,
    typer.Option(
        "--layout",
        envvar="MILLRACE_LAYOUT",
        help="chunks, or per-image for one JSON per image as well.",
    ),
]
JobIdOption = Annotated[
    str | None,
    typer.Option(
        "--job-id",
        envvar="MILLRACE_JOB_ID",
        help="Your own id: submitting it twice is one job.",
    ),
]
ErrorThreshold = Annotated[
    str | None,
    typer.Option(
        envvar="MILLRACE_ERROR_THRESHOLD",
        help="End the job as failed beyond so many failed images: 100, or 5% once all is listed.",
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option(
        envvar="MILLRACE_DEADLINE",
        help="End the job as expired after 90s, 45m, 2h, 1d or at 2026-11-21T06:00:00Z.",
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        envvar="MILLRACE_NOTIFY", help="A URL that is told, signed, when the job has ended."
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        envvar="MILLRACE_METRICS_PORT",
        min=0,
        max=65535,
        help="Serve /metrics for Prometheus there; 0 chooses a free port.",
    ),
]
MetricsAddress = Annotated[
    str,
    typer.Option(envvar="MILLRACE_METRICS_ADDRESS", help="The address that /metrics listens on."),
]
LogFormat = Annotated[
    str | None,
    typer.Option(envvar="MILLRACE_LOG_FORMAT", help="console, or json for machines."),
]

Label = Annotated[
    list[str] | None,
    typer.Option(envvar="MILLRACE_LABEL", help="NAME=VALUE to find the job by; repeatable."),
]

Name = Annotated[
    str | None,
    typer.Option(envvar="MILLRACE_NAME", help="Name of the --saved-model, and of its queue."),
]
Tags = Annotated[
    str | None,
    typer.Option(
        "--tags", "--tag", envvar="MILLRACE_TAGS", help="Tags of the graph, comma-separated."
    ),
]
Signature = Annotated[
    str | None, typer.Option(envvar="MILLRACE_SIGNATURE", help="Signature to call.")
]
InputOp = Annotated[
    str | None,
    typer.Option(
        "--input-op",
        "--input-name",
        envvar="MILLRACE_INPUT_OP",
        help="Input operation, if no signature.",
    ),
]
OutputOp = Annotated[
    str | None,
    typer.Option(
        "--output-op",
        "--inference-name",
        envvar="MILLRACE_OUTPUT_OP",
        help="Output operation, if no signature.",
    ),
]
Size = Annotated[
    str | None, typer.Option(envvar="MILLRACE_SIZE", help="Input size: 224 or HEIGHTxWIDTH.")
]
Scale = Annotated[
    str | None,
    typer.Option(
        envvar="MILLRACE_SCALE",
        help="Pixels to input: tf, caffe, torch, none or MEAN,SCALE for (x - MEAN) / SCALE.",
    ),
]
ChannelsOption = Annotated[
    str | None, typer.Option("--channels", envvar="MILLRACE_CHANNELS", help="RGB, BGR or L.")
]
Resize = Annotated[str | None, typer.Option(envvar="MILLRACE_RESIZE", help="stretch, crop or pad.")]
Labels = Annotated[
    str | None, typer.Option(envvar="MILLRACE_LABELS", help="File with one label a line.")
]
LabelOffset = Annotated[
    int | None,
    typer.Option(envvar="MILLRACE_LABEL_OFFSET", min=0, help="Output index of the first label."),
]
Logits = Annotated[
    bool | None,
    typer.Option("--logits", envvar="MILLRACE_LOGITS", help="The output is logits: apply softmax."),
]
Processes = Annotated[
    str,
    typer.Option(
        envvar="MILLRACE_PROCESSES",
        help="Worker processes; auto measures what is fastest here, once.",
    ),
]
BatchSize = Annotated[
    str | None,
    typer.Option(
        envvar="MILLRACE_BATCH_SIZE", help="Images per micro-batch; auto, the default, finds it."
    ),
]
MaxDelayMs = Annotated[
    float | None,
    typer.Option(envvar="MILLRACE_MAX_DELAY_MS", min=0, help="Longest wait for a batch to fill."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        envvar="MILLRACE_THREADS",
        min=0,
        help="Engine threads per process; 0: its choice. Default: the cores, shared.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(envvar="MILLRACE_ENGINE", help="auto, tensorflow or openvino."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision", envvar="MILLRACE_PRECISION", help="auto (float32), float32 or bfloat16."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(envvar="MILLRACE_DEVICE", help="auto, cpu, gpu or gpu:N."),
]
GpuMemory = Annotated[
    float | None,
    typer.Option(
        envvar="MILLRACE_GPU_MEMORY", min=0, max=1, help="Share of a GPU's memory to take."
    ),
]
Xla = Annotated[
    bool | None, typer.Option("--xla", envvar="MILLRACE_XLA", help="TensorFlow: compile the graph.")
]
ExactDecode = Annotated[
    bool | None,
    typer.Option(
        "--exact-decode",
        envvar="MILLRACE_EXACT_DECODE",
        help="Resize pictures from their full scale, which takes longer.",
    ),
]


def services(redis_url: str | None) -> Services:
    """What a command that talks of jobs works with."""
    from millrace.core.log import configure
    from millrace.core.services import Services
    from millrace.core.settings import Settings

    settings = Settings.load(redis_url=redis_url)
    configure("warning", settings.log_format)
    return Services(settings)
