"""TLS: the server's certificate, checked when it is loaded."""

import ssl
from pathlib import Path


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate; raises `OSError` that says which file is wrong, and how."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (certificate, key):
        path.open("rb").close()  # Python's own error for a missing file does not name it
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        wrong = f"tls_certificate {certificate} and tls_key {key} are not a PEM certificate and its unencrypted key"
        raise OSError(f"{wrong}: {error}") from error
    return context


def _no_password() -> str:
    """A server that is started by itself has nobody to ask."""
    raise ValueError("the key is encrypted")
