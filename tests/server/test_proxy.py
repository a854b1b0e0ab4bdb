"""The shipped configurations of proxies and systemd, under test with the real programs where these are installed."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import requests
import trustme

from dataset_client.protocol import MAX_REQUEST_BYTES
from dataset_server.settings import load_settings
from tests.support import ROOT, Server, connect, wait_until

DEPLOY = ROOT / "deploy"
TOKEN = "a token of the proxies' tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """``text`` after changes, each of which must change something."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def nginx(folder: Path, backend: str, port: int, certificate: Path, key: Path) -> list[str]:
    shipped = replaced(
        (DEPLOY / "nginx.conf").read_text(),
        ("127.0.0.1:8710", backend),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("/etc/ssl/dataset-server/fullchain.pem", str(certificate)),
        ("/etc/ssl/dataset-server/privkey.pem", str(key)),
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""  # its workers must get into this test's folder
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}\n{shipped}\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def caddy(folder: Path, backend: str, port: int, certificate: Path, key: Path) -> list[str]:
    shipped = replaced(
        (DEPLOY / "Caddyfile").read_text(),
        ("127.0.0.1:8710", backend),
        ("data.example.org {", f"https://127.0.0.1:{port} {{\n\ttls {certificate} {key}"),
    )
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{shipped}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def apache(folder: Path, backend: str, port: int, certificate: Path, key: Path) -> list[str]:
    modules = next(
        path for path in map(Path, ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules")) if path.is_dir()
    )
    shipped = replaced(
        (DEPLOY / "apache.conf").read_text(),
        ("127.0.0.1:8710", backend),
        ("*:443", f"127.0.0.1:{port}"),
        ("*:80", f"127.0.0.1:{free_port()}"),
        ("/etc/ssl/dataset-server/fullchain.pem", str(certificate)),
        ("/etc/ssl/dataset-server/privkey.pem", str(key)),
    )
    names = ("mpm_event", "authz_core", "alias", "socache_shmcb", "ssl", "headers", "proxy", "proxy_http")
    loads = [f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names]
    head = [
        f"ServerRoot {folder}",
        f"PidFile {folder}/pid",
        f"DefaultRuntimeDir {folder}",
        "ServerName localhost",
        "ErrorLog /dev/stderr",
        f"Listen 127.0.0.1:{port}",
    ]
    (folder / "apache.conf").write_text("\n".join([*head, *loads, shipped]))
    return ["apache2", "-X", "-f", str(folder / "apache.conf")]


@pytest.fixture(scope="module")
def server(raw_root, environments_dir, plugin_sources, tmp_path_factory):
    """A server as it is behind a proxy: it trusts that, and asks for a token."""
    settings = {"workers": 2, "token": TOKEN, "trusted_proxies": ["127.0.0.1"]}
    folder = tmp_path_factory.mktemp("server")
    running = Server(raw_root, folder, environments_dir, handlers=plugin_sources, settings=settings).start()
    yield running
    assert running.stop() == 0


@pytest.fixture(params=[nginx, caddy, apache], ids=lambda write: write.__name__, scope="module")
def proxy(request, server, tmp_path_factory):
    """URL of a real proxy with the shipped configuration before the real server, and the authority that it has."""
    folder = tmp_path_factory.mktemp(request.param.__name__)
    authority, port = trustme.CA(), free_port()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, trusted = folder / "fullchain.pem", folder / "privkey.pem", folder / "ca.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    authority.cert_pem.write_to_path(trusted)
    program = "apache2" if request.param is apache else request.param.__name__
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    command = request.param(folder, server.url.removeprefix("http://"), port, certificate, key)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return requests.get(f"https://127.0.0.1:{port}/healthz", verify=trusted, timeout=10).ok
        except requests.ConnectionError:
            return False

    try:
        assert wait_until(answers, 60), (folder / "log").read_text()
        yield f"https://127.0.0.1:{port}", trusted
    finally:
        process.terminate()
        process.wait(30)


def test_a_whole_request_goes_through(server, proxy):
    """POST, notifications by WebSocket, and the archive in two ranges."""
    url, trusted = proxy
    body = {"dataset_name": "tones", "handler_version": "1.0", "dataset_config": {"count": 9}}
    answer = requests.post(f"{url}/api/v1/datasets", json=body, headers=AUTHORIZED, verify=trusted, timeout=120)
    assert answer.status_code in (200, 202), answer.text
    topic = answer.json()["topic_id"].replace("+", "%2B")
    context = ssl.create_default_context(cafile=trusted)
    # With its Origin, as a browser sends it: the server must be told the host it was asked as.
    socket_url = f"{url.replace('http', 'ws', 1)}/api/v1/notifications?topic={topic}"
    with connect(socket_url, ssl=context, origin=url, additional_headers=AUTHORIZED) as news:
        while (event := json.loads(news.recv(timeout=120)))["kind"] != "ready":
            assert event["kind"] not in ("failed", "cancelled"), event
    archive = event["data"]["archive"]
    straight = requests.get(f"{server.api}/{archive['url']}", headers=AUTHORIZED, timeout=60).content
    middle = len(straight) // 2
    parts = []
    for wanted in (f"bytes=0-{middle - 1}", f"bytes={middle}-"):
        headers = {**AUTHORIZED, "Range": wanted}
        part = requests.get(f"{url}/api/v1/{archive['url']}", headers=headers, verify=trusted, timeout=60)
        assert part.status_code == 206
        parts.append(part.content)
    assert b"".join(parts) == straight


def test_headers_pass_both_ways(server, proxy):
    url, trusted = proxy
    answer = requests.get(f"{url}/api/v1/datasets", headers=AUTHORIZED, verify=trusted, timeout=60)
    assert answer.status_code == 200
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", answer.headers["X-Request-Id"])
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    headers = {**AUTHORIZED, "Origin": "https://other.example"}
    other = requests.post(f"{url}/api/v1/datasets", json={}, headers=headers, verify=trusted, timeout=60)
    assert (other.status_code, other.json()["code"]) == (403, "forbidden")


def test_a_body_is_as_large_as_the_server_s_own_limit(proxy):
    url, trusted = proxy
    asked = {"url": f"{url}/api/v1/datasets", "headers": AUTHORIZED, "verify": trusted, "timeout": 60}
    just = requests.post(data=b" " * MAX_REQUEST_BYTES, **asked)
    assert (just.status_code, just.json()["code"]) == (400, "malformed_request"), just.text
    try:
        more = requests.post(data=b" " * 2 * MAX_REQUEST_BYTES, **asked)
    except requests.ConnectionError:
        return  # refused before it was read to its end
    assert not more.ok


# -- systemd


def unit() -> dict[str, str]:
    lines = (DEPLOY / "dataset-server.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match("[A-Za-z]+=", line))


def test_the_unit_and_the_settings_agree(tmp_path):
    """The example settings are right but for their folders, and stopping takes less than systemd waits."""
    (tmp_path / "raw").mkdir()
    settings = load_settings(DEPLOY / "server.toml", raw_root=tmp_path / "raw")
    assert int(unit()["TimeoutStopSec"]) >= settings.drain_seconds + 60
    assert unit()["KillMode"] == "mixed"
    assert unit()["RestartPreventExitStatus"] == "2", "the status of wrong usage, which wrong settings are"
    assert str(settings.data_dir) == f"/var/lib/{unit()['StateDirectory']}"
    assert "--config /etc/dataset-server/server.toml" in unit()["ExecStart"]


def test_systemd_takes_the_unit(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "dataset-server.service"
    text = (DEPLOY / "dataset-server.service").read_text()
    path.write_text(
        replaced(
            text,
            ("=/opt/dataset-server/.venv/bin/dataset-server", "=/bin/true"),
            ("User=dataset-server", "User=root"),
            ("Group=dataset-server", "Group=root"),
        )
    )
    run = subprocess.run([program, "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60)
    assert (run.returncode, [line for line in run.stderr.splitlines() if path.name in line]) == (0, [])
