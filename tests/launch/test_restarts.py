"""What each exit code makes the launchers do: start again, make a new machine, requeue, or stop."""

import signal

import pytest
from launch_waiting import wait_for

CONFIG = "--config=configs/scaling.py"
WORKDIR = "--config.workdir=/shared/study"
POD = {"NAME": "pod", "ZONE": "zone", "TYPE": "v6e-64", "VERSION": "v6e-ubuntu-2404"}

# A TPU service with one VM, whose state is in a file. Each start of rfjax takes a line of the plan: its exit code, and
# the VM's state from then on. Whether workers answer is the last line's third word.
GCLOUD = """
cd "$HOME"
touch state plan
case $4 in
  describe) [[ -s state ]] && cat state ;;
  create)
    read -r code <creations && sed -i 1d creations
    [[ ${code:-0} == 0 ]] && echo READY >state
    exit "${code:-0}" ;;
  delete) : >state ;;
  ssh)
    case "${!#}" in
      *rfjax.main*--config=*)
        read -r code after <plan
        sed -i 1d plan
        if [[ $after == gone ]]; then : >state; elif [[ $after ]]; then echo "$after" >state; fi
        if [[ $code == wait ]]; then touch waiting; while [[ ! -e told ]]; do sleep 0.05; done; code=$(cat told); fi
        exit "$code" ;;
      *=true) exit "$(cat answers 2>/dev/null || echo 0)" ;;
      *pkill*INT*) echo 130 >told ;;
      *pkill*TERM*) echo 75 >told ;;
    esac ;;
esac
"""
NEW = ["create", "tar", "scp", "install"]


def steps(fakes) -> list[str]:
    """What was done to the VM, in order, without the questions after its state."""
    names = []
    for call in fakes.calls():
        verb, last = (call[0], "") if call[0] != "gcloud" else (call[4], call[-1])
        if verb == "ssh":
            kinds = {"pip install": "install", "-m rfjax.main --config": "train", "pkill": "stop", "=true": "ask"}
            verb = next(kind for words, kind in kinds.items() if words in last)
        if verb != "describe":
            names.append(verb)
    return names


def pod(fakes, plan: str, *, state: str = "", creations: str = "", **settings: str):
    fakes.program("gcloud", GCLOUD)
    fakes.program("tar")
    (fakes.folder / "plan").write_text(plan)
    (fakes.folder / "state").write_text(state)
    (fakes.folder / "creations").write_text(creations)
    return POD | settings


@pytest.mark.parametrize(
    ("plan", "state", "code", "expected"),
    [
        ("0\n", "", 0, [*NEW, "train"]),
        ("0\n", "READY", 0, [*NEW[1:], "train"]),
        ("0\n", "PREEMPTED", 0, ["delete", *NEW, "train"]),
        ("75\n70\n134\n0\n", "", 0, [*NEW, "train", "train", "train", "train"]),
        ("255 PREEMPTED\n0\n", "", 0, [*NEW, "train", "delete", *NEW, "train"]),
        ("1 TERMINATED\n0\n", "", 0, [*NEW, "train", "delete", *NEW, "train"]),
        ("255 gone\n2\n", "", 2, [*NEW, "train", *NEW, "train"]),
        ("2\n0\n", "", 2, [*NEW, "train"]),
        ("1\n0\n", "", 1, [*NEW, "train"]),
        ("130\n0\n", "", 130, [*NEW, "train"]),
        ("0\n", "STOPPED", 2, []),
    ],
)
def test_a_pod_is_made_anew_or_started_again(fakes, plan, state, code, expected):
    settings = pod(fakes, plan, state=state)
    done = fakes.run("tpu_pod.sh", CONFIG, WORKDIR, **settings)
    assert done.returncode == code, done.stderr
    assert steps(fakes) == expected
    assert "gcloud compute tpus tpu-vm delete pod --zone=zone" in done.stderr  # how to stop paying


def test_a_pod_that_is_not_to_be_had_is_asked_for_again(fakes):
    settings = pod(fakes, "0\n", creations="1\n1\n")
    assert fakes.run("tpu_pod.sh", CONFIG, WORKDIR, **settings).returncode == 0
    assert steps(fakes) == ["create", "create", *NEW, "train"]


def test_a_pod_whose_workers_do_not_answer_is_made_anew(fakes):
    settings = pod(fakes, "255\n0\n")
    (fakes.folder / "answers").write_text("255")
    assert fakes.run("tpu_pod.sh", CONFIG, WORKDIR, **settings).returncode == 0
    assert steps(fakes) == [*NEW, "train", "ask", "delete", *NEW, "train"]


