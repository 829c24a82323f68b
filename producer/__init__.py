"""The producer's side: submit a bucket as a job, poll it, read what came of it.

    from millrace.producer import submit

    job = submit("s3://bucket/photos", model="resnet50", output="s3://bucket/predictions")
    status = job.wait(progress=lambda s: print(s.progress))
    for outcome in job.results():
        ...

Importing it loads no TensorFlow.
"""

from millrace.core.status import JobStatus
from millrace.producer.enqueue import ListingProgress
from millrace.producer.job import Job, open_job
from millrace.producer.submit import submit

__all__ = ["Job", "JobStatus", "ListingProgress", "open_job", "submit"]
