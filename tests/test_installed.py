"""What a distribution holds, which configs are found from where, and whose commit is said."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from rfjax import installed, main
from rfjax.errors import UserError

ROOT = Path(__file__).parents[1]
SHIPPED = ("configs", "launch", "benchmarks", "docs", "tests", "rfjax")
SINGLE = ("LICENSE", "MANIFEST.in", "Makefile", "README.md", "constraints.txt", "pyproject.toml", "setup.py")
LEFT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "*.png")


def run(*words, cwd, **settings):
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=os.environ | settings, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A copy of the tree, what its wheel would hold (unpacked), and its source distribution's names."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("distribution")
    for name in SHIPPED:
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=LEFT)
    for name in SINGLE:
        shutil.copy(ROOT / name, folder / "tree" / name)
    words = ["setup.py", "-q", "build", "--build-lib", "../lib", "sdist", "--dist-dir", "../dist"]
    done = run(*words, cwd=folder / "tree")
    assert done.returncode == 0, done.stderr
    with tarfile.open(next((folder / "dist").iterdir())) as archive:
        names = {"/".join(name.split("/")[1:]): mode for name, mode in ((x.name, x.mode) for x in archive.getmembers())}
    return folder, names


def files(folder, pattern="*.py"):
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern) if path.is_file()}


def test_a_wheel_has_all_modules_and_the_configs(built):
    """Also those of folders without an __init__.py."""
    folder, names = built
    for file in ("rfjax/study/reports/style.css", "rfjax/preferences/page.html"):
        assert (folder / "lib" / file).exists() and file in names
    ours = {f"rfjax/{name}" for name in files(folder / "tree" / "rfjax")}
    assert files(folder / "lib") == ours | {f"rfjax/configs/{name}" for name in files(folder / "tree" / "configs")}
    assert "rfjax/training/loop.py" in ours


def test_a_source_distribution_has_the_whole_tree(built):
    folder, names = built
    expected = {f"{top}/{name}" for top in SHIPPED for name in files(folder / "tree" / top, "*")} | set(SINGLE)
    assert expected <= set(names)
    assert all(mode & 0o100 for name, mode in names.items() if name.startswith("launch/") and "common" not in name[:13])


def test_an_installed_package_finds_its_configs_from_any_folder(built, tmp_path):
    settings = {"PYTHONPATH": str(built[0] / "lib"), "PYTHONSAFEPATH": "1"}
    done = run("-m", "rfjax.main", "--config=configs/scaling.py:surface", "--help", cwd=tmp_path, **settings)
    assert "--config.study.surface=True" in done.stdout, done.stderr
    done = run("-m", "rfjax.main", "--config=configs/scalin.py", cwd=tmp_path, **settings)
    assert (done.returncode, done.stderr) == (
        2, "rfjax: there is no config file configs/scalin.py (did you mean 'configs/scaling.py'?)\n"
    )  # fmt: skip


def test_a_folder_s_own_config_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert installed.find_config(Path("configs/scaling.py")) == ROOT / "configs" / "scaling.py"
    assert main.read_flags(["--config=configs/scaling.py:surface"]).study.surface
    own = Path("configs/scaling.py")
    own.parent.mkdir()
    own.write_text("")
    assert installed.find_config(own) == own
    monkeypatch.setattr(installed, "PACKAGE", tmp_path / "elsewhere" / "rfjax")
    with pytest.raises(
        UserError, match=r"there is no config file configs/generate.py .did you mean 'configs/scaling.py'"
    ):
        installed.find_config(Path("configs/generate.py"))
    own.unlink()
    with pytest.raises(UserError, match=r"there is no config file configs/generate.py$"):
        installed.find_config(Path("configs/generate.py"))


def git(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_no_other_repository_s_commit_is_said(tmp_path, monkeypatch):
    inner = tmp_path / ".venv" / "site-packages" / "rfjax"
    for package in (tmp_path / "rfjax", inner, tmp_path / "copied" / "rfjax"):
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
    assert installed.commit(tmp_path / "rfjax") == "unknown"  # no repository
    git(tmp_path, "init", "-q")
    (tmp_path / "other").write_text("")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-q", "-m", "another project's")
    assert installed.commit(tmp_path / "rfjax") == "unknown"  # it lies in another's checkout, who does not know it
    git(tmp_path, "add", "rfjax")
    git(tmp_path, "commit", "-q", "-m", "ours")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    assert installed.commit(tmp_path / "rfjax") == "v1"
    assert installed.commit(inner) == installed.commit(tmp_path / "copied" / "rfjax") == "unknown"
    (tmp_path / "rfjax" / "__init__.py").write_text("changed")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as in git's own hooks
    assert installed.commit(tmp_path / "rfjax") == "v1-dirty"
    monkeypatch.setenv("PATH", "")
    assert installed.commit(tmp_path / "rfjax") == "unknown"
