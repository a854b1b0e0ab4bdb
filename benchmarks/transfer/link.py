"""A link of a given rate, delay and loss between two network namespaces of this machine, whatever its kernel has of
`tc`: `link.c` carries each packet over.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ADDRESS = "10.213.0.{}"
BUFFER = 64 << 20  # what a TCP socket may hold: ten times what is under way


@dataclass(frozen=True)
class Line:
    """A line, the same in both directions: ``delay_ms`` there and back, ``loss`` as a share of packets of ``mtu``
    bytes, ``queue`` in bytes; and how the TCP over it controls congestion.
    """

    bits_per_second: int = 1_000_000_000
    delay_ms: float = 50.0
    loss: float = 0.0
    congestion: str = "cubic"
    mtu: int = 1500
    seed: int = 1

    @property
    def queue(self) -> int:
        """As much as is under way at a time."""
        return int(self.bits_per_second / 8 * self.delay_ms / 1000)

    @property
    def most(self) -> float:
        """MB/s of payload in packets with the headers of IPv4 and of TCP with time stamps."""
        return self.bits_per_second / 8e6 * (self.mtu - 52) / self.mtu


@dataclass
class Link:
    """A line that is up: commands that begin with ``client`` or ``server`` run at its ends; the server's is at
    ``address``. ``counted`` is what went through, once it is down.
    """

    client: list[str]
    server: list[str]
    address: str
    counted: dict[str, int] = field(default_factory=dict)


def lacking() -> str:
    """What keeps this machine from having such a link; "" if nothing does."""
    if missing := [name for name in ("ip", "cc") if shutil.which(name) is None]:
        return f"{' and '.join(missing)} not installed"
    if os.geteuid() != 0:
        return "not run as root"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun"
    namespace = f"probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", namespace], capture_output=True).returncode:
        return "no network namespaces here"
    subprocess.run(["ip", "netns", "delete", namespace], check=True)
    return ""


@contextmanager
def linked(line: Line) -> Iterator[Link]:
    """Two namespaces with ``line`` between them."""
    names = [f"{end}-{os.getpid()}" for end in ("client", "server")]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = folder / "link"
        subprocess.run(["cc", "-O2", "-o", program, Path(__file__).with_name("link.c")], check=True)
        for number, name in enumerate(names, 1):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            _make_end(name, ADDRESS.format(number), line)
        places = [word for name in names for word in (f"/var/run/netns/{name}", "line")]
        numbers = [line.bits_per_second, int(line.delay_ms * 500), line.queue, line.loss, line.seed]
        process = subprocess.Popen([program, *places, *map(str, numbers)], stdout=subprocess.PIPE, text=True)
        link = Link(*(["ip", "netns", "exec", name] for name in names), ADDRESS.format(2))
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "up\n":
                raise SystemExit("the emulated link does not come up")
            yield link
        finally:
            process.terminate()
            told, _ = process.communicate()
        link.counted.update(json.loads(told))


def _make_end(name: str, address: str, line: Line) -> None:
    """A namespace with a TUN device, over which TCP behaves as the line says, and buffers are no limit."""
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "tuntap", "add", "dev", "line", "mode", "tun")
    _ip("-n", name, "link", "set", "line", "mtu", str(line.mtu), "txqueuelen", "20000")
    _ip("-n", name, "address", "add", f"{address}/24", "dev", "line")
    _ip("-n", name, "link", "set", "line", "up")
    route = [ADDRESS.format("0/24"), "dev", "line", "src", address]
    _ip("-n", name, "route", "replace", *route, "congctl", line.congestion)
    settings = [f"net.ipv4.tcp_{way}mem=4096 131072 {BUFFER}" for way in "rw"] + ["net.ipv4.tcp_no_metrics_save=1"]
    for setting in settings:
        key, _, value = setting.partition("=")
        place = f"/proc/sys/{key.replace('.', '/')}"
        _ip("netns", "exec", name, "sh", "-c", 'echo "$1" > "$2"', "sh", value, place)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
