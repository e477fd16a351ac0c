"""Every launch script: what it says about itself, and what it would run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
ROOT = LAUNCH.parent
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh") if path.name != "common.sh")
CONFIG = "--config=configs/scaling.py"
HANG = "--config.recovery.hang_exits=True"
NEEDED = {
    "tpu_pod.sh": {"NAME": "pod", "ZONE": "zone", "TYPE": "v6e-64", "VERSION": "v6e-ubuntu-2404"},
    "gke_xpk.sh": {"CLUSTER": "cluster", "TPU_TYPE": "v5litepod-256", "IMAGE": "image"},
}
FIRST = {"local.sh": ["2"], "slurm_task.sh": ["python", "d1,d2"]}
WORKDIR = "--config.workdir=/shared/study"


def test_shellcheck_passes():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "-x", *LAUNCH.glob("*.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_first_lines_say_what_it_needs_the_command_and_what_a_preemption_does(script, fakes):
    text = (LAUNCH / script).read_text()
    lines = text.splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert os.access(LAUNCH / script, os.X_OK)
    assert all(len(line) <= 120 for line in lines)
    for word in ("# Needs: ", "# Command: ", "# Settings: ", "# Preemption: ", f"launch/{script} [--dry-run] "):
        assert word in text
    asked, given_nothing = fakes.run(script, "--help"), fakes.run(script)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert (given_nothing.returncode, given_nothing.stdout) == (2, "")
    assert asked.stdout == given_nothing.stderr
    assert asked.stdout.count("\n") == lines.index("set -euo pipefail") - 1
    assert fakes.calls() == []


def ssh(command: str) -> list[str]:
    return ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=zone", "--worker=all", f"--command={command}"]


DRY = {
    "local.sh": lambda python, here: [
        ["env", "JAX_PLATFORMS=cpu", "RFJAX_COORDINATOR=127.0.0.1:9876", "RFJAX_PROCESSES=2", f"RFJAX_PROCESS={i}",
         "XLA_FLAGS=--a=1 --xla_force_host_platform_device_count=3", python, "-m", "rfjax.main", CONFIG, WORKDIR]
        for i in (0, 1)
    ],
    "gpus.sh": lambda python, here: [[python, "-m", "rfjax.main", CONFIG, WORKDIR, HANG]],
    "slurm.sh": lambda python, here: [
        ["sbatch", "--parsable", f"--chdir={here}", "--open-mode=append", "--partition=long", "--job-name=rfjax",
         "--array=0-2%2", "--output=slurm-%A_%a.out", "--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8",
         "--cpus-per-task=8", "--time=24:00:00", "--requeue", "--signal=TERM@180", f"{LAUNCH}/slurm_task.sh", python,
         "d1,d2,d3", CONFIG, WORKDIR, HANG],
        ["sbatch", "--parsable", f"--chdir={here}", "--open-mode=append", "--partition=long", "--job-name=rfjax-report",
         "--dependency=afterany:JOB", "--output=slurm-%j.out", "--ntasks=1", "--time=01:00:00",
         f"{LAUNCH}/slurm_task.sh", python, "", CONFIG, WORKDIR, "--config.job=report"],
    ],
    "slurm_task.sh": lambda python, here: [
        ["srun", "--kill-on-bad-exit=0", "--wait=300", "--cpus-per-task=4", "python", "-m", "rfjax.main", CONFIG,
         WORKDIR, "--config.only=d2"],
    ],
    "tpu_pod.sh": lambda python, here: [
        ["gcloud", "compute", "tpus", "tpu-vm", "describe", "pod", "--zone=zone", "--format=value(state)"],
        ["gcloud", "compute", "tpus", "tpu-vm", "create", "pod", "--zone=zone", "--accelerator-type=v6e-64",
         "--version=v6e-ubuntu-2404", "--spot"],
        ssh("sudo mount share:/a /shared"),
        ["tar", "-czf", "rfjax.tgz", "-C", str(ROOT), "--exclude=__pycache__", "README.md", "setup.py",
         "pyproject.toml", "constraints.txt", "configs", "rfjax"],
        ["gcloud", "compute", "tpus", "tpu-vm", "scp", "rfjax.tgz", "pod:rfjax.tgz", "--zone=zone", "--worker=all"],
        ssh("mkdir -p rfjax && tar -xzf rfjax.tgz -C rfjax && cd rfjax && python3 -m venv .venv && "
            ".venv/bin/pip install --quiet -c constraints.txt -e '.[tpu,buckets]'"),
        ssh("cd rfjax && flock --timeout 600 --conflict-exit-code 75 run.lock .venv/bin/python -m rfjax.main "
            f"{CONFIG} {WORKDIR} {HANG} --config.cluster.join=always"),
    ],
    "gke_xpk.sh": lambda python, here: [
        ["xpk", "workload", "create", "--workload=rfjax", "--cluster=cluster", "--tpu-type=v5litepod-256",
         "--num-slices=1", "--docker-image=image", "--storage=disk", "--priority=medium", "--max-restarts=100",
         "--restart-on-exit-codes=70,75", "--termination-grace-period-seconds=120",
         f"--command=exec python -m rfjax.main {CONFIG} {WORKDIR} {HANG}"],
    ],
}  # fmt: skip
SETTINGS = {
    "local.sh": {"PORT": "9876", "DEVICES_PER_PROCESS": "3", "XLA_FLAGS": "--a=1"},
    "slurm.sh": {"PARTITION": "long", "NODES": "4", "AT_ONCE": "2"},
    "slurm_task.sh": {"SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "4"},
    "tpu_pod.sh": {"SETUP": "sudo mount share:/a /shared"},
    "gke_xpk.sh": {"STORAGE": "disk"},
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_prints_the_commands_and_runs_none(script, fakes):
    settings = NEEDED.get(script, {}) | SETTINGS.get(script, {})
    done = fakes.run(script, "--dry-run", *FIRST.get(script, []), CONFIG, WORKDIR, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    printed = [shlex.split(line) for line in done.stdout.splitlines()]
    assert printed == DRY[script](fakes.environ()["PYTHON"], str(fakes.folder))
    assert fakes.calls() == []


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "slurm_task.sh"])
def test_what_rfjax_refuses_is_refused_before_anything_is_started(script, fakes):
    words = [*FIRST.get(script, []), CONFIG, WORKDIR, "--config.bad=1"]
    for dry in ([], ["--dry-run"]):
        done = fakes.run(script, *dry, *words, **NEEDED.get(script, {}))
        assert (done.returncode, done.stderr) == (2, "rfjax: bad\n")
    assert fakes.calls() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config.only=d9"], "there is no run 'd9' (did you mean 'd3'?)"),
        (["--config.model.dept=1"], "no key 'model.dept' (did you mean 'model.depth'?)"),
    ],
)
def test_rfjax_itself_is_asked(fakes, words, said):
    config = f"--config={ROOT / 'configs' / 'scaling.py'}:fashion_mnist"
    axes = "--config.study.axes.model.depth=(1,3)"
    done = fakes.run("slurm.sh", "--dry-run", config, axes, *words, PYTHON=sys.executable, PYTHONPATH=str(ROOT))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_array_has_the_names_of_the_runs(fakes):
    config = f"--config={ROOT / 'configs' / 'scaling.py'}:fashion_mnist"
    axes = "--config.study.axes.model.depth=(1,3)"
    done = fakes.run("slurm.sh", "--dry-run", config, axes, PYTHON=sys.executable, PYTHONPATH=str(ROOT))
    words = shlex.split(done.stdout.splitlines()[0])
    assert "--array=0-1" in words
    assert words[words.index(sys.executable) + 1] == "d1,d3"


@pytest.mark.parametrize(
    ("script", "words", "settings", "said"),
    [
        ("local.sh", ["two", CONFIG], {}, "the first argument must be the number of processes"),
        ("tpu_pod.sh", [CONFIG, WORKDIR], {"NAME": "pod", "ZONE": "zone"}, "set TYPE, the accelerator type: TYPE=..."),
        ("tpu_pod.sh", [CONFIG], NEEDED["tpu_pod.sh"], "name a bucket or a folder that all workers see: --config."),
        ("tpu_pod.sh", [CONFIG, "--config.workdir=az://b"], NEEDED["tpu_pod.sh"], "name a bucket or a folder that all"),
        ("gke_xpk.sh", [CONFIG, "--config.workdir=x"], NEEDED["gke_xpk.sh"], "name a bucket or a folder that all pods"),
        ("gke_xpk.sh", [CONFIG, WORKDIR], {}, "set CLUSTER, the name of the cluster: CLUSTER=..."),
        ("gke_xpk.sh", [CONFIG, WORKDIR], NEEDED["gke_xpk.sh"] | {"WORKLOAD": "A"}, "WORKLOAD=A must have at most 40"),
        ("gke_xpk.sh", [CONFIG, WORKDIR, "--config.study.name=a\nb"], NEEDED["gke_xpk.sh"], "can't have line breaks"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(script, words, settings, said, fakes):
    done = fakes.run(script, *words, **settings)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script}: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert fakes.calls() == []


BAD = ("x", "-1", "99999999999", "two words", "a[$(touch hit)]")  # bash's arithmetic would run the last
ANY_TEXT = {"SETUP", "INSTALL", "XLA_FLAGS"}  # commands, and flags of XLA's
THE_SHELL_S = {"BASH_SOURCE", "SECONDS", "RANDOM", "PWD"}
TASK = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "7"}


def settings_of(script: str) -> list[str]:
    """Every variable of the environment that a script or what it sources reads."""
    text = (LAUNCH / script).read_text() + ("" if script == "slurm_task.sh" else (LAUNCH / "common.sh").read_text())
    read = re.findall(r"\$\{?!?([A-Z][A-Z_]+)", text)
    checked = re.findall(r"^(?:need|whole|word|for name in) ([A-Z][A-Z_ ]+)", text, re.MULTILINE)
    return sorted({*read, *" ".join(checked).split()} - ANY_TEXT - THE_SHELL_S)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_bad_setting_is_one_sentence_before_anything_is_started(script, fakes):
    """All settings, none by a list that could forget one; values that a command could take for an option, or run."""
    good = NEEDED.get(script, {}) | (TASK if script == "slurm_task.sh" else {})
    words = [*FIRST.get(script, []), CONFIG, WORKDIR]
    names = settings_of(script)
    named = set(" ".join(re.findall(r"^word (.+)", (LAUNCH / script).read_text(), re.MULTILINE)).split())
    assert len(names) >= 4
    for name in names:
        for bad in BAD:
            done = fakes.run(script, "--dry-run", *words, **good | {name: bad})
            case = (name, bad, done.stderr)
            if (name, bad) == ("WORKLOAD", "x") or (
                name in named and bad in ("x", "99999999999")
            ):  # one word may be a name
                assert (done.returncode, done.stderr) == (0, ""), case
            else:
                assert (done.returncode, done.stderr.count("\n")) == (2, 1), case
                assert done.stderr.startswith(f"{script}: {name}="), case
    assert not (fakes.folder / "hit").exists()
    assert fakes.calls() == []


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        ("local.sh", {"PORT": "99999"}),
        ("local.sh", {"PORT": "0"}),
        ("local.sh", {"DEVICES_PER_PROCESS": "08"}),
        ("slurm.sh", {"GPUS": "x"}),
        ("slurm.sh", {"TIME": "soon"}),
        ("slurm.sh", {"WARNING": "70000"}),
        ("tpu_pod.sh", {"SPOT": "yes"}),
        ("gke_xpk.sh", {"PRIORITY": "urgent"}),
        ("gpus.sh", {"PYTHON": "/nowhere/python"}),
    ],
)
def test_what_is_out_of_range_is_refused_in_earnest_too(script, settings, fakes):
    fakes.program("nvidia-smi")
    done = fakes.run(script, *FIRST.get(script, []), CONFIG, WORKDIR, **NEEDED.get(script, {}) | settings)
    ((name, value),) = settings.items()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{script}: ") and name in done.stderr and value in done.stderr
    assert fakes.calls() == []


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (["python"], TASK, "the arguments must be Python, the names of the runs and --config=FILE"),
        (["python", "d1,d2", CONFIG], {}, "SLURM_ARRAY_TASK_ID, the run's index, is not set"),
        (["python", "d1,d2", CONFIG], TASK | {"SLURM_ARRAY_TASK_ID": "2"}, "is not one of the 2 runs, 0 to 1"),
    ],
)
def test_a_task_outside_of_its_array_says_so(words, settings, said, fakes):
    for dry in ([], ["--dry-run"]):
        done = fakes.run("slurm_task.sh", *dry, *words, **settings)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr
    assert fakes.calls() == []


def test_times_as_slurm_writes_them(fakes):
    for time in ("90", "30:00", "24:00:00", "2-00", "2-00:30", "1-02:03:04"):
        assert f"--time={time}" in fakes.run("slurm.sh", "--dry-run", CONFIG, TIME=time).stdout


def test_a_python_without_the_project_is_one_sentence(fakes):
    bare = fakes.program("bare", f'exec {sys.executable} -I -S "$@"')
    done = fakes.run("slurm.sh", CONFIG, PYTHON=str(bare))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("rfjax: ") and "No module named" in done.stderr and "PYTHON=..." in done.stderr


ODD = '--config.study.name=it\'s "one" $HOME; * \\ name'


def test_odd_words_survive(fakes):
    """Through sbatch, srun, the shell of a TPU's worker and that of a pod."""
    fakes.program("sbatch", 'echo "12;north"')
    fakes.run("slurm.sh", CONFIG, ODD)
    array, report = fakes.calls()
    assert array[-3:] == [CONFIG, ODD, HANG]
    assert report[-3:] == [CONFIG, ODD, "--config.job=report"]
    assert "--dependency=afterany:12" in report

    fakes.program("srun")
    fakes.run("slurm_task.sh", *array[array.index(fakes.environ()["PYTHON"]) :], SLURM_ARRAY_TASK_ID="2")
    assert fakes.calls()[-1][-4:] == [CONFIG, ODD, HANG, "--config.only=d3"]

    fakes.program("xpk")
    fakes.run("gke_xpk.sh", CONFIG, WORKDIR, ODD, **NEEDED["gke_xpk.sh"])
    command = fakes.calls()[-1][-1].removeprefix("--command=")
    assert printed_by_a_shell(command)[-4:-1] == [WORKDIR, ODD, HANG]

    done = fakes.run("tpu_pod.sh", "--dry-run", CONFIG, WORKDIR, ODD, **NEEDED["tpu_pod.sh"])
    command = shlex.split(done.stdout.splitlines()[-1])[-1].removeprefix("--command=cd rfjax && ")
    assert printed_by_a_shell(command)[-4:-2] == [ODD, HANG]


def printed_by_a_shell(command: str) -> list[str]:
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")


def test_what_a_suite_in_the_background_starts_hears_signals():
    """`suite &` in a shell script ignores SIGINT, and so would every script and process that a test starts."""
    listens = ["bash", "-c", "trap 'echo heard' INT; kill -s INT $$"]
    for hear, heard in (("", ""), ("import launch_waiting; launch_waiting.hear_signals()", "heard\n")):
        code = f"import subprocess; {hear}\nsubprocess.run({listens!r}, check=True)"
        ignores = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", sys.executable, "-c", code]
        done = subprocess.run(ignores, cwd=ROOT / "tests", capture_output=True, text=True, check=True)
        assert done.stdout == heard
