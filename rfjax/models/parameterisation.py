"""How initial weights, learning rates, eps and weight decay go with width and depth: tables of kinds of layers.

m_N is the width over the base width, m_L the depth over the base depth. A table says, for each kind of weights, what
its paper says of a network with *forward multipliers*: W = forward x w, where w is what is stored and trained. Here no
network has any. Adam's step does not depend on the scale of the gradient, but for eps, so that W itself may be trained
(the abc-symmetry of Yang and Hu 2021, arXiv 2011.14522). With G = dL/dW, dL/dw = forward x G, and from

    w <- w - rate x (m / (sqrt(v) + eps) + decay x w)        m, v: averages of forward x G and of its square

follows, times forward and with m and v divided by eps,

    W <- W - forward x rate x (m' / (sqrt(v') + 1) + decay / forward x W)    m', v': averages of forward x G / eps.

So W starts forward times as large, its gradient is taken times `forward` before it is clipped (as that network's would
be) and divided by the multiplier of eps behind it, its learning rate is forward x rate, and its decay is divided by
forward. The two networks are equal at every step, to rounding; tests/training/test_parameterisation.py trains both.
Checkpoints and exports hold W: the plain network's weights, which nothing has to be folded into. The branch x 1 / m_L
of CompleteP is a multiplier of the weights and biases that end a branch (gates and norms stand outside of them).

Sources. "mup": arXiv 2505.15270 Table 1 and its code (DiT, PixArt, MM-DiT), after arXiv 2203.03466 Table 3; matrices
whose learning rate falls with width decay by as much more, so that rate x decay stays (microsoft/mup's AdamW).
"completep": arXiv 2505.01618 Table 1 with alpha = 1, for a network with pre-norm blocks; its depth columns have only
the branch and eps. No paper has tested it on blocks gated by adaLN, which start at zero; docs/parameterisation.md says
what our coordinate checks found.

Width is meant to grow by heads of one width (heads ~ width): logits are divided by the root of a head's width, which
both papers leave as it is. Layers that are not in a scan over depth (time, pooled vector, the convolutions of UViT)
count as no part of the depth.
"""

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rfjax.errors import UserError
from rfjax.models.blocks import STACKS

HEAD = "HEAD"  # stands for a head's name, such as that of REPA's projector, in the paths that patterns see
_BLOCK = f"^({'|'.join(STACKS)})/"


class Kind(NamedTuple):
    """A kind of weights.

    Attributes:
        name: in words, for tables.
        pattern: a regular expression that the paths of these weights match, and no others.
        start: how they are drawn: "xavier" (over fan-in + fan-out), "normal" (0.02, whatever the size) or "constant".
        grows: whether fan-in and fan-out grow with the width.
    """

    name: str
    pattern: str
    start: str
    grows: tuple[bool, bool] = (True, True)


KINDS: dict[str, Kind] = {
    "input": Kind("patch and context embedding, stem", r"^(patch_embed|context_embed(_\d+)?|stem)/kernel$",
                  "xavier", (False, True)),
    "vector": Kind("first layers of time and pooled MLP, label table",
                   r"^((time|pooled)_embed/fc1/kernel|label_embed/embedding)$", "normal", (False, True)),
    "vector_hidden": Kind("second layers of time and pooled MLP", r"^(time|pooled)_embed/fc2/kernel$", "normal"),
    "final_modulation": Kind("final modulation", r"^final_modulation/linear/kernel$", "constant"),
    "hidden": Kind("q, k, v, first layers of MLPs",
                   _BLOCK + r"(.*/)?((dual_)?qkv/linear|cross/(q|kv)|mlp/(fc1|gate))/kernel$", "xavier"),
    "modulation": Kind("modulation of blocks", _BLOCK + r"(.*/)?modulation/linear/kernel$", "constant"),
    "end": Kind("ends of branches: attention's output, second layers of MLPs",
                _BLOCK + r"(.*/)?(out|dual_out|mlp/fc2)/kernel$", "xavier"),
    "end_bias": Kind("their biases", _BLOCK + r"(.*/)?(out|dual_out|mlp/fc2)/bias$", "constant"),
    "gain": Kind("gains of queries' and keys' norms", _BLOCK + r"(.*/)?[qk]_norm/scale$", "constant", (False, False)),
    "bias": Kind("other biases and norms of blocks",
                 _BLOCK + r"(?!(.*/)?(out|dual_out|mlp/fc2|[qk]_norm)/\w+$)(.*/)?(?!kernel$)\w+$", "constant"),
    "convolution": Kind("convolutions, shortcuts and modulation of UViT, Linears between its levels",
                        r"^((down|up)_\d+_\d+/(conv\d|shortcut|modulation)|(reduce|expand)_\d+)/kernel$", "xavier"),
    "outer_bias": Kind("biases and norms outside of blocks",
                       rf"^(?!({'|'.join(STACKS)}|final|{HEAD}|label_embed)/)\w+/(.*/)?(?!kernel$)\w+$", "constant"),
    "positions": Kind("stored positions, which are not trained", r"^positions$", "constant"),
    "output": Kind("final layer", r"^final/kernel$", "constant", (True, False)),
    "output_bias": Kind("its bias", r"^final/bias$", "constant", (False, False)),
    "head": Kind("first layer of heads, such as REPA's projector", rf"^{HEAD}/(fc1|conv)/kernel$",
                 "xavier", (True, False)),
    "head_rest": Kind("other layers of heads, whose widths are fixed", rf"^{HEAD}/(?!(fc1|conv)/kernel$).*$",
                      "constant", (False, False)),
}  # fmt: skip


