"""Formulations by the paper's names: a path, a prediction and a density of t in training (SD3 section 3, Table 1).

`formulation(name)` is for people and for one formulation; its `numbers` are the same thing as arrays, for compiled
programs that serve all formulations alike. Both answer `coefficients(t)`, `quantile(u)` and `time_of_sigma(sigma)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rfjax import names
from rfjax.errors import UserError, nearest
from rfjax.flow import densities, paths
from rfjax.flow.densities import Density
from rfjax.flow.paths import SIGMA_MAX, SIGMA_MIN, Number, Path, Times
from rfjax.flow.quantities import SIGMA_DATA, mix, path_values

SPARE = 2  # the most numbers that a formulation has
BEFORE_1 = np.nextafter(np.float32(1), np.float32(0))


class Coefficients(NamedTuple):
    """All that a formulation says about times t, each of the shape of t.

    z = a x0 + b eps; the network sees (scale z, time) and predicts p x0 + q eps; s is the variable that Euler's
    method steps in, in which z moves by (da_ds x0 + db_ds eps) per unit.
    """

    t: Times
    a: Times
    b: Times
    p: Times
    q: Times
    da_ds: Times
    db_ds: Times
    s: Times
    scale: Times
    time: Times


@dataclass(frozen=True)
class Formulation:
    """A way to train a flow: what z_t is, what the network predicts, and which t it sees how often.

    Attributes:
        name: as the paper writes it.
        path: see `paths`.
        prediction: a name of `quantities.QUANTITIES`.
        density: of t in training.
        first: t is raised to it, where the target has no finite value at t = 0.
        cut: nothing is finite at t = 1, so t is lowered to the float32 before it, and sampling starts where b / a = 80.
        kind, parameters, shift: the name up to its brackets, the numbers in them, and the shift of the density.
    """

    name: str
    path: Path
    prediction: str
    density: Density
    first: float = 0.0
    cut: bool = False
    kind: str = ""
    parameters: tuple[Number, ...] = ()
    shift: Number = 1.0

    def coefficients(self, t: Times) -> Coefficients:
        """Everything at times t.

        Raises:
            UserError: if a t that is known lies outside [0, 1].
        """
        check_times(t)
        t = jnp.clip(jnp.asarray(t, float), self.first, BEFORE_1 if self.cut else 1.0)
        at, path = path_values(self.path, t), self.path
        scale, time = jnp.ones_like(t), t
        if self.prediction == "F":  # EDM's preconditioning: c_in, c_noise = log(sigma) / 4
            scale = 1 / jnp.hypot(at.b, at.a * SIGMA_DATA)
            time = jnp.log(jnp.maximum(at.b / at.a, SIGMA_MIN)) / 4
        p, q = mix(self.prediction, at)
        da_ds = at.da if path.da_ds is None else path.da_ds(t)
        db_ds = at.db if path.db_ds is None else path.db_ds(t)
        return Coefficients(t, at.a, at.b, p, q, da_ds, db_ds, path.s(t), scale, time)

    def quantile(self, u: Times) -> Times:
        """The t of training with distribution function u; u uniform in (0, 1) samples it."""
        return self.density.quantile(u)

    @property
    def start(self) -> Float[Array, ""]:
        """The time from which samplers go down to 0; a narrow density of sigma ends below 80 in float32."""
        return jnp.minimum(self.time_of_sigma(jnp.float32(SIGMA_MAX)), BEFORE_1) if self.cut else jnp.float32(1)

    def time_of_sigma(self, sigma: Times) -> Times:
        """The t at which b / a = sigma."""
        return self.path.time(-2 * jnp.log(sigma))

    def weight(self, t: Times) -> Times:
        """w_t of the loss written as -1/2 E w_t lambda'_t |eps_Theta - eps|^2 (SD3 section 3, after Kingma & Gao)."""
        at = path_values(self.path, t)
        p, q = mix(self.prediction, at)
        slope = 2 * (at.da / at.a - at.db / at.b)
        return -2 * self.density.pdf(t) * ((at.a * q - at.b * p) / at.a) ** 2 / slope

    @property
    def arrays(self) -> "FormulationArrays":
        """The same as arrays."""
        padded = np.zeros(SPARE, np.float32)
        padded[: len(self.parameters)] = self.parameters
        return FormulationArrays(jnp.int32(list(KINDS).index(self.kind)), jnp.asarray(padded), jnp.float32(self.shift))


def check_times(t: Times) -> None:
    """Raises UserError for times outside [0, 1], where they are known; times inside a compiled program are not."""
    if not isinstance(t, jax.core.Tracer) and not np.all((np.asarray(t) >= 0) & (np.asarray(t) <= 1)):
        worst = np.asarray(t).ravel()[np.argmax(~((np.asarray(t) >= 0) & (np.asarray(t) <= 1)).ravel())]
        raise UserError(f"times go from 0 (data) to 1 (noise), and {worst:g} lies outside")


