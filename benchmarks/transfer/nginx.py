"""nginx, which serves a folder with sendfile and ranges, perhaps in another network namespace."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_CONFIG = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen {address}:{port}; root {root}; }}
}}
"""


@contextmanager
def nginx(folder: Path, root: Path, address: str = "127.0.0.1", where: Sequence[str] = ()) -> Iterator[str]:
    """nginx with its own files in ``folder``, started by a command that begins with ``where``; its URL."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "nginx.conf").write_text(_CONFIG.format(folder=folder, address=address, port=port, root=root))
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    command = [*where, "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), *user]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while not (folder / "nginx.pid").is_file():  # written once it listens
            if process.poll() is not None:
                raise SystemExit(f"nginx does not start: {process.stderr.read()}")
            time.sleep(0.05)
        yield f"http://{address}:{port}"
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()
