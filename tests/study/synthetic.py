"""Study folders as a run would leave them, from a known law, without training."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from tiny import tiny

from rfjax import config as configs
from rfjax.study.reports import paper

E, A, ALPHA, STEPS = 0.25, 30.0, 0.5, 40
SHARES = np.arange(1, 9) / 36  # of the loss above the floor, by level
THREE = ("rf", "eps/linear", "rf/lognorm(0.00,1.00)")


def write_study(folder: Path, depths=(1, 2, 3, 4, 5, 6), noise=0.0, axes=None, scores=False, **study) -> Path:
    """Losses E + A N^-alpha (1 + noise), N = 1e4 d^3, with curves, levels and paired examples.

    scores: with every validation loss, a score 1 - loss and a distance loss^3, at two settings of the sampler.
    """
    c = tiny()
    c.workdir = str(folder)
    c.study.update(study)
    c.training.update(steps=STEPS, batch=8)
    configs.axes(c, axes or {"model.depth": depths})
    rng = np.random.default_rng(0)
    runs = begin(folder, c)
    shared = rng.normal(size=64) * 0.05
    for name, config in runs:
        parameters = int(1e4 * config.model.depth**3)
        best = 0.02 * config.model.depth**-0.5
        penalty = (
            0.05 * np.log(config.optimizer.learning_rate / best) ** 2
            if "optimizer.learning_rate" in (axes or {})
            else 0.0
        )
        final = E + A * parameters**-ALPHA * (1 + noise * rng.normal()) + penalty
        size = {"parameters": parameters, "without_modulation": parameters, "active_per_token": parameters}
        size |= {"forward_flops": 2 * parameters, "train_flops": 6 * parameters}
        lines = [{"kind": "start", "step": 0, "size": size, "steps": STEPS, "device": "cpu"}]
        for step in range(4, STEPS + 1, 4):
            done = {"step": step, "examples": 8 * step, "flops": 48 * step * parameters, "seconds": 0.1 * step}
            loss = final + 20.0 * ((8 * step) ** -1.5 - (8 * STEPS) ** -1.5)
            lines.append({"kind": "train", **done, "loss": loss, "grad_norm": 1.0, "learning_rate": 1e-3})
            if step % 8 == 0:
                for weights in ("raw", "ema"):
                    values = {"grid": "k/8", "loss": loss, "stderr": 0.01, **by_level(loss)}
                    lines.append({"kind": "validation", **done, "weights": weights, **values})
                    if scores:
                        lines += [score_line(weights, k, 3.0, 1 - loss, loss**3, step=step) for k in (10, 25)]
        for weights in ("raw", "ema"):
            losses = final + shared + rng.normal(size=64) * 1e-3
            lines.append({"kind": "examples", "step": STEPS, "weights": weights, "grid": "k/8", "losses": list(losses)})
        write_run(folder, name, config, lines)
    return folder


def by_level(loss: float) -> dict:
    """Levels whose mean is the loss: the floor of 1 at t = 0, and above it shares that grow with t."""
    levels = list((loss - 1 / 8) * 8 * SHARES + np.eye(8)[0])
    return {"levels": levels, "floors": [1.0] + [None] * 7, "floors_drawn": [1.0] + [None] * 7}


def change_lines(folder: Path, name: str, change: Callable[[dict], dict | None]) -> None:
    """Writes a run's metrics.jsonl anew: each line becomes change(line), and goes where that is None."""
    path = folder / "runs" / name / "metrics.jsonl"
    changed = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed if line is not None))


def begin(folder: Path, c, report: str = "scaling") -> list:
    """Writes study.json; returns the study's runs."""
    config = configs.parse(c)
    runs = configs.runs(config)
    plain = config.to_dict()
    plain["study"]["report"] = report
    known = {"config": plain, "runs": [name for name, _ in runs], "command": "make study", "commit": "abc"}
    known |= {"date": "today", "python": "3", "versions": {"jax": "0"}, "devices": "1 x cpu", "machine": "m"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(known))
    return runs


def write_run(folder: Path, name: str, config, lines: list[dict]) -> None:
    run = folder / "runs" / name
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def finished(parameters: int = 1000) -> list[dict]:
    """The lines of a run that is complete, without scores."""
    size = {"parameters": parameters, "without_modulation": parameters, "active_per_token": parameters}
    size |= {"forward_flops": 2 * parameters, "train_flops": 6 * parameters}
    done = {"step": STEPS, "examples": 8 * STEPS, "flops": 48 * STEPS * parameters, "seconds": 4.0}
    values = {"grid": "k/8", "loss": 0.5, "stderr": 0.01, "levels": [0.5] * 8}
    lines = [{"kind": "validation", **done, "weights": weights, **values} for weights in ("raw", "ema")]
    start = {"kind": "start", "step": 0, "size": size, "steps": STEPS, "device": "cpu"}
    return [start, {"kind": "train", **done, "loss": 0.5, "grad_norm": 1.0, "learning_rate": 1e-3}, *lines]


