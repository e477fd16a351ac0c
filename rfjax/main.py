"""rfjax: rectified-flow transformers, from one config to a scaling law.

Usage:
  python -m rfjax.main --config=FILE[:VARIANT] [--config.KEY=VALUE ...]

Examples:
  python -m rfjax.main --config=configs/scaling.py                        the scaling study, ready in minutes
  python -m rfjax.main --config=configs/scaling.py --config.only=d3       one run of it (a cluster runs each as a job)
  python -m rfjax.main --config=configs/scaling.py --config.job=report    the report again, from the run folders alone
  python -m rfjax.main --config=configs/scaling.py --config.job=plan      what it needs on a machine, without one
  python -m rfjax.main --config=configs/sample.py                         pictures from one of its models
  python -m rfjax.main --config=configs/scaling.py --help                 every key of that config, with its meaning

A study that was stopped goes on with the same command. Exit codes (rfjax.errors.Exit):
  0    done
  1    a run failed
  2    a mistake that the message says how to mend
  70   hung: no progress for config.recovery.hang_seconds; start it again
  75   preempted: it saved a checkpoint; start it again
  130  stopped by Ctrl-C, after saving a checkpoint
"""

import os
import shlex
import sys
import time
from pathlib import Path

STARTED = time.time()

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from rfjax import config as configs  # noqa: E402
from rfjax import memory  # noqa: E402
from rfjax.errors import Exit, UserError, nearest, printable  # noqa: E402


def read_flags(arguments: list[str]) -> configs.Config:
    """Reads --config and its overrides, and checks the result.

    Raises:
        UserError: for a missing file, an unknown key or a wrong type, with the nearest right thing.
    """
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", None, "path of a config file", flag_values=values)
    file = next((a.split("=", 1)[1] for a in arguments if a.startswith("--config=")), None)
    if file is None:
        raise UserError(f"say which config to run: --config=FILE{nearest('', _known())}")
    path = Path(file.split(":")[0])
    if not path.is_file():
        raise UserError(f"there is no config file {path}{nearest(str(path), _known())}")
    given, sys.argv = sys.argv, [sys.argv[0], *arguments]  # ml_collections looks for overrides there
    try:
        rest = values(sys.argv)[1:]
        loaded = holder.value
    except UserError:
        raise
    except Exception as error:  # absl and ml_collections raise many kinds
        raise UserError(_explain(error, arguments)) from error
    finally:
        sys.argv = given
    if rest:
        raise UserError(f"what does '{rest[0]}' mean? Settings are written --config.KEY=VALUE")
    return configs.parse(loaded)


def _known() -> list[str]:
    return [str(path) for path in sorted(Path("configs").glob("*.py"))]


def _explain(error: Exception, arguments: list[str]) -> str:
    """One sentence for what absl or ml_collections refused."""
    keys = [path for path, *_ in configs.entries()]
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0].removeprefix("config.")
        if argument.startswith("--config.") and name not in keys and not name.startswith("study.axes."):
            return f"the config has no key '{name}'{nearest(name, keys)}"
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def help_text(arguments: list[str]) -> str:
    """The usage; with --config, also every key of that config."""
    kept = [a for a in arguments if a.startswith("--config=")]
    if not kept:
        return f"{__doc__}\nConfigs here: {', '.join(_known()) or 'none: run from the project folder'}"
    return f"{__doc__}\nKeys:\n{configs.describe(read_flags(kept).to_dict())}"


def _virtual_devices(count: int) -> None:
    """Lets JAX, which must not have started yet, see this many CPU devices."""
    flag = "--xla_force_host_platform_device_count"
    others = [word for word in os.environ.get("XLA_FLAGS", "").split() if not word.startswith(flag)]
    os.environ["XLA_FLAGS"] = " ".join([*others, f"{flag}={count}"])
    os.environ["JAX_PLATFORMS"] = "cpu"


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    if any(word in ("--help", "-h", "--helpfull", "help") for word in arguments):
        print(help_text(arguments))
        return Exit.DONE
    config = read_flags(arguments)
    if config.job == "report":
        from rfjax.study import reports  # no JAX here

        drawn = reports.draw(Path(config.workdir))
        print(reports.summary(drawn, reports.write(drawn)))
        return Exit.DONE
    if config.job == "plan":
        _virtual_devices(config.plan.devices)
        from rfjax.planning import job

        return job.run(config, STARTED)
    memory.keep()
    import jax

    from rfjax.training import cluster

    joined = cluster.join(config.cluster)
    from rfjax.study import gallery, resampling, runner
    from rfjax.training.stop import Interrupted

    try:
        study = resampling.run_study if config.study.report == "sampling" else runner.run_study
        return (gallery.run if config.job == "sample" else study)(config, STARTED)
    except (Interrupted, KeyboardInterrupt) as stopped:
        again = f"python -m rfjax.main {shlex.join(arguments)}"
        print(
            f"\n{str(stopped) or 'stopped at once'}; nothing is lost, the same command goes on:\n  {again}",
            file=sys.stderr,
        )
        return stopped.code if isinstance(stopped, Interrupted) else Exit.INTERRUPTED
    finally:
        if joined:
            jax.distributed.shutdown()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"rfjax: {printable(str(error))}", file=sys.stderr)
        sys.exit(Exit.MISTAKE)
