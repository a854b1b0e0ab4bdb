"""What was measured, in Markdown."""

AIM = 1.1
NOTES = """\
A step is forward, loss, gradients, optimizer and the value of the loss; ours counts the IoU, too, as every training
does. Both sides have the same weights and photos, and the losses before the first step agree to 0.001. They are
processes that take turns, a few steps each, and begin by turns; a ratio is the median of the rounds'. PyTorch runs
eagerly, as most train with it; ours is compiled, and `first` is the step that compiles. Memory is the peak of the
process beyond what importing the framework took."""


def table(rows: list[dict]) -> list[str]:
    """Every model: seconds of a step on both sides, and the aim."""
    titles = ["model", "weights", "photos", "ours, s", "PyTorch, s", f"ours / PyTorch (aim ≤ {AIM})", "first, s"]
    titles += ["ours, MB", "PyTorch, MB", f"MB ratio (aim ≤ {AIM})"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        own, its = row["sides"]["keras"], row["sides"].get("torch")
        ratio = f"{row['ratio']:.2f}{'' if row['ratio'] <= AIM else ' **no**'}" if its else ""
        cells = [
            row["model"],
            f"{row['weights'] / 1e6:.2f} M",
            f"{row['batch']} × {row['size']}²",
            f"{own['seconds']:.3f}",
            f"{its['seconds']:.3f}" if its else "",
            ratio,
            f"{own['first_seconds']:.0f}",
            f"{own['peak_mb'] - own['imported_mb']:.0f}",
            f"{its['peak_mb'] - its['imported_mb']:.0f}" if its else "",
            f"{row['memory_ratio']:.2f}{'' if row['memory_ratio'] <= AIM else ' **no**'}" if its else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def waiting(shares: dict[str, float], aim: float) -> list[str]:
    """How much of its time a training waits for data."""
    lines = [f"| trained | waits (aim < {aim:.0%}) | reached |", "|---|---|---|"]
    lines += [f"| {what} | {share:.2%} | {'yes' if share < aim else 'no'} |" for what, share in shares.items()]
    return lines