def score_line(weights: str, steps: int, guidance: float, score: float, frechet: float, **more) -> dict:
    """A line of kind "scores" as a run writes it."""
    line = {"kind": "scores", "step": STEPS, "weights": weights, "setting": f"{steps}@{guidance}", "sampler": "euler"}
    line |= {"steps": steps, "guidance": guidance, "count": 128, "score": score, "stderr": 0.01, "parts": {}}
    return line | {"frechet": frechet, "path_length": 12.0} | more


def in_order(variants: Iterable[str]) -> Callable[..., tuple[float, float]]:
    """Qualities that put the variants in this order in every setting of a contest."""
    place = {name: i for i, name in enumerate(variants)}
    return lambda variant, *setting: (1.0 - 0.01 * place[variant], 1.0 + place[variant])


def write_contest(
    folder: Path,
    quality: Callable[[str, str, str, int, float], tuple[float, float]],
    variants: Iterable[str] = tuple(paper.TABLE_1),
    datasets: Iterable[str] = ("shapes", "digits"),
    samples: bool = False,
    axes: dict | None = None,
    loss: Callable[..., float] = lambda config: 0.5,
    luck: Callable[..., float] = lambda config: 0.0,
    more: dict | None = None,
    **study,
) -> Path:
    """A contest; quality(variant, data set, weights, steps, guidance) is (score, Fréchet distance).

    axes: other axes. loss: of a run with this config, at its end; luck is added to its distances. more: of its lines.
    """
    c = tiny()
    c.workdir = str(folder)
    c.study.update(name="Which formulation?", **study)
    c.training.update(steps=STEPS, batch=8)
    configs.axes(c, {"data.name": tuple(datasets), "flow.formulation": tuple(variants)} | (axes or {}))
    rng = np.random.default_rng(0)
    for name, config in begin(folder, c, "formulations"):
        variant, dataset = config.flow.formulation, config.data.name
        lines = [line | {"loss": loss(config)} if "loss" in line else line for line in finished()]
        for weights in ("raw", "ema"):
            for steps, guidance in paper.SAMPLERS:
                score, frechet = quality(variant, dataset, weights, steps, guidance)
                frechet += luck(config)
                parts = {"single object": score, "colour": score / 2} if dataset == "shapes" else {}
                lines.append(score_line(weights, steps, guidance, score, frechet, parts=parts) | (more or {}))
        if samples:
            captions = ["a red circle", "two blue squares", "a cross and a triangle", "three"]
            values = {"captions": captions, "sampler": "euler", "steps": 25, "guidance": 5.0}
            lines.append({"kind": "samples", "step": STEPS, **values})
        write_run(folder, name, config, lines)
        if samples:
            draw_strips(folder / "runs" / name / "samples", len(captions), rng)
    return folder


def write_sampling(
    folder: Path, score: Callable[[int, int], float], depths=(1, 2, 3, 4, 5, 6), steps=(5, 10, 20, 50), **more
) -> Path:
    """A study of sampling steps; score(depth, steps). The path is 20 - depth long at 50 steps."""
    c = tiny()
    c.workdir = str(folder)
    c.study.name = "How few steps?"
    c.training.update(steps=STEPS, batch=8)
    configs.axes(c, {"model.depth": tuple(depths)})
    for name, config in begin(folder, c, "sampling"):
        d = config.model.depth
        lines = [
            score_line(weights, k, 5.0, score(d, k), 1 + d / k, path_length=20.0 - d - 1 / k) | more
            for weights in ("raw", "ema")
            for k in steps
        ]
        write_run(folder, name, config, [*finished(d), *lines])
    return folder


PACE = {"dit": 1.0, "uvit": 1.3, "crossdit": 1.7, "mmdit": 2.4, "mmdit3": 2.6}  # how many times fewer steps than DiT
COST = {"dit": 1.0, "uvit": 1.1, "crossdit": 1.2, "mmdit": 1.0, "mmdit3": 1.25}  # FLOPs a step, over DiT's


