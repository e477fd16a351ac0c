"""What a kill leaves where nothing is left to do but to tidy up, as found by `make kills`."""

import subprocess
import sys
from pathlib import Path

from rfjax import config as configs
from rfjax.jsonl import write_json
from rfjax.study import folder, locks, records
from rfjax.training.stop import Stop


def finished(tmp_path: Path, config: configs.Config) -> Path:
    """The folder of a run that has its result, and a lock whose process was killed after it had written that."""
    run = tmp_path / "runs" / "d1"
    write_json(run / "result.json", {"name": "d1"})
    code = f"from pathlib import Path; from rfjax.study import locks; locks.take(Path({str(run)!r}), 5)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
    assert (run / locks.NAME).exists()
    return run


def test_the_lock_of_a_process_that_was_killed_right_after_its_result_is_removed(tiny_config, tmp_path):
    config = configs.parse(tiny_config)
    run = finished(tmp_path, config)
    with folder.claim(run, config, lambda: True, Stop(), print) as claimed:
        assert claimed.turn.name == "COMPLETE"
        assert claimed.lock is None
    assert [path.name for path in run.iterdir()] == ["result.json"]


def test_a_complete_run_whose_lock_another_still_has_is_complete(tiny_config, tmp_path):
    config = configs.parse(tiny_config)
    write_json(tmp_path / "result.json", {})
    with locks.take(tmp_path, 5) as lock:
        with folder.claim(tmp_path, config, lambda: True, Stop(), print) as claimed:
            assert claimed.turn.name == "COMPLETE"
        assert not lock.lost.is_set()
        assert (tmp_path / locks.NAME).exists()


def test_a_run_that_failed_and_then_was_finished_has_not_failed(tmp_path):
    (tmp_path / "failure.txt").write_text("a cosmic ray\n\nTraceback")
    assert records.failure(tmp_path) == "a cosmic ray"
    write_json(tmp_path / "result.json", {"status": "complete"})  # the kill came before failure.txt was removed
    assert records.failure(tmp_path) == ""
