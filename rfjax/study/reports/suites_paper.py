"""The published scores on prompt suites that reports stand beside, and how the pictures of both were made."""

from collections.abc import Mapping
from typing import Any, NamedTuple

SOURCE = "Esser et al. 2024, arXiv 2403.03206, Table 5"


class Scores(NamedTuple):
    """A row of SD3's Table 5: GenEval's overall score, then its six tasks."""

    overall: float
    single_object: float
    two_object: float
    counting: float
    colors: float
    position: float
    color_attr: float


TABLE_5 = {
    "minDALL-E": Scores(0.23, 0.73, 0.11, 0.12, 0.37, 0.02, 0.01),
    "SD v1.5": Scores(0.43, 0.97, 0.38, 0.35, 0.76, 0.04, 0.06),
    "PixArt-alpha": Scores(0.48, 0.98, 0.50, 0.44, 0.80, 0.08, 0.07),
    "SD v2.1": Scores(0.50, 0.98, 0.51, 0.44, 0.85, 0.07, 0.17),
    "DALL-E 2": Scores(0.52, 0.94, 0.66, 0.49, 0.77, 0.10, 0.19),
    "SDXL": Scores(0.55, 0.98, 0.74, 0.39, 0.85, 0.15, 0.23),
    "SDXL Turbo": Scores(0.55, 1.00, 0.72, 0.49, 0.80, 0.10, 0.18),
    "IF-XL": Scores(0.61, 0.97, 0.74, 0.66, 0.81, 0.13, 0.35),
    "DALL-E 3": Scores(0.67, 0.96, 0.87, 0.47, 0.83, 0.43, 0.45),
    "SD3, depth 18, 512 x 512": Scores(0.58, 0.97, 0.72, 0.52, 0.78, 0.16, 0.34),
    "SD3, depth 24, 512 x 512": Scores(0.62, 0.98, 0.74, 0.63, 0.67, 0.34, 0.36),
    "SD3, depth 30, 512 x 512": Scores(0.64, 0.96, 0.80, 0.65, 0.73, 0.33, 0.37),
    "SD3, depth 38, 512 x 512": Scores(0.68, 0.98, 0.84, 0.66, 0.74, 0.40, 0.43),
    "SD3, depth 38, 512 x 512, DPO": Scores(0.71, 0.98, 0.89, 0.73, 0.83, 0.34, 0.47),
    "SD3, depth 38, 1024 x 1024, DPO": Scores(0.74, 0.99, 0.94, 0.72, 0.89, 0.33, 0.60),
}
# What SD3's released code samples with; the paper says neither the sampler nor the guidance of Table 5.
SAMPLER, STEPS, GUIDANCE = "euler", 50, 5.0
SIDES = (512, 1024)  # pixels of the paper's pictures
PROMPTS, PICTURES = 553, 4  # of GenEval, and of each of its prompts


def differences(about: Mapping[str, Any], side: int | None) -> list[str]:
    """Where the pictures of GenEval here were made in another way than those of Table 5, in sentences.

    Args:
        about: what suite.json says of the pictures; empty if they were not drawn here.
        side: of the pictures, in pixels; None if it is not known.
    """
    said = []
    prompts, count = about.get("prompts"), about.get("per_prompt")
    if (prompts, count) != (PROMPTS, PICTURES):
        said.append(f"GenEval has {PROMPTS} prompts of {PICTURES} pictures; here are {prompts or 'some'} of {count}.")
    if "sampler" not in about:
        return [*said, "The pictures were not drawn here, so it is not known how they were made."]
    here = (about["sampler"], about["steps"], float(about["guidance"]))
    if here != (SAMPLER, STEPS, GUIDANCE):
        said.append(
            f"These pictures took {here[0]} in {here[1]} steps at guidance {here[2]:g}; the paper says neither of "
            f"Table 5, and SD3's released code takes {SAMPLER} in {STEPS} steps at guidance {GUIDANCE:g}."
        )
    if side and side not in SIDES:
        said.append(f"These pictures are {side} pixels wide; the paper's are {SIDES[0]} or {SIDES[1]}.")
    return [
        *said,
        "GenEval's own generation sets its seed anew for each prompt, so that all prompts share four noises; here "
        "each picture has its own.",
    ]
