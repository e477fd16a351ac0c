"""A plan as text: one block for each run, and what each of its numbers is."""

from typing import Any

from rich.console import Console

from rfjax.config import Config
from rfjax.planning.chips import CHIPS, GIB
from rfjax.planning.tracing import image_type

HOUR, TERA = 3600, 1e12
SMALL = 1024  # bytes, below which communication is not worth a line


def console() -> Console:
    return Console(highlight=False, soft_wrap=True, markup=False)


def size(count: float) -> str:
    """Bytes with three or so digits and a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.2f} GiB"


def duration(seconds: float) -> str:
    """Milliseconds, seconds, hours or days."""
    for limit, unit, divisor in ((1, "ms", 1e-3), (120, "s", 1), (48 * HOUR, "hours", HOUR)):
        if seconds < limit:
            return f"{seconds / divisor:.3g} {unit}"
    return f"{seconds / (24 * HOUR):.3g} days"


def block(plan: Any, config: Config) -> str:
    """The plan of one run, aligned.

    Args:
        plan: a `job.Plan`. config: of the run.
    """
    return "\n".join(
        ["", *_head(plan, config), *_memory(plan, config), *_work(plan, config), *_traffic(plan), *_advice(plan)]
    )


def _rows(rows: list[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c}".rstrip() for a, b, c in rows]


def _head(plan: Any, config: Config) -> list[str]:
    mesh = " x ".join(f"{name} {n}" for name, n in plan.mesh.items())
    training, model = config.training, config.model
    parts = f" in {training.accumulate} parts" if training.accumulate > 1 else ""
    return [
        f"{plan.name}: {plan.parameters:,} parameters on {config.plan.devices} x {plan.chip} ({mesh}), "
        f"batch {training.batch}{parts}, {model.precision}, remat {model.remat}"
    ]


def _memory(plan: Any, config: Config) -> list[str]:
    memory, stored = plan.memory, image_type(config)
    images = "pictures as bytes" if stored == "uint8" else f"latents as {stored}: config.plan.latents"
    rows = [
        ("parameters", size(memory.parameters), "exact: this device's shards, float32"),
        ("moments of the optimiser", size(memory.moments), "exact"),
        ("average of the weights", size(memory.average), "exact"),
        ("gradients", size(memory.gradients), "exact, while they exist"),
        ("batch", size(memory.batch), f"exact: examples ({images}), noise and times"),
        ("kept for the backward pass", size(memory.kept), "exact, of the traced program"),
        ("peak, traced", size(memory.most), "estimate: all arrays that exist at once, if no operations are joined"),
    ]
    if memory.compiled:
        rows.append(("peak, compiled", size(memory.compiled), "XLA's program for CPUs, with its own float32 copies"))
    share = memory.peak / plan.limit
    verdict = f"fits: {share:.0%} of" if plan.fits else f"DOES NOT FIT: {share:.2f} times"
    rows.append(("the smaller peak", size(memory.peak), f"{verdict} the {size(plan.limit)} that can be used"))
    return ["memory of a device", *_rows(rows)]


def _work(plan: Any, config: Config) -> list[str]:
    chip, work, steps = CHIPS[plan.chip], plan.work, config.training.steps
    precision = config.model.precision
    how = precision if precision == "bfloat16" else f"float32 as {chip.float32_how}"
    peak = f"{chip.peak(precision) / TERA:,.0f} TFLOP/s, {how}"
    whole = work.step_seconds * steps
    rows = [
        ("the model's", f"{work.model / TERA:,.4g} TFLOP", "a step: three times forward, products and convolutions"),
        (
            "the program's",
            f"{work.program / TERA:,.4g} TFLOP",
            f"{work.again / work.model:.1%} of the model's for what is computed again; exact, as traced",
        ),
        (
            "time of a step",
            duration(work.step_seconds),
            f"if {config.plan.utilisation:.0%} of the peak is reached ({peak})",
        ),
        (
            "time of training",
            duration(whole),
            f"{steps:,} steps; {whole * config.plan.devices / HOUR:,.4g} device-hours",
        ),
        (
            "time of communication",
            duration(work.link_seconds),
            f"a step, at least, at {chip.link / 1e9:,.0f} GB/s into a device; it may hide behind the work",
        ),
    ]
    return ["work", *_rows(rows)]


def _traffic(plan: Any) -> list[str]:
    if not plan.traffic:
        return ["communication: none"]
    rows = []
    for line in plan.traffic:
        if max(line.asked, line.compiled) < SMALL:
            continue
        text = f"in {line.count:,}"
        if not line.asked:
            text += "; not asked for, but made by XLA for CPUs"
        elif plan.memory.compiled:
            text += f"; as compiled for CPUs {size(line.compiled)}"
        rows.append((f"{line.kind} over {line.axes}", size(line.asked or line.compiled), text))
    small = [line for line in plan.traffic if max(line.asked, line.compiled) < SMALL]
    if small:
        total = sum(max(line.asked, line.compiled) for line in small)
        rows.append(("others", size(total), f"in {sum(line.count for line in small):,}"))
    return ["communication: what a device receives in a step, at least", *_rows(rows)]


def _advice(plan: Any) -> list[str]:
    lines = []
    if plan.changes:
        again = f"there is room to compute less again than {plan.work.again / plan.work.model:.0%} of the model's work"
        lines.append(again if plan.fits else "what would help, the cheapest kind first")
    for change in plan.changes:
        how = "traced" if change.traced else "estimated"
        how += f", compiled {size(change.compiled)}" if change.compiled else ""
        verdict = "fits" if change.fits else "not enough"
        if change.fits and change.compiled > plan.limit:
            verdict += ", but not as XLA compiles it for CPUs"
        lines.append(f"  {change.what}: {size(change.most)} ({how}): {verdict}")
        lines.append(f"      {change.flags}")
    notes = [f"  note: {note}" for note in plan.notes]
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in plan.seconds.items())
    return [*lines, *notes, f"  planned in {spent} (GiB = {GIB:,} bytes)", ""]
