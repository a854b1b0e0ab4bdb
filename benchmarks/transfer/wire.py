"""Downloads over an emulated link of 50 ms and 1 Gbit/s, without loss and with 1 % of the packets lost."""

from pathlib import Path

from benchmarks.service.place import serving
from benchmarks.transfer.archive import Published, publish
from benchmarks.transfer.contenders import Contender, curl, interleaved, ours, plain
from benchmarks.transfer.link import Line, linked
from benchmarks.transfer.nginx import nginx

STREAM = "one requests stream"
STREAMS = (1, 4, 16)
LOSS = 0.01


def run(scratch: Path, megabytes: int, rounds: int, seconds: int) -> dict:
    """Rows by line. Single streams that lose packets are slow, and watched for so many ``seconds``."""
    with serving(scratch / "server") as server:
        large, small = publish(server, megabytes), publish(server, max(megabytes // 8, 1))
    lines = {
        "no loss": (Line(), large, rounds),
        "1 % loss": (Line(loss=LOSS), small, rounds),
        "1 % loss, BBR": (Line(loss=LOSS, congestion="bbr"), small, 1),
    }
    found = {}
    for name, (line, published, count) in lines.items():
        place = scratch / f"line-{len(found)}"
        place.mkdir()
        with linked(line) as link, nginx(place / "nginx", published.file.parent, link.address, link.server) as url:
            everybody = _contenders(published, place / "target", url, line, seconds)
            rows = interleaved(everybody, place / "target", count, link.client)
        found[name] = {
            "congestion": line.congestion,
            "bytes": published.archive.bytes,
            "rounds": count,
            "most_mb_s": line.most,
            "rows": rows,
            "counted": link.counted,
        }
    return {"seconds": seconds, "lines": found}


def _contenders(published: Published, folder: Path, url: str, line: Line, seconds: int) -> list[Contender]:
    file = str(folder / "file")
    everybody = [ours("ours", published, folder, url)]
    if line.loss:
        return [*everybody, plain(STREAM, published, url, "--file", file, "--seconds", str(seconds))]
    everybody += [curl("curl", published, folder, url), plain(STREAM, published, url, "--file", file)]
    return everybody + [plain(_link(count), published, url, "--streams", str(count)) for count in STREAMS]


def _link(count: int) -> str:
    return f"the link: {count} bare {'streams' if count > 1 else 'stream'}"


def report(found: dict) -> list[str]:
    """The tables."""
    told = (
        "Two network namespaces with a process between their TUN devices that carries each packet of 1,500 bytes over: "
        "50 ms there and back, 1 Gbit/s each way, and a queue of 6.25 MB. Packets are lost at random in both "
        "directions alike. TCP buffers are no limit. The link is what bare sockets get out of it whose bytes nobody "
        f"keeps. Single streams that lose packets are watched for {found['seconds']} s, of which they have their rate."
    )
    lines = [told]
    for name, case in found["lines"].items():
        rows, counted = case["rows"], case["counted"]
        plain_rate = next(row["mb_s"] for row in rows if row["name"] == STREAM)
        link = max((row["mb_s"] for row in rows if row["name"].startswith("the link")), default=0.0)
        lines += ["", f"### {name}", ""]
        packets = counted["passed"] + counted["lost"]
        setting = (
            f"{case['bytes'] / 1e6:.0f} MB, {case['congestion']}, rounds: {case['rounds']}. The most that TCP can get "
            f"out of 1 Gbit/s is {case['most_mb_s']:.1f} MB/s. Of {packets} packets to the client {counted['lost']} "
            f"were lost, and {counted['overflowed']} more found the queue full; the latest packet was "
            f"{counted['latest_us'] / 1000:.1f} ms late."
        )
        lines += [setting, ""]
        lines += ["| | MB/s | lowest–highest | CPU s per GB | / the link | / one requests stream |"]
        lines += ["|---|---|---|---|---|---|"]
        for row in rows:
            rates = sorted(run["mb_s"] for run in row["runs"])
            share = f"{row['mb_s'] / link:.2f}" if link else ""
            lines.append(
                f"| {row['name']} | {row['mb_s']:.2f} | {rates[0]:.2f}–{rates[-1]:.2f} | {row['cpu_s_per_gb']:.2f} "
                f"| {share} | {row['mb_s'] / plain_rate:.1f} |"
            )
    aims = "Aims: 0.9 of the link without loss, and 5 times one requests stream at 1 % loss."
    return [*lines, "", aims]
