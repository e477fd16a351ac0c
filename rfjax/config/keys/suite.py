"""The section `suite`: prompt suites of text-to-image papers, which the job `suite` draws and reads the scores of."""

import dataclasses

from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Suite:
    """The job `suite`. `generate` names the model, the steps, guidance and seed; `sampling` sets the sampler."""

    name: str = key(
        "geneval",
        "Chooses the suite: `geneval`, `compbench` (T2I-CompBench++), `parti` (PartiPrompts), `dpg` (DPG-Bench), or "
        "one of your own, named as MODULE:NAME.",
        choices=("geneval", "compbench", "parti", "dpg"),
        paths=True,
    )
    prompts: str = key(
        "",
        "Names the suite's own prompts: GenEval's evaluation_metadata.jsonl, the folder of T2I-CompBench's "
        "<category>_val.txt, PartiPrompts.tsv, or DPG-Bench's folder of prompts/ and dpg_bench.csv.",
    )
    per_prompt: int = key(
        0,
        "Sets the number of pictures of each prompt. 0 takes the suite's own: 4 for GenEval and DPG-Bench, 10 for "
        "T2I-CompBench, 1 for PartiPrompts.",
        low=0,
        high=10_000,
    )
    results: str = key(
        "",
        "Names what the official scorer has written, to be set into tables: GenEval's results.jsonl, the folder with "
        "T2I-CompBench's categories, DPG-Bench's *_results.txt. Empty looks for them in the work folder.",
    )
