# One image for producers and workers. CPU:  docker build -t millrace .
# The HTTP server, which needs no TensorFlow:  docker build --build-arg EXTRA=http -t millrace:http .
# GPU (TensorFlow brings its own CUDA libraries):  docker build --build-arg EXTRA=gpu -t millrace:gpu .
FROM python:3.11-slim-bookworm

ARG EXTRA=worker
WORKDIR /app

COPY pyproject.toml constraints.txt README.md ./
COPY core core
COPY models models
COPY export export
COPY producer producer
COPY worker worker
COPY cli cli
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRA},metrics]" \
    && useradd --create-home --uid 10001 millrace

USER millrace
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["millrace"]
CMD ["--help"]