class Power(NamedTuple):
    """m_N to the power of `width` times m_L to the power of `depth`."""

    width: float = 0.0
    depth: float = 0.0

    def of(self, width: float, depth: float) -> float:
        """Its value at m_N = width, m_L = depth."""
        return float(width**self.width * depth**self.depth)


ONE = Power()


class Rule(NamedTuple):
    """A row of a paper's table, for the network with forward multipliers.

    Attributes:
        init: of the standard deviation of w at the start, relative to the base network's.
        forward: of W = forward x w.
        rate: of the learning rate of w.
        eps: of Adam's eps for w.
        decay: of the weight decay of w, which the rate multiplies.
    """

    init: Power = ONE
    forward: Power = ONE
    rate: Power = ONE
    eps: Power = ONE
    decay: Power = ONE


@dataclass(frozen=True, eq=False)
class Parameterisation:
    """A table. One of your own is an object of this class, which config.model.parameterisation names as MODULE:NAME.

    Attributes:
        name: of it.
        rules: by the names of `kinds`; a kind that is not there is scaled by nothing.
        kinds: of weights; each weight of a network must match one of them.
    """

    name: str
    rules: dict[str, Rule]
    kinds: dict[str, Kind]


_MATRIX = {"init": Power(-0.5), "rate": Power(-1.0), "decay": Power(1.0)}  # of D x D weights, in both tables
MUP = Parameterisation(
    "mup",
    {
        **{kind: Rule(**_MATRIX) for kind in ("vector_hidden", "final_modulation", "hidden", "modulation", "end")},
        "convolution": Rule(**_MATRIX),
        "output": Rule(forward=Power(-1.0)),
        # A head reads D numbers and starts at random: the output's row, with the multiplier moved into the weights.
        "head": Rule(init=Power(-1.0), rate=Power(-1.0), decay=Power(1.0)),
    },
    KINDS,
)
# Of one weight w in a block, dL/dw falls as 1 / m_N (but not where all heads share it) and 1 / m_L, so eps does.
COMPLETEP = Parameterisation(
    "completep",
    {
        **{kind: Rule(eps=Power(-1.0)) for kind in ("input", "vector", "outer_bias")},
        **{kind: Rule(**_MATRIX, eps=Power(-1.0)) for kind in ("vector_hidden", "final_modulation", "convolution")},
        **{kind: Rule(**_MATRIX, eps=Power(-1.0, -1.0)) for kind in ("hidden", "modulation")},
        "end": Rule(**_MATRIX, forward=Power(0.0, -1.0), eps=Power(-1.0, -1.0)),
        "end_bias": Rule(forward=Power(0.0, -1.0), eps=Power(-1.0, -1.0)),
        "bias": Rule(eps=Power(-1.0, -1.0)),
        "gain": Rule(eps=Power(0.0, -1.0)),
        "output": MUP.rules["output"],
        "head": MUP.rules["head"],
    },
    KINDS,
)
STANDARD = Parameterisation("standard", {}, KINDS)
PARAMETERISATIONS = {name: f"rfjax.models.parameterisation:{name.upper()}" for name in ("standard", "mup", "completep")}


