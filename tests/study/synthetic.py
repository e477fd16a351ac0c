"""Study folders as a run would leave them, from a known law, without training."""

import json
from pathlib import Path

import numpy as np
from tiny import tiny

from rfjax import config as configs

E, A, ALPHA, STEPS = 0.25, 30.0, 0.5, 40


def write_study(folder: Path, depths=(1, 2, 3, 4, 5, 6), noise=0.0, axes=None, **study) -> Path:
    """Losses E + A N^-alpha (1 + noise), N = 1e4 d^3, with curves, levels and paired examples."""
    c = tiny()
    c.workdir = str(folder)
    c.study.update(study)
    c.training.update(steps=STEPS, batch=8)
    configs.axes(c, axes or {"model.depth": depths})
    runs = configs.runs(configs.parse(c))
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    known = {"config": configs.parse(c).to_dict(), "runs": [name for name, _ in runs], "command": "make study"}
    known |= {
        "commit": "abc",
        "date": "today",
        "python": "3",
        "versions": {"jax": "0"},
        "devices": "1 x cpu",
        "machine": "m",
    }
    (folder / "study.json").write_text(json.dumps(known))
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
                    levels = list(loss + 0.1 * np.arange(8) - 0.35)
                    values = {"grid": "k/8", "loss": loss, "stderr": 0.01, "levels": levels}
                    lines.append({"kind": "validation", **done, "weights": weights, **values})
        for weights in ("raw", "ema"):
            losses = final + shared + rng.normal(size=64) * 1e-3
            lines.append({"kind": "examples", "step": STEPS, "weights": weights, "grid": "k/8", "losses": list(losses)})
        run = folder / "runs" / name
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps(config.to_dict()))
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder
