"""rfjax: rectified-flow transformers, from one config to a scaling law.

Usage:
  python -m rfjax.main --config=FILE[:VARIANT] [--config.KEY=VALUE ...]

Examples:
  python -m rfjax.main --config=configs/scaling.py                        the scaling study, ready in minutes
  python -m rfjax.main --config=configs/scaling.py --config.only=d3       one run of it (a cluster runs each as a job)
  python -m rfjax.main --config=configs/scaling.py --config.job=report    the report again, from the run folders alone
  python -m rfjax.main --config=configs/scaling.py --config.job=plan      what it needs on a machine, without one
  python -m rfjax.main --config=configs/scaling.py --config.job=design --config.design.target=parameters=8e6
                                                                          the ladder that predicts a larger model
  python -m rfjax.main --config=configs/generate.py                         pictures from one of its models
  python -m rfjax.main --config=configs/archive.py                          50,000 of them in one file, for evaluators
  python -m rfjax.main --config=configs/evaluate.py                         FID and its kin of models or pictures
  python -m rfjax.main --config=configs/encode.py                           a data set's latents and text, stored once
  python -m rfjax.main --config=configs/scaling.py --help                 every key of that config, with its meaning

A study that was stopped goes on with the same command. Exit codes (rfjax.errors.Exit):
  0    done
  1    a run failed
  2    a mistake that the message says how to mend
  70   hung: no progress for config.recovery.hang_seconds; start it again
  75   preempted: it saved a checkpoint; start it again
  130  stopped by Ctrl-C, after saving a checkpoint
"""

import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path

STARTED = time.time()

from rfjax import config as configs  # noqa: E402
from rfjax import installed, memory, terminal  # noqa: E402
from rfjax.buckets import mirror  # noqa: E402
from rfjax.errors import Exit, UserError, printable  # noqa: E402
from rfjax.flags import read_flags  # noqa: E402


def help_text(arguments: list[str]) -> str:
    """The usage; with --config, also every key of that config."""
    kept = [a for a in arguments if a.startswith("--config=")]
    if not kept:
        return f"{__doc__}\nConfigs here: {', '.join(installed.known_configs()) or 'none'}"
    return f"{__doc__}\nKeys:\n{configs.describe(read_flags(kept).to_dict())}"


def _virtual_devices(count: int) -> None:
    """Lets JAX, which must not have started yet, see this many CPU devices."""
    flag = "--xla_force_host_platform_device_count"
    others = [word for word in os.environ.get("XLA_FLAGS", "").split() if not word.startswith(flag)]
    os.environ["XLA_FLAGS"] = " ".join([*others, f"{flag}={count}"])
    os.environ["JAX_PLATFORMS"] = "cpu"


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    terminal.print_anything()
    if any(word in ("--help", "-h", "--helpfull", "help") for word in arguments):
        print(help_text(arguments))
        return Exit.DONE
    config = read_flags(arguments)
    with mirror.opened(config.workdir, "config.workdir", writes=True) as folder:
        return _run(dataclasses.replace(config, workdir=folder), arguments)


def _run(config: configs.Config, arguments: list[str]) -> int:
    """Runs a config whose paths are of this machine."""
    if config.job == "report":
        from rfjax.study import reports  # no JAX here

        drawn = reports.build_report(Path(config.workdir), config.data.changed == "allow")
        print(mirror.named(reports.summary(drawn, reports.write_page(drawn))))
        return Exit.DONE
    if config.job == "design":
        from rfjax.planning.chips import CHIPS
        from rfjax.study import design  # no JAX here

        print(mirror.named(design.run(config, CHIPS[config.plan.chip].peak(config.model.precision))))
        return Exit.DONE
    if config.job == "plan":
        _virtual_devices(config.plan.devices)
    else:
        memory.keep()
    try:
        import jax  # it reads its settings from the environment now
    except ValueError as error:
        raise UserError(f"JAX refuses a setting of the environment ({error}): unset or mend it") from error
    from rfjax.training import cluster, environment

    environment.check()
    if config.job == "plan":
        from rfjax.planning import job

        return job.run(config, STARTED)
    joined = cluster.join(config.cluster)
    environment.open_devices()
    from rfjax.study import archive, encode, evaluate, generate, jobs, representations, resampling, runner, suites
    from rfjax.training.stop import Interrupted

    others = {
        "generate": generate,
        "archive": archive,
        "encode": encode,
        "evaluate": evaluate,
        "representations": representations,
        "suite": suites,
    }
    kind = others.get(config.job, resampling if config.study.report == "sampling" else runner)
    try:
        return jobs.run(kind.make_job(config, STARTED))
    except (Interrupted, KeyboardInterrupt) as stopped:
        what, again = str(stopped) or "stopped at once", f"python -m rfjax.main {shlex.join(arguments)}"
        print(f"\n{what}; nothing is lost, the same command goes on:\n  {again}", file=sys.stderr)
        return stopped.code if isinstance(stopped, Interrupted) else Exit.INTERRUPTED
    finally:
        if joined:
            jax.distributed.shutdown()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"rfjax: {printable(mirror.named(str(error)))}", file=sys.stderr)
        sys.exit(Exit.MISTAKE)
