r"""All pictures of a prompt suite with one model, in its official layout, and the official scorer's results as tables.

    python -m rfjax.main --config=configs/suites.py --config.generate.source=FOLDER \
        --config.suite.prompts=geneval/prompts/evaluation_metadata.jsonl
    ... --config.suite.name=compbench --config.suite.prompts=T2I-CompBench/examples/dataset
    ... --config.suite.name=parti --config.suite.prompts=parti/PartiPrompts.tsv
    ... --config.suite.name=dpg --config.suite.prompts=ELLA/dpg_bench
    ... --config.generate.steps=28 --config.generate.guidance=7 --config.generate.seed=1
    ... --config.suite.results=results.jsonl              after the official scorer, with the same command

SD3's Table 5 has GenEval; its released code samples with Euler's method in 50 steps at guidance 5, as here. The prompts
are those of your own copies of the official repositories. GenEval takes 2,212 pictures; all processes of a cluster draw
each batch together, and a job that was killed goes on with the same command and ends in the same bytes. Expect
work/suite/images, prompts.jsonl and suite.json, and report/index.html, which says how to run the official scorer, and
once its files are there sets them into tables by skill with intervals, for GenEval beside Table 5 (docs/suites.md).
"""

import ml_collections

from rfjax import config as configs


def get_config() -> ml_collections.ConfigDict:
    """GenEval as its protocol says, with the sampler of SD3's released code."""
    c = configs.default()
    c.job = "suite"
    c.workdir = "work/suite"
    c.generate.update(source="", steps=50, guidance=5.0, batch=32)
    c.suite.update(name="geneval")
    c.study.update(name="suite", report="suites")
    return c
