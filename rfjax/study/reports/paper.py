"""The published numbers that reports stand beside: "Scaling Rectified Flow Transformers" (SD3, arXiv 2403.03206).

Formulations are named as in this project, without the spaces. eps/cos was trained but is in none of these tables.
Backbones are named as in `config.model.backbone`.
"""

from typing import NamedTuple

SOURCE = "Esser et al. 2024, arXiv 2403.03206"
POOL = 61  # variants among which the fronts of Table 1 were counted
SETTINGS = 24  # control settings: SAMPLERS x {EMA, raw} x {ImageNet, CC12M}; section 5.1
SAMPLERS = ((5, 5.0), (10, 5.0), (25, 5.0), (50, 1.0), (50, 2.5), (50, 5.0))  # (Euler steps, guidance)


# A row of Table 1: the front's number, averaged over all settings, those of 5 steps and those of 50 steps.
class Ranks(NamedTuple):
    all: float
    five: float
    fifty: float


# A row of Table 2: 25 steps at guidance 5; CLIP higher, FID (of CLIP features) lower is better.
_FIELDS = ("imagenet_clip", "imagenet_fid", "cc12m_clip", "cc12m_fid")
Quality = NamedTuple("Quality", [(name, float) for name in _FIELDS])


# A row of Table 6: by how many percent CLIP is lower than with 50 steps, and the length of the path.
class Steps(NamedTuple):
    five: float
    ten: float
    twenty: float
    path_length: float


TABLE_1 = {
    "rf/lognorm(0.00,1.00)": Ranks(1.54, 1.25, 1.50),
    "rf/lognorm(1.00,0.60)": Ranks(2.08, 3.50, 2.00),
    "rf/lognorm(0.50,0.60)": Ranks(2.71, 8.50, 1.00),
    "rf/mode(1.29)": Ranks(2.75, 3.25, 3.00),
    "rf/lognorm(0.50,1.00)": Ranks(2.83, 1.50, 2.50),
    "eps/linear": Ranks(2.88, 4.25, 2.75),
    "rf/mode(1.75)": Ranks(3.33, 2.75, 2.75),
    "rf/cosmap": Ranks(4.13, 3.75, 4.00),
    "edm(0.00,0.60)": Ranks(5.63, 13.25, 3.25),
    "rf": Ranks(5.67, 6.50, 5.75),
    "v/linear": Ranks(6.83, 5.75, 7.75),
    "edm(0.60,1.20)": Ranks(9.00, 13.00, 9.00),
    "v/cos": Ranks(9.17, 12.25, 8.75),
    "edm/cos": Ranks(11.04, 14.25, 11.25),
    "edm/rf": Ranks(13.04, 15.25, 13.25),
    "edm(-1.20,1.20)": Ranks(15.58, 20.25, 15.00),
}
TABLE_2 = {
    "rf": Quality(0.247, 49.70, 0.217, 94.90),
    "edm(-1.20,1.20)": Quality(0.236, 63.12, 0.200, 116.60),
    "eps/linear": Quality(0.245, 48.42, 0.222, 90.34),
    "v/cos": Quality(0.244, 50.74, 0.209, 97.87),
    "v/linear": Quality(0.246, 51.68, 0.217, 100.76),
    "rf/lognorm(0.50,0.60)": Quality(0.256, 80.41, 0.233, 120.84),
    "rf/mode(1.75)": Quality(0.253, 44.39, 0.218, 94.06),
    "rf/lognorm(1.00,0.60)": Quality(0.254, 114.26, 0.234, 147.69),
    "rf/lognorm(-0.50,1.00)": Quality(0.248, 45.64, 0.219, 89.70),
    "rf/lognorm(0.00,1.00)": Quality(0.250, 45.78, 0.224, 89.91),
}
TABLE_6 = {  # depth -> row
    15: Steps(4.30, 0.86, 0.21, 191.13),
    30: Steps(3.59, 0.70, 0.24, 187.96),
    38: Steps(2.71, 0.14, 0.08, 185.96),
}
TABLE_4 = {  # GenEval in per cent, by its skills as `shapes` calls them: (original captions, half of them CogVLM's)
    "overall": (43.27, 49.78),
    "single object": (95.00, 93.75),
    "two objects": (41.41, 52.53),
    "counting": (33.44, 41.56),
    "colours": (71.54, 68.09),
    "position": (6.50, 18.00),
    "colour attribution": (11.75, 24.75),
}
FIG_4 = ("dit", "uvit", "crossdit", "mmdit", "mmdit3")  # by where they end, the worst first; the last two nearly equal
FIG_4_FIRST = "uvit"  # learns fastest at the beginning
