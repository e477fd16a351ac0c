import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import flow
from rfjax.conditioning import TextConditioning
from rfjax.encoders.codec import Latents, Pixels
from rfjax.evaluation import sampler as sampling

SHAPE = (4, 4, 3)
PIXELS = Pixels(SHAPE)
TRACED = []  # an entry each time that the network is traced, so at least one for each program


class Pointing(nn.Module):
    """For data that is exactly the text's value c, the velocity is (z - c) / t; the one weight scales c."""

    @nn.compact
    def __call__(self, z, t, cond):
        TRACED.append(z.shape)
        scale = self.param("scale", nn.initializers.ones, ())
        return (z - scale * cond.pooled[:, :1, None, None]) / t[:, None, None, None]


TEXT = TextConditioning(np.zeros((2, 1, 1), np.float32), np.array([[0.25], [-0.5]], np.float32))
WEIGHTS = {"scale": jnp.float32(1)}


def sample(settings, name="rf", codec=PIXELS):
    network = sampling.Sampleable(Pointing(), WEIGHTS, flow.formulation(name), codec)
    return sampling.sample_batch(network, np.arange(2, dtype=np.int32), TEXT, settings)


def traces(call):
    """How many times the network is traced within a call."""
    before = len(TRACED)
    call()
    return len(TRACED) - before


# The adaptive solver is as good as its tolerance; the SDE, which needs small steps, keeps noise of its last, 0.04.
TOLERANCE = {"dopri5": 5e-3, "euler_maruyama": 5 * 0.04}


# diffrax's program takes six times as long to compile as the others.
@pytest.mark.parametrize(
    "sampler", [pytest.param(name, marks=pytest.mark.job if name == "dopri5" else ()) for name in flow.SAMPLERS]
)
def test_samples_follow_the_text(sampler):
    steps = 100 if sampler == "euler_maruyama" else 8
    for guidance, factor in ((1.0, 1.0), (2.0, 2.0)):
        settings = sampling.SamplerSettings(sampler, steps, flow.Guidance(guidance), schedule="repa", room=100)
        z = sample(settings).z
        np.testing.assert_allclose(z[0], 0.25 * factor, atol=TOLERANCE.get(sampler, 1e-5))
        np.testing.assert_allclose(z[1], -0.5 * factor, atol=TOLERANCE.get(sampler, 1e-5))


def test_the_codec_decodes_within_the_sampler_where_it_has_pictures():
    settings = sampling.SamplerSettings("euler", 8, flow.Guidance(1.0))
    made = sample(settings)
    assert (made.images.dtype, made.images.shape) == (np.uint8, (2, *SHAPE))
    assert np.unique(made.images[0]).tolist() == [round(0.25 * 127.5 + 127.5)]
    latents = sample(settings, codec=Latents(SHAPE))
    assert latents.images is None
    np.testing.assert_allclose(latents.z, made.z, atol=1e-6)


def test_what_is_not_finite_is_said_of_each_sample():
    broken = TextConditioning(TEXT.context, np.array([[0.25], [np.nan]], np.float32))
    network = sampling.Sampleable(Pointing(), WEIGHTS, flow.formulation("rf"), Pixels(SHAPE))
    settings = sampling.SamplerSettings("euler", 2, flow.Guidance(1.0))
    made = sampling.sample_batch(network, np.arange(2, dtype=np.int32), broken, settings)
    assert made.finite.tolist() == [True, False]


def test_one_program_serves_all_steps_scales_and_formulations():
    cases = (("rf", 2, 2.0), ("rf", 8, 5.0), ("v/cos", 3, 2.0), ("edm(0,0.6)", 8, 3.0))
    chosen = [(sampling.SamplerSettings("euler", n, flow.Guidance(s), room=8), name) for name, n, s in cases]
    sample(*chosen[0])
    assert [traces(lambda one=one: sample(*one)) for one in chosen] == [0] * len(cases)


def test_seeds_share_a_program_and_seed_0_is_the_one_of_before():
    lengths = lambda seed: np.asarray(  # noqa: E731
        sample(sampling.SamplerSettings("euler", 2, flow.Guidance(2.0), seed=seed)).length
    )
    first = lengths(0)
    assert traces(lambda: lengths(2**32 - 1)) == 0
    assert np.abs(first - lengths(2**32 - 1)).max() > 1e-3
    np.testing.assert_array_equal(lengths(0), first)
    # The first values of seed 0, recorded before there were other seeds.
    noise = np.asarray(sampling.noise(jnp.arange(2), (2, 2, 1))).ravel()
    np.testing.assert_array_equal(noise, np.asarray(sampling.noise(jnp.arange(2), (2, 2, 1), 0, jnp.uint32(0))).ravel())
    np.testing.assert_allclose(noise[:3], (-0.5747799873352051, 0.7998369932174683, -0.2596069872379303), rtol=1e-6)


def test_noise_of_a_picture_does_not_depend_on_how_many_there_are():
    few, many = (sampling.noise(jnp.arange(n), (2, 2, 1)) for n in (2, 3))
    np.testing.assert_array_equal(many[:2], few)
    assert np.abs(sampling.noise(jnp.arange(2), (2, 2, 1), 1) - few).max() > 0


def test_ddpm_reads_the_learned_variance_and_guides_it_never():
    """A network that says the same of everything: its variance decides how far the first step's noise goes."""

    class Sigma(nn.Module):
        learn_sigma: bool = True

        def __call__(self, z, t, cond):
            return self.with_sigma(z, t, cond)[..., :3]

        @nn.compact
        def with_sigma(self, z, t, cond):
            self.param("scale", nn.initializers.ones, ())
            said = jnp.broadcast_to(cond.pooled[:, :1, None, None], z.shape)
            return jnp.concatenate([jnp.zeros_like(z), said], -1)

    def draw(values, scale):
        text = TextConditioning(np.zeros((2, 1, 1), np.float32), np.array(values, np.float32)[:, None])
        network = sampling.Sampleable(Sigma(), WEIGHTS, flow.formulation("dit/eps"), Latents(SHAPE))
        settings = sampling.SamplerSettings("ddpm", 2, flow.Guidance(scale), schedule="dit")
        return np.asarray(sampling.sample_batch(network, np.arange(2, dtype=np.int32), text, settings).z)

    plain = draw([0.5, -1.0], 1.0)
    np.testing.assert_allclose(draw([0.5, -1.0], 4.0), plain, rtol=1e-5)
    assert np.abs(draw([0.5, 1.0], 1.0)[1] - plain[1]).max() > 1e-3
