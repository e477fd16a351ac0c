import io
import subprocess
import sys
from pathlib import Path

import pytest

from rfjax import config as configs
from rfjax import main
from rfjax.errors import UserError

ROOT = Path(__file__).parents[1]
SCALING = f"--config={ROOT / 'configs' / 'scaling.py'}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no config is given: add --config=FILE"),
        (["--config=configs/scalling.py"], r"there is no config file configs/scalling.py"),
        ([SCALING + ":fashion"], r"no variant 'fashion' \(did you mean 'fashion_mnist'\?\)"),
        ([SCALING, "--config.model.dept=3"], r"no key 'model.dept' \(did you mean 'model.depth'\?\)"),
        ([SCALING, "--config.trainin.batch=3"], r"did you mean 'training.batch'"),
        ([SCALING, "--config.training.steps=many"], "many"),
        ([SCALING, "--config.model.patch=3"], "not a multiple of config.model.patch"),
        ([SCALING, "--config.study.axes.model.depth=(1,0)"], "config.model.depth = 0 must be from 1 to 1000"),
        ([SCALING, "--config.study.axes.model.depth=()"], "config.study.axes.model.depth has no values"),
        ([SCALING, "--config.study.axes.model.depht=(1,)"], "did you mean 'model.depth'"),
        ([SCALING, "--config.study.axes.model=(1,)"], "config.study.axes.model is not a key"),
        ([SCALING, "--config.study.axes.model.depth.x=(1,)"], "did you mean 'model.depth'"),
        ([SCALING, "--config.study.axes=(1,2)"], "is a section, not a value"),
        ([SCALING, "--config.data=3"], "config.data is a section, not a value"),
        ([SCALING, "--config.study.axes.training.seed=(1,"], "is not a list of values"),
        ([SCALING, "--config.optimizer.learning_rate=inf"], "must be a finite number"),
        ([SCALING, "--config.flow.formulation=rf/lognrm(0,1)"], "did you mean 'rf/lognorm'"),
        (
            [SCALING, "--config.workdir=az://bucket/study"],
            "config.workdir = 'az://bucket/study' has the scheme az://, and rfjax reads and writes gs:// and s3://",
        ),
        (
            [SCALING, "--config.training.start_from=s3://b/run"],
            "config.training.start_from = 's3://b/run' is not written s3://BUCKET/FOLDER",
        ),
        ([SCALING, "--config.workdir=~nobody_here/x"], "begins with ~, but this machine knows no such home folder"),
        ([SCALING, "--steps=3"], "steps"),
        ([SCALING, "steps=3"], "the argument 'steps=3' is not understood"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        config = main.read_flags(arguments)
        from rfjax import flow

        flow.formulation(config.flow.formulation)
    assert "\n" not in str(error.value)


def test_a_mistake_exits_with_2_and_no_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "rfjax.main", "--config=configs/scaling.py", "--config.model.depth=zero"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("rfjax: ")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_flags_reach_the_config():
    arguments = [SCALING, "--config.training.steps=77", "--config.only=d3", "--config.study.axes.model.depth=(1,3)"]
    config = main.read_flags(arguments)
    assert (config.training.steps, config.only) == (77, "d3")
    assert [name for name, _ in configs.runs(config)] == [f"d1-seed{i}" for i in range(3)] + [
        f"d3-seed{i}" for i in range(3)
    ]


def test_a_flag_may_add_an_axis_that_the_file_lacks():
    for seeds in (["--config.study.axes.training.seed=(1,2)"], ["-config.study.axes.training.seed", "[1, 2]"]):
        config = main.read_flags([f"{SCALING}:learning_rate", "--config.study.axes.model.depth=3", *seeds])
        assert {name.rpartition("-")[2] for name, _ in configs.runs(config)} == {"seed1", "seed2"}


def test_a_home_folder_is_written_out_and_a_missing_one_said(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = [SCALING, "--config.workdir=~/study", "--config.study.source=~/a", "--config.generate.source=x:y"]
    config = main.read_flags(words)
    found = (config.workdir, config.study.source, config.generate.source)
    assert found == (str(tmp_path / "study"), str(tmp_path / "a"), "x:y")


def test_help_helps(capsys):
    assert main.main(["--help"]) == 0
    assert "python -m rfjax.main --config=configs/scaling.py" in capsys.readouterr().out
    assert main.main([SCALING, "--help"]) == 0
    out = capsys.readouterr().out
    assert "--config.model.width_per_depth=12" in out
    assert "width per unit of depth" in out


@pytest.mark.parametrize(
    "variant", ["", "fashion_mnist", "learning_rate", "surface", "surface_cosine", "sentences", "pod"]
)
def test_every_variant_is_a_valid_config_with_its_own_folder(variant):
    config = main.read_flags([SCALING + (f":{variant}" if variant else "")])
    assert config.workdir.endswith(variant)
    assert len(configs.runs(config)) >= 5


def test_the_laptop_s_ladder_spans_fifty_times_in_parameters():
    from rfjax.models import measure
    from rfjax.training.spec import make_run_spec

    runs = configs.runs(main.read_flags([SCALING]))
    sizes = [measure(parts.model, parts.inputs).parameters for parts in (make_run_spec(run) for _, run in runs)]
    assert len(sizes) >= 5
    assert sizes[-1] / sizes[0] > 50


def test_what_a_terminal_has_no_letters_for_is_printed_all_the_same(monkeypatch):
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding="ascii", errors="strict"))
    monkeypatch.setattr(main, "help_text", lambda arguments: "0.25 ± 0.01, größe \ud83d")
    assert main.main(["--help"]) == 0
    sys.stdout.flush()
    assert data.getvalue() == b"0.25 \\xb1 0.01, gr\\xf6\\xdfe \\ud83d\n"


@pytest.mark.parametrize(
    "key", ["workdir", "training.start_from", "study.source", "generate.source", "generate.encodings"]
)
def test_a_path_may_begin_at_home(monkeypatch, key):
    monkeypatch.setenv("HOME", "/home/me")
    config = main.read_flags([SCALING, f"--config.{key}=~/work"])
    for name in key.split("."):
        config = getattr(config, name)
    assert config == "/home/me/work"
    with pytest.raises(
        UserError, match=f"config.{key} = '~nobody-here/x' begins with ~, but this machine knows no such"
    ):
        main.read_flags([SCALING, f"--config.{key}=~nobody-here/x"])


@pytest.mark.parametrize(
    "key", ["workdir", "data.path", "data.data_dir", "training.start_from", "text.path", "autoencoder.path"]
)
def test_an_address_is_kept_as_it_is_written_or_refused(key):
    config = main.read_flags([SCALING, f"--config.{key}=gs://bucket/x"])
    for name in key.split("."):
        config = getattr(config, name)
    assert config == "gs://bucket/x"
    with pytest.raises(UserError, match=f"config.{key} = 'az://bucket/x' has the scheme az://"):
        main.read_flags([SCALING, f"--config.{key}=az://bucket/x"])


def test_the_name_that_data_were_given_is_kept():
    assert main.read_flags([SCALING, "--config.data.path=~/pictures"]).data.path == "~/pictures"
