"""Writes a plan as text: one block per run, with a remark on each number."""

from rfjax.config import Config
from rfjax.planning.chips import CHIPS, GIB
from rfjax.planning.plans import RunPlan
from rfjax.planning.tracing import z_type
from rfjax.training.spec import make_run_spec

HOUR, TERA = 3600, 1e12
ABSENT = ("peak, compiled", "frozen encoders", "encoding pictures")  # rows that a plan may lack
SMALL = 1024  # bytes of communication below which kinds share one line


def format_bytes(count: float) -> str:
    """A number of bytes with about three digits and a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.2f} GiB"


def format_seconds(seconds: float) -> str:
    """A duration in milliseconds, seconds, hours or days."""
    for limit, unit, divisor in ((1, "ms", 1e-3), (120, "s", 1), (48 * HOUR, "hours", HOUR)):
        if seconds < limit:
            return f"{seconds / divisor:.3g} {unit}"
    return f"{seconds / (24 * HOUR):.3g} days"


def format_plan(plan: RunPlan, config: Config) -> str:
    """The plan of one run as aligned rows."""
    mesh = " x ".join(f"{name} {n}" for name, n in plan.mesh.items())
    training, model = config.training, config.model
    parts = f" in {training.accumulate} parts" if training.accumulate > 1 else ""
    head = (
        f"{plan.name}: {plan.parameters:,} parameters on {config.plan.devices} x {plan.chip} ({mesh}), "
        f"batch {training.batch}{parts}, {model.precision}, remat {model.remat}"
    )
    return "\n".join(["", head, *_memory(plan, config), *_cost(plan, config), *_traffic(plan), *_advice(plan)])


def _rows(rows: list[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c}".rstrip() for a, b, c in rows]


def _memory(plan: RunPlan, config: Config) -> list[str]:
    memory, spec = plan.memory, make_run_spec(config)
    stored = z_type(config, spec)
    encoded = f"latents of pictures, {stored}" if memory.encoding else f"pictures as {stored}"
    images = encoded if "image" in spec.codec.reads else f"latents as {stored}: config.plan.latents"
    share = memory.peak / plan.limit
    verdict = f"fits: {share:.0%} of" if plan.fits else f"DOES NOT FIT: {share:.2f} times"
    rows = [
        ("parameters", memory.parameters, "exact: this device's shards, float32"),
        ("optimizer state", memory.optimizer, "exact"),
        ("averaged parameters", memory.ema, "exact"),
        ("gradients", memory.gradients, "exact, while they exist"),
        ("frozen encoders", memory.encoders, "exact: this device's shards; they run before the step"),
        ("encoding pictures", memory.encoding, "estimate: of config.autoencoder.batch of them, before the step"),
        ("batch", memory.batch, f"exact: examples ({images}), noise and times"),
        ("saved activations", memory.activations, "exact, of the traced program"),
        ("peak, traced", memory.traced_peak, "estimate: all arrays that exist at once, if no operations are fused"),
        ("peak, compiled", memory.compiled_peak, "XLA's program for CPUs, with its own float32 copies"),
        ("the smaller peak", memory.peak, f"{verdict} the {format_bytes(plan.limit)} available"),
    ]
    shown = [(name, format_bytes(size), remark) for name, size, remark in rows if size or name not in ABSENT]
    return ["memory of a device", *_rows(shown)]


def _cost(plan: RunPlan, config: Config) -> list[str]:
    chip, cost, steps = CHIPS[plan.chip], plan.cost, config.training.steps
    precision = config.model.precision
    how = precision if precision == "bfloat16" else f"float32 as {chip.float32_how}"
    peak = f"{chip.peak(precision) / TERA:,.0f} TFLOP/s, {how}"
    whole, recomputed = cost.step_seconds * steps, cost.recomputed_flops / cost.model_flops
    rows = [
        (
            "FLOPs of the model",
            f"{cost.model_flops / TERA:,.4g} TFLOP",
            "a step, as three times the forward pass: matrix products and convolutions",
        ),
        *(
            [
                (
                    "FLOPs of the alignment",
                    f"{cost.alignment_flops / TERA:,.4g} TFLOP",
                    f"a step: the encoders forward, the projectors three times forward; "
                    f"{cost.alignment_flops / cost.model_flops:.1%} of the model's",
                )
            ]
            if cost.alignment_flops
            else []
        ),
        *(
            [
                (
                    "FLOPs of the autoencoder",
                    f"{cost.encoding_flops / TERA:,.4g} TFLOP",
                    f"a step, to encode pictures; {cost.encoding_flops / cost.model_flops:.1%} of the model's",
                )
            ]
            if cost.encoding_flops
            else []
        ),
        (
            "FLOPs of the program",
            f"{cost.program_flops / TERA:,.4g} TFLOP",
            f"a step, exact as traced; recomputation adds {recomputed:.1%} of the model's",
        ),
        (
            "time of a step",
            format_seconds(cost.step_seconds),
            f"if {config.plan.utilisation:.0%} of the peak is reached ({peak})",
        ),
        (
            "time of training",
            format_seconds(whole),
            f"{steps:,} steps; {whole * config.plan.devices / HOUR:,.4g} device-hours",
        ),
        (
            "time of communication",
            format_seconds(cost.communication_seconds),
            f"a step, at least, at {chip.link / 1e9:,.0f} GB/s into a device; it may overlap with computation",
        ),
    ]
    return ["computation", *_rows(rows)]


def _traffic(plan: RunPlan) -> list[str]:
    if not plan.traffic:
        return ["communication: none"]
    rows = []
    small = [line for line in plan.traffic if max(line.requested, line.compiled) < SMALL]
    for line in (line for line in plan.traffic if line not in small):
        text = f"in {line.count:,}"
        if not line.requested:
            text += "; not requested, but added by XLA for CPUs"
        elif plan.memory.compiled_peak:
            text += f"; as compiled for CPUs {format_bytes(line.compiled)}"
        rows.append((f"{line.kind} over {line.axes}", format_bytes(line.requested or line.compiled), text))
    if small:
        total = sum(max(line.requested, line.compiled) for line in small)
        rows.append(("others", format_bytes(total), f"in {sum(line.count for line in small):,}"))
    return ["communication: what a device receives in a step, at least", *_rows(rows)]


def _advice(plan: RunPlan) -> list[str]:
    lines = []
    if plan.changes:
        recomputed = plan.cost.recomputed_flops / plan.cost.model_flops
        less = f"the memory allows less recomputation than {recomputed:.0%} of the model's FLOPs"
        lines.append(less if plan.fits else "suggestions, the cheapest kind first")
    for change in plan.changes:
        how = "traced" if change.traced else "extrapolated"
        how += f", compiled {format_bytes(change.compiled)}" if change.compiled else ""
        verdict = "fits" if change.fits else "not enough"
        if change.fits and change.compiled > plan.limit:
            verdict += ", but not in XLA's program for CPUs"
        lines.append(f"  {change.description}: {format_bytes(change.peak)} ({how}): {verdict}")
        lines.append(f"      {change.flags}")
    notes = [f"  note: {note}" for note in plan.notes]
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in plan.seconds.items())
    return [*lines, *notes, f"  time of planning: {spent} (GiB = {GIB:,} bytes)", ""]
