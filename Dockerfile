# One image for both sides: `server` makes datasets next to the raw data, `training` asks for them next to the GPUs.
FROM python:3.11-slim AS base
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .

FROM base AS server
RUN make install
ENV PATH="/app/.venv/bin:$PATH"
RUN useradd --create-home server && install -d -o server /data
USER server
# For every command, also those of `docker compose exec server dataset-server …`.
ENV DATASET_SERVER_RAW_ROOT=/raw DATASET_SERVER_DATA_DIR=/data DATASET_SERVER_HOST=0.0.0.0
EXPOSE 8710
ENTRYPOINT ["dataset-server"]
CMD ["serve"]

FROM base AS training
RUN make install
ENV PATH="/app/.venv/bin:$PATH"
ENTRYPOINT ["dataset-train"]
CMD ["--help"]
