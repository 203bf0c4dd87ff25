# zhbert in a container: the versions that requirements/ locks, and the compiler that makes it fast.
#
#   docker build -t zhbert .                                       # torch as pip offers it (with CUDA)
#   docker build -t zhbert --build-arg TORCH_INDEX=... .           # from another index (CPU builds)
#   docker run --rm -it -v "$PWD":/data -w /data zhbert quickstart my.txt --out runs/quickstart
FROM python:3.11-slim

ARG TORCH_INDEX=
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/zhbert
ENV PIP_NO_CACHE_DIR=1 PATH=/opt/zhbert/.venv/bin:$PATH
# The libraries before the source: a change of the source does not install them again.
COPY requirements/ requirements/
RUN python -m venv .venv \
    && python -m pip --python .venv install --no-deps --require-hashes --only-binary=:all: -r requirements/run.txt \
    && python -m pip --python .venv install --only-binary=:all: ${TORCH_INDEX:+--index-url $TORCH_INDEX} -r requirements/torch.txt
COPY . .
RUN make setup TORCH_INDEX=$TORCH_INDEX

ENTRYPOINT ["zhbert"]
CMD ["--help"]