class Multipliers(NamedTuple):
    """What one weight W of the plain network is scaled by, relative to "standard" at this size for `init`, and to the
    config's values for the others.

    Attributes:
        init: the weights at the start.
        rate: the learning rate.
        eps: Adam's eps, for the weight's own gradient.
        decay: the weight decay, before the learning rate multiplies it.
        gradient: the gradient before clipping: the forward multiplier of the network that it would be that of.
    """

    init: float
    rate: float
    eps: float
    decay: float
    gradient: float


class Factors(NamedTuple):
    """What an optimizer multiplies with, for each kind of weights in order: numbers, or arrays on the devices.

    Attributes:
        gradient: before clipping.
        inner: behind clipping, before Adam.
        rate: Adam's step and the decay.
        decay: the weight decay.
    """

    gradient: Float[np.ndarray, " kinds"]
    inner: Float[np.ndarray, " kinds"]
    rate: Float[np.ndarray, " kinds"]
    decay: Float[np.ndarray, " kinds"]


@dataclass(frozen=True)
class Scaling:
    """A parameterisation at one size of a network.

    Attributes:
        table: the parameterisation.
        width: m_N.
        depth: m_L.
        heads: names of the network's heads.
    """

    table: Parameterisation
    width: float
    depth: float
    heads: tuple[str, ...] = ()

    @property
    def shape(self) -> "Scaling":
        """What is left of it in a compiled program that is given the factors."""
        table = STANDARD if self.table.kinds is KINDS else self.table
        return Scaling(table, 1.0, 1.0, self.heads)

    def kind(self, path: str) -> str:
        """The kind of a weight.

        Raises:
            UserError: if not exactly one pattern fits its path.
        """
        first, _, rest = path.partition("/")
        seen = f"{HEAD}/{rest}" if first in self.heads else path
        found = [name for name, kind in self.table.kinds.items() if re.search(kind.pattern, seen)]
        if len(found) != 1:
            said = f"more than one ({', '.join(found)})" if found else "none"
            raise UserError(
                f"config.model.parameterisation = '{self.table.name}' must have one kind of weights for '{path}', and "
                f"has {said}: add to its kinds, or set config.model.parameterisation = 'standard'"
            )
        return found[0]

    def number(self, path: str) -> int:
        """The place of a weight's kind in `Factors`."""
        return list(self.table.kinds).index(self.kind(path))

    def initial(self, path: str, shape: tuple[int, ...]) -> float:
        """By what a weight is multiplied that was drawn as in "standard", at any size.

        Xavier's standard deviation is sqrt(2 / (fan-in + fan-out)), so its own change since the base width is undone.
        """
        kind = self.table.kinds[self.kind(path)]
        rule, own = self.table.rules.get(self.kind(path), Rule()), 1.0
        if kind.start == "xavier":
            inside, outside = (math.prod(shape[:-2]) * n for n in shape[-2:]) if kind.grows != (True, True) else (1, 1)
            before = sum(n / self.width if grows else n for n, grows in zip((inside, outside), kind.grows, strict=True))
            own = math.sqrt((inside + outside) / before)
        return rule.init.of(self.width, self.depth) * own * rule.forward.of(self.width, self.depth)

    def multipliers(self, path: str, shape: tuple[int, ...]) -> Multipliers:
        """All that scales a weight."""
        rule = self.table.rules.get(self.kind(path), Rule())
        forward, rate, eps, decay = (power.of(self.width, self.depth) for power in rule[1:])
        return Multipliers(self.initial(path, shape), forward * rate, eps / forward, decay / forward, forward)

    def factors(self) -> Factors:
        """What the optimizer multiplies with."""
        rules = [self.table.rules.get(kind, Rule()) for kind in self.table.kinds]
        forward, rate, eps, decay = np.array([[p.of(self.width, self.depth) for p in rule[1:]] for rule in rules]).T
        return Factors(*(np.asarray(each, np.float32) for each in (forward, 1 / eps, forward * rate, decay / forward)))
