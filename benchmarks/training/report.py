"""What was measured, in Markdown."""

AIM = 1.1
NOTES = """\
A step is forward, loss, gradients, optimizer and the value of the loss; ours counts the IoU, too, as every training
does. All sides have the same weights and photos, and the losses before the first step agree to 0.001. They are
processes that take turns, a few steps each, and begin by turns; a ratio is the median of the rounds'. PyTorch runs
eagerly, as most train with it; ours is compiled, and `first` is the step that compiles. Memory is the peak of the
process beyond what importing the framework took. TensorFlow keeps the memory of tensors for the next ones, as it does
by default; the last two columns are the same steps with `TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1
MALLOC_MMAP_THRESHOLD_=1048576`, where it gives it back to the system, against the same PyTorch."""


def table(rows: list[dict]) -> list[str]:
    """Every model: seconds of a step and memory on all sides, and the aims."""
    titles = ["model", "weights", "photos", "ours, s", "PyTorch, s", f"ours / PyTorch (aim ≤ {AIM})", "first, s"]
    titles += ["ours, MB", "PyTorch, MB", f"MB ratio (aim ≤ {AIM})", "giving back: s ratio", "MB ratio"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        own, given, its = (row["sides"].get(name, {}) for name in ("keras", "giving back", "torch"))
        cells = [
            row["model"],
            f"{row['weights'] / 1e6:.2f} M",
            f"{row['batch']} × {row['size']}²",
            f"{own['seconds']:.3f}",
            f"{its['seconds']:.3f}" if its else "",
            _judged(own.get("ratio")),
            f"{own['first_seconds']:.0f}",
            f"{own['peak_mb'] - own['imported_mb']:.0f}",
            f"{its['peak_mb'] - its['imported_mb']:.0f}" if its else "",
            _judged(own.get("memory_ratio")),
            _judged(given.get("ratio")),
            _judged(given.get("memory_ratio")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _judged(ratio: float | None) -> str:
    """The ratio, and whether it misses the aim; nothing where there is none."""
    if ratio is None:
        return ""
    return f"{ratio:.2f}{'' if ratio <= AIM else ' **no**'}"


def waiting(shares: dict[str, float], aim: float) -> list[str]:
    """How much of its time a training waits for data."""
    lines = [f"| trained | waits (aim < {aim:.0%}) | reached |", "|---|---|---|"]
    lines += [f"| {what} | {share:.2%} | {'yes' if share < aim else 'no'} |" for what, share in shares.items()]
    return lines