def test_starts_are_counted(fakes):
    settings = pod(fakes, "75\n75\n75\n75\n")
    done = fakes.run("tpu_pod.sh", CONFIG, WORKDIR, RESTARTS="2", **settings)
    assert done.returncode == 75
    assert steps(fakes).count("train") == 3
    assert "tpu_pod.sh: exit code 75; start 2 of 2 again in 0 seconds" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_workers_and_ends_the_script(fakes, number, code):
    settings = pod(fakes, "wait\n0\n")
    script = fakes.start("tpu_pod.sh", CONFIG, WORKDIR, **settings)
    wait_for(fakes.folder / "waiting")
    script.send_signal(number)
    assert script.wait(timeout=20) == code
    assert steps(fakes) == [*NEW, "train", "stop"]


@pytest.mark.parametrize(
    ("code", "starts", "requeued"),
    [(75, "", True), (70, "3", True), (137, "", True), (75, "100", False),
     (0, "", False), (1, "", False), (2, "", False), (130, "", False)],
)  # fmt: skip
def test_a_slurm_run_requeues_itself(fakes, code, starts, requeued):
    fakes.program("srun", f"exit {code}")
    fakes.program("scontrol")
    settings = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "77"} | ({"SLURM_RESTART_COUNT": starts} if starts else {})
    done = fakes.run("slurm_task.sh", "python", "d1,d2", CONFIG, **settings)
    assert done.returncode == code
    step, *after = fakes.calls()
    assert step[-5:] == ["python", "-m", "rfjax.main", CONFIG, "--config.only=d1"]
    assert after == ([["scontrol", "requeue", "Incomplete", "77"]] if requeued else [])


def test_a_slurm_script_outlives_sigterm_and_leaves_it_to_the_step(fakes):
    fakes.program("srun", 'trap "touch $HOME/hit; exit 1" TERM; touch $HOME/waiting; sleep 1 & wait; exit 75')
    fakes.program("scontrol")
    script = fakes.start("slurm_task.sh", "python", "", CONFIG, "--config.job=report", SLURM_JOB_ID="77")
    wait_for(fakes.folder / "waiting")
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=20) == 75
    assert not (fakes.folder / "hit").exists()
    assert [call[0] for call in fakes.calls()] == ["srun", "scontrol"]


def test_only_one_run_is_submitted_where_one_was_asked_for(fakes):
    fakes.program("sbatch", "echo 12")
    done = fakes.run("slurm.sh", CONFIG, "--config.only=d2")
    assert (done.returncode, done.stdout) == (0, "12\n")
    assert len(fakes.calls()) == 1


def test_a_cluster_without_gpus_is_not_asked_for_any(fakes):
    fakes.program("sbatch", "echo 12")
    fakes.run("slurm.sh", CONFIG, GPUS="0", NODES="2")
    assert {"--nodes=2", "--ntasks-per-node=1"} <= set(fakes.calls()[0])
    assert not any(word.startswith("--gpus") for word in fakes.calls()[0])


def test_a_refused_job_has_no_report(fakes):
    fakes.program("sbatch", "exit 1")
    assert fakes.run("slurm.sh", CONFIG).returncode == 1
    assert len(fakes.calls()) == 1


COUNTED = 'n=$(cat "$HOME/n" 2>/dev/null || echo 0); echo $((n + 1)) >"$HOME/n"; codes=({codes}); exit "${codes[$n]}"'


@pytest.mark.parametrize(("codes", "code", "starts"), [("75 70 137 0", 0, 4), ("75 2 0", 2, 2), ("1 0", 1, 1)])
def test_gpus_starts_again(fakes, codes, code, starts):
    fakes.program("nvidia-smi")
    fakes.python(COUNTED.replace("{codes}", codes))
    assert fakes.run("gpus.sh", CONFIG).returncode == code
    assert len(fakes.calls()) == starts


def test_gpus_without_a_gpu_says_so(fakes):
    (fakes.folder / "bin" / "nvidia-smi").unlink()
    done = fakes.run("gpus.sh", CONFIG, PATH=f"{fakes.folder / 'bin'}:/usr/bin:/bin")
    assert (done.returncode, done.stderr) == (2, "gpus.sh: there is no nvidia-smi here: launch/local.sh runs on CPUs\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_gpus_hands_a_signal_on_and_does_not_start_again(fakes, number, code):
    fakes.program("nvidia-smi")
    fakes.python('trap "exit 75" TERM; trap "exit 130" INT; touch "$HOME/waiting"; while true; do sleep 0.05; done')
    script = fakes.start("gpus.sh", CONFIG)
    wait_for(fakes.folder / "waiting")
    script.send_signal(number)
    assert script.wait(timeout=20) == code
    assert len(fakes.calls()) == 1