def write_architectures(
    folder: Path,
    pace: dict[str, float] = PACE,
    seeds: Iterable[int] = (0, 1, 2),
    scores: bool = True,
    samples: bool = False,
    luck: float = 0.05,
    **changes: dict,
) -> Path:
    """Backbones by seed: loss = 0.2 + (pace x luck of the seed x step)^-0.5, score = 1 - loss, distance = loss^3.

    changes: sections of the config, such as optimizer={"decay": "cosine"}.
    """
    c = tiny()
    c.workdir = str(folder)
    c.study.update(name="Which backbone?", weights="ema")
    c.training.update(steps=STEPS, batch=8)
    for section, values in changes.items():
        c[section].update(values)
    configs.axes(c, {"training.seed": tuple(seeds)})
    runs = [(name, backbone, config) for backbone in pace for name, config in begin(folder, c, "architectures")]
    study = json.loads((folder / "study.json").read_text())
    study["runs"] = [f"{backbone}-{name}" for name, backbone, _ in runs]
    (folder / "study.json").write_text(json.dumps(study))
    rng = np.random.default_rng(0)
    for name, backbone, config in runs:
        plain = config.to_dict()  # any name may stand here, also of a backbone that there is not
        plain["model"]["backbone"] = backbone
        parameters = int(1000 * COST.get(backbone, 1.0))
        size = {"parameters": parameters, "without_modulation": parameters, "active_per_token": parameters}
        size |= {"forward_flops": 2 * parameters, "train_flops": 6 * parameters}
        lines = [{"kind": "start", "step": 0, "size": size, "steps": STEPS, "device": "cpu"}]
        fast = pace[backbone] * np.exp(luck * rng.normal())
        for step in range(4, STEPS + 1, 4):
            done = {"step": step, "examples": 8 * step, "flops": 48 * step * parameters, "seconds": 0.1 * step}
            loss = 0.2 + (fast * step) ** -0.5
            lines.append({"kind": "train", **done, "loss": loss, "grad_norm": 1.0, "learning_rate": 1e-3})
            values = {"grid": "k/8", "loss": loss, "stderr": 0.01, "levels": [loss] * 8}
            for weights in ("raw", "ema"):
                lines.append({"kind": "validation", **done, "weights": weights, **values})
                if scores and (weights == "ema" or step == STEPS):  # as with sampling.along
                    lines.append(score_line(weights, 10, 3.0, 1 - loss, 100 * loss**3, step=step))
        if samples:
            captions = ["a red circle", "two blue squares", "a cross and a triangle", "three"]
            lines.append({"kind": "samples", "step": STEPS, "captions": captions, "sampler": "euler", "steps": 10,
                          "guidance": 3.0})  # fmt: skip
        write_run(folder, f"{backbone}-{name}", SimpleNamespace(to_dict=lambda plain=plain: plain), lines)
        if samples:
            draw_strips(folder / "runs" / f"{backbone}-{name}" / "samples", len(captions), rng)
    return folder


def write_repa(folder: Path, faster: float = 2.0, axes: dict | None = None, luck: float = 0.02, **pace: float) -> Path:
    """Vanilla and aligned runs of two depths: loss = 0.2 + (pace x luck of the seed x step)^-0.5.

    Args:
        folder: of the study.
        faster: the pace of every aligned run; vanilla has 1.
        axes: of the study; None: two depths, vanilla and aligned, three seeds.
        luck: standard deviation of the logarithm of a seed's pace, the same for all arms of a seed.
        pace: a part of a run's name -> its pace, in place of `faster`.
    """
    c = tiny()
    c.workdir = str(folder)
    c.study.update(name="Does alignment help?", weights="ema")
    c.training.update(steps=STEPS, batch=8)
    c.alignment.encoders = ("shapes",)
    configs.axes(c, axes or {"model.depth": (2, 3), "alignment.weight": (0.0, 0.5), "training.seed": (0, 1, 2)})
    rng = np.random.default_rng(0)
    lucky = np.exp(luck * rng.normal(size=10))
    for name, config in begin(folder, c, "repa"):
        aligned = config.alignment.active
        fast = next((value for part, value in pace.items() if part in name), faster) if aligned else 1.0
        fast *= lucky[config.training.seed]
        size = {"parameters": 1000, "without_modulation": 1000, "active_per_token": 1000}
        size |= {"forward_flops": 2000, "train_flops": 6000}
        extra = {"projector": 600, "encoder": 2400} if aligned else {"projector": 0, "encoder": 0}
        lines = [{"kind": "start", "step": 0, "size": size, "steps": STEPS, "device": "cpu", "alignment_flops": extra}]
        for step in range(4, STEPS + 1, 4):
            done = {"step": step, "examples": 8 * step, "flops": 48000 * step, "seconds": 0.1 * step}
            loss = 0.2 + (fast * step) ** -0.5
            lines.append({"kind": "train", **done, "loss": loss, "grad_norm": 1.0, "learning_rate": 1e-3})
            values = {"grid": "k/8", "loss": loss, "stderr": 0.01, "levels": [loss] * 8}
            for weights in ("raw", "ema"):
                lines.append({"kind": "validation", **done, "weights": weights, **values})
            lines.append(score_line("ema", 10, 3.0, 1 - loss, 100 * loss**3, step=step))
            shown = {"setting": "t=0.5", "t": 0.5, "count": 64, "k": 10, "variant": "reference"}
            blocks = [0.5 * (1 - loss), 1 - loss]
            lines.append(
                {"kind": "representations", **done, "weights": "ema", **shown, "cknna": {"shapes": blocks},
                 "accuracy": blocks, "classes": 32, "probe": "logistic", "trained_on": 64}
            )  # fmt: skip
        write_run(folder, name, config, lines)
    return folder


def draw_strips(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Pictures of data, raw and averaged weights, as a run leaves them."""
    folder.mkdir()
    for kind in ("data", "raw", "ema"):
        strip = rng.integers(0, 255, (16, 16 * count, 3), dtype=np.uint8)
        Image.fromarray(strip).save(folder / f"{kind}_tiles.png")
