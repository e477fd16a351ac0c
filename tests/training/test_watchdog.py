import subprocess
import sys
import time

from rfjax.config import Recovery
from rfjax.errors import Exit
from rfjax.training.watchdog import Watchdog


def wait_in_here():
    time.sleep(0.6)


def test_a_hang_is_reported_once_with_what_and_where(tmp_path, capsys):
    with Watchdog("d3", tmp_path, Recovery(hang_seconds=0.2)).watching() as watchdog:
        watchdog.beat("at training step 7")
        wait_in_here()
    (report,) = tmp_path.glob("hang.*.txt")
    assert report.read_text().startswith("d3 hangs: no progress for 0.")
    assert "while at training step 7\n" in report.read_text()
    assert "in wait_in_here" in report.read_text()
    said = capsys.readouterr().err
    assert said.count("d3 hangs") == 1
    assert f"{report} says where each thread is" in said


def test_signs_of_progress_and_zero_keep_it_quiet(tmp_path):
    for settings in (Recovery(hang_seconds=0.4), Recovery(hang_seconds=0.0)):
        with Watchdog("d3", tmp_path, settings).watching() as watchdog:
            for step in range(8):
                watchdog.beat(f"at training step {step}")
                time.sleep(0.1)
    assert not list(tmp_path.iterdir())


def test_it_can_end_the_process_with_a_code_that_asks_for_a_new_start(tmp_path):
    code = (
        "import time, pathlib\n"
        "from rfjax.config import Recovery\n"
        "from rfjax.training.watchdog import Watchdog\n"
        f"dog = Watchdog('d3', pathlib.Path({str(tmp_path)!r}), Recovery(hang_seconds=0.1, hang_exits=True))\n"
        "with dog.watching():\n    time.sleep(30)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=25)
    assert done.returncode == Exit.HUNG
    assert "to be started again" in done.stderr
    assert list(tmp_path.glob("hang.*.txt"))