@dataclass(frozen=True)
class Kind:
    """A family of formulations.

    Attributes:
        build: the numbers in the brackets -> (path, prediction, density).
        parameters: what they are called.
        default: the numbers where no brackets are written, if that is allowed.
        first, cut: see Formulation.
    """

    build: Callable[..., tuple[Path, str, Density]]
    parameters: tuple[str, ...] = ()
    default: tuple[float, ...] | None = None
    first: float = 0.0
    cut: bool = False

    def make(self, name: str, kind: str, parameters: tuple[Number, ...], shift: Number) -> Formulation:
        """The member with these numbers, which may be traced."""
        path, prediction, density = self.build(*parameters)
        if not (isinstance(shift, int | float) and shift == 1):
            density = densities.shifted(density, shift)
        return Formulation(name, path, prediction, density, self.first, self.cut, kind, parameters, shift)


def _plain(path: Callable[[], Path], prediction: str, density: Callable[..., Density]) -> Callable[..., tuple]:
    return lambda *numbers: (path(), prediction, density(*numbers))


def _repa_lognormal(path: Callable[[], Path]) -> Callable[[], tuple]:
    return lambda: (path(), "velocity", densities.log_normal(path(), 0.0, 1.0))


KINDS: dict[str, Kind] = {
    "rf": Kind(_plain(paths.rf, "velocity", densities.uniform)),
    "rf/lognorm": Kind(_plain(paths.rf, "velocity", densities.lognorm), ("m", "s")),
    "rf/mode": Kind(_plain(paths.rf, "velocity", densities.mode), ("s",)),
    "rf/cosmap": Kind(_plain(paths.rf, "velocity", densities.cosmap)),
    "eps/linear": Kind(_plain(paths.linear, "eps", densities.steps)),
    "v/linear": Kind(_plain(paths.linear, "v", densities.steps)),
    "eps/cos": Kind(_plain(paths.cosine, "eps", densities.uniform), cut=True),
    "v/cos": Kind(_plain(paths.cosine, "v", densities.uniform)),
    "edm": Kind(lambda m, s: (paths.edm(m, s), "F", densities.uniform()), ("P_m", "P_s"), (-1.2, 1.2), cut=True),
    "edm/rf": Kind(_plain(paths.edm_rf, "F", densities.uniform), cut=True),
    "edm/cos": Kind(_plain(paths.edm_cos, "F", densities.uniform), cut=True),
    # Presets: SiT's paths with its velocity (its VP trains on t > 1e-5), REPA's options, and DiT's DDPM.
    "sit/linear": Kind(_plain(paths.rf, "velocity", densities.uniform)),
    "sit/gvp": Kind(_plain(paths.cosine, "velocity", densities.uniform)),
    "sit/vp": Kind(_plain(paths.vp, "velocity", densities.uniform), first=1e-5),
    "repa/linear": Kind(_plain(paths.rf, "velocity", densities.uniform)),
    "repa/cosine": Kind(_plain(paths.cosine, "velocity", densities.uniform)),
    "repa/linear/lognormal": Kind(_repa_lognormal(paths.rf)),
    "repa/cosine/lognormal": Kind(_repa_lognormal(paths.cosine)),
    "dit/eps": Kind(_plain(paths.ddpm, "eps", densities.steps)),
}


class FormulationArrays(NamedTuple):
    """A formulation as arrays: which kind, the numbers in its brackets, its shift."""

    kind: Int[Array, ""]
    parameters: Float[Array, "P"]
    shift: Float[Array, ""]

    def _choose(self, ask: Callable[..., Any], *arguments: Array) -> Any:
        def branch(kind: str) -> Callable[..., Any]:
            def answer(parameters: Float[Array, "P"], shift: Float[Array, ""], *arguments: Array) -> Any:
                made = KINDS[kind].make(kind, kind, tuple(parameters[: len(KINDS[kind].parameters)]), shift)
                return ask(made, *arguments)

            return answer

        branches = [branch(kind) for kind in KINDS]
        return jax.lax.switch(self.kind, branches, self.parameters, self.shift, *arguments)

    def coefficients(self, t: Times) -> Coefficients:
        """As Formulation.coefficients."""
        return self._choose(lambda made, t: made.coefficients(t), t)

    def quantile(self, u: Times) -> Times:
        """As Formulation.quantile."""
        return self._choose(lambda made, u: made.quantile(u), u)

    def time_of_sigma(self, sigma: Times) -> Times:
        """As Formulation.time_of_sigma."""
        return self._choose(lambda made, sigma: made.time_of_sigma(sigma), sigma)


def formulation(name: str, shift: float = 1.0) -> Formulation:
    """Looks a formulation up by its name in the paper, such as "rf/lognorm(0.00,1.00)"; spaces and decimals are free.

    Args:
        shift: of the density of t towards noise, alpha of SD3's Eq. 23; 1 is none.

    Raises:
        UserError: for an unknown name or numbers that it can't have, with the nearest right one.
    """
    kind, given = names.split(name)
    if kind not in KINDS:
        raise UserError(f"there is no formulation '{name}'{nearest(kind, KINDS)}")
    found = KINDS[kind]
    numbers = given or found.default or ()
    if len(numbers) != len(found.parameters):
        written = f"{kind}({', '.join(found.parameters)})" if found.parameters else kind
        raise UserError(f"'{name}' has {len(numbers)} parameters, but the formulation is written {written}")
    return found.make(names.join(kind, numbers), kind, numbers, float(shift))
