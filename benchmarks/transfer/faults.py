"""A download through a proxy that does wrong at random: what it costs, and whether what comes out is right."""

from pathlib import Path

from benchmarks.service.place import serving
from benchmarks.transfer.archive import publish
from benchmarks.transfer.contenders import once, ours
from benchmarks.transfer.faulty import faulty
from benchmarks.transfer.nginx import nginx

KINDS = ("flipped", "cut", "refused")


def run(scratch: Path, megabytes: int, seeds: int, share: float) -> dict:
    """A row for each seed: bytes beyond the archive's that the proxy sent, and faults by kind, of which a ``share`` of
    blocks and requests has one.
    """
    rows = []
    with serving(scratch / "server") as server:
        published = publish(server, megabytes)
    size = published.archive.bytes
    with nginx(scratch / "nginx", published.file.parent) as direct:
        for seed in range(seeds):
            with faulty(direct, share, seed) as (url, counted):
                folder = scratch / f"target-{seed}"
                run = once(ours("ours", published, folder, url), folder)  # sees that each byte is right
            rows.append({"seed": seed, "seconds": run["seconds"], "extra": counted["bytes"] / size - 1, **counted})
    return {"bytes": size, "share": share, "rows": rows}


def report(found: dict) -> list[str]:
    """The table."""
    share = f"{found['share']:.0%}"
    told = (
        f"An archive of {found['bytes'] / 1e6:.0f} MB from nginx through a proxy: in {share} of the blocks of 1 MB a "
        f"bit is flipped or the body cut, and {share} of the requests are refused with 500, 502 or 503, at random. "
        "Afterwards every file is compared with the server's own archive: no wrong byte in any run."
    )
    lines = [told, "", "| seed | requests | flipped | cut | refused | bytes beyond the archive's (aim: 2 % at most) |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in found["rows"]:
        kinds = " | ".join(str(row.get(kind, 0)) for kind in KINDS)
        lines.append(f"| {row['seed']} | {row['requests']} | {kinds} | {row['extra']:.2%} |")
    return lines
