"""What was measured, in Markdown: the aims first, then every reader."""

import statistics

AIM_PEERS, AIM_TF, AIM_NUMBER_MS = 1.5, 1.0, 1.0
NOTES = """\
Rounds are interleaved, and a ratio is the median of those of its rounds. `usual` decodes with Pillow, as the decoders
that come with these libraries do (LitData's with torchvision, where that has its image library; here it has none), and
in tf.data with its default, inexact inverse DCT; `tight` with simplejpeg and OpenCV, and in tf.data with the exact DCT
that ours has. On two cores there are two worker processes, in tf.data two threads; `threads` are two of ours without
a `DataLoader`. Examples by their number are drawn by chance; the first time, when the files' indexes are made, they are
all read in a row, and the time is the mean."""


def ratios(rows: list[dict]) -> None:
    """Add to each peer's row how many times as fast the best of ours is that gives the same on as many cores."""
    for row in rows:
        own = [
            one for one in rows if one["name"] == "ours" and (one["form"], one["cores"]) == (row["form"], row["cores"])
        ]
        if own and row["name"] != "ours":
            best = max(own, key=lambda one: one["rate"])
            pairs = zip(best["runs"], row["runs"], strict=True)
            row["ratio"] = statistics.median(mine["rate"] / its["rate"] for mine, its in pairs)


def aims(rows: list[dict], single: dict[str, float]) -> list[str]:
    """Each aim with what was measured, on one core."""
    lines = ["| aim, on one core | measured | reached |", "|---|---|---|"]
    for form, flavour, aim, told in (
        ("numpy", "usual", AIM_PEERS, "arrays: of each peer in its usual way"),
        ("torch", "usual", AIM_PEERS, "tensors: of each peer in its usual way"),
        ("tf", "tight", AIM_TF, "TensorFlow: of native tf.data with the same pixels"),
        ("tf", "usual", AIM_TF, "TensorFlow: of native tf.data with its inexact DCT"),
    ):
        chosen = [row for row in rows if (row["form"], row["flavour"], row["cores"]) == (form, flavour, 1)]
        found = {row["name"]: row["ratio"] for row in chosen if "ratio" in row}
        if found:
            listed = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items())
            lines.append(f"| ≥ {aim:.1f} × {told} | {listed} | {_yes(min(found.values()) >= aim)} |")
    number = single["without_decoding_ms"]
    lines.append(
        f"| one example by its number: < {AIM_NUMBER_MS:.0f} ms plus decoding | {number:.3f} ms, with decoding "
        f"{single['whole_ms']:.2f} ms; the first time, all in a row, {single['first_pass_ms']:.3f} ms "
        f"| {_yes(number < AIM_NUMBER_MS)} |"
    )
    return lines


def table(rows: list[dict]) -> list[str]:
    """Every reader: medians, and the slowest and the fastest round."""
    lines = ["| reader | gives | decoder | cores | photos/s | lowest–highest | CPU ms per photo | ours / it |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        rates = sorted(run["rate"] for run in row["runs"])
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        lines.append(
            f"| {row['name']} | {row['form']} | {row['flavour']} | {row['cores']} | {row['rate']:.0f} "
            f"| {rates[0]:.0f}–{rates[-1]:.0f} | {row['cpu_ms']:.2f} | {ratio} |"
        )
    return lines


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
