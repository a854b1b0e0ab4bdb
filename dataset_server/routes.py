"""Which path leads to which view."""

from aiohttp import web

from dataset_client.protocol import API_PREFIX

from . import api

ROUTES = (
    web.post(f"{API_PREFIX}/datasets", api.post_dataset),
    web.get(f"{API_PREFIX}/datasets", api.list_datasets),
    web.get(f"{API_PREFIX}/datasets/{{id}}", api.get_dataset),
    web.get(f"{API_PREFIX}/datasets/{{id}}/archive", api.get_archive),
    web.get(f"{API_PREFIX}/datasets/{{id}}/manifest", api.get_manifest),
    web.get(f"{API_PREFIX}/datasets/{{id}}/shards/{{file}}", api.get_shard),
    web.get(f"{API_PREFIX}/handlers", api.list_handlers),
    web.get(f"{API_PREFIX}/handlers/{{name}}/{{version}}", api.get_handler),
    web.get(f"{API_PREFIX}/notifications", api.notifications),
    web.get("/healthz", api.health),
    web.get("/readyz", api.readiness),
)
