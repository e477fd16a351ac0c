"""Parts of CrossDiT and UViT, which nobody else publishes whole, beside the nearest modules of torch and diffusers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from parity import torch_side
from parity_cases import CASES, HEAD_COUNT, PARTS, SEEDS, WIDTH, bring, ours, weights
from parity_results import TOLERANCE, compare
from torch import nn

from rfjax.models import layers
from rfjax.models.positions import Positions, sincos_2d

HEAD = WIDTH // HEAD_COUNT


class Block(nn.Module):
    """PixArt's block, whose six vectors of modulation come from a Linear of the block's own, as DiT has it."""

    def __init__(self):
        super().__init__()
        block = BasicTransformerBlock(
            WIDTH,
            HEAD_COUNT,
            HEAD,
            cross_attention_dim=WIDTH,
            activation_fn="gelu-approximate",
            attention_bias=True,
            norm_elementwise_affine=False,
            norm_type="ada_norm_single",
            norm_eps=1e-6,
        )
        del block.scale_shift_table
        block.register_buffer("scale_shift_table", torch.zeros(6, WIDTH), persistent=False)
        self.modulation, self.block = nn.Linear(WIDTH, 6 * WIDTH), block
        self.attn1, self.attn2, self.ff = block.attn1, block.attn2, block.ff

    def state_dict(self, **more):
        return {name: value for name, value in super().state_dict(**more).items() if not name.startswith("block.")}

    def named_parameters(self):
        names = set(self.state_dict())
        return [(name, p) for name, p in super().named_parameters(remove_duplicate=False) if name in names]

    def forward(self, x, context, y):
        vectors = self.modulation(nn.functional.silu(y))
        return self.block(x, encoder_hidden_states=context, timestep=vectors)


def res_block(inside, channels, groups, groups_out):
    """Ours has 32 groups, or fewer so that each has four channels at least."""
    return ResnetBlock2D(
        in_channels=inside,
        out_channels=channels,
        temb_channels=WIDTH,
        groups=groups,
        groups_out=groups_out,
        eps=1e-6,
        time_embedding_norm="scale_shift",
    )


class Named(nn.Module):
    """A convolution by the name `conv`."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv(x)


MODULES = {
    "cross-attention": lambda: Attention(WIDTH, WIDTH, heads=HEAD_COUNT, dim_head=HEAD, bias=True),
    "crossdit-block": Block,
    "uvit-res-block": lambda: res_block(16, 16, 4, 4),
    "uvit-res-block-with-shortcut": lambda: res_block(24, 12, 4, 2),
    "uvit-down": lambda: Named(nn.Conv2d(12, 24, 2, stride=2)),
    "uvit-up": lambda: Named(nn.ConvTranspose2d(24, 12, 2, stride=2)),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("part", PARTS.values(), ids=str)
def test_parts(part, seed, compared, recording):
    module, tensors, given = MODULES[part.name](), weights(part.shapes, seed), part.inputs(seed)
    assert torch_side.shapes(module) == dict(part.shapes)
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in tensors.items():
            parameters[name].copy_(torch.tensor(value))
    leaves = {name: torch.tensor(given[name]).requires_grad_() for name in part.inputs_}
    output = module(*leaves.values())
    output.backward(torch.tensor(given["cotangent"]))
    expected = torch_side.results(module, output, leaves)
    compared(part.name, part.ours(tensors, given), expected)
    if seed == 0:
        recording(part.name, expected, dict(part.shapes))


@pytest.mark.parametrize("width", [4, 32, 1152])
@pytest.mark.parametrize("side", [1, 2, 7, 16])
def test_positions(width, side):
    found = sincos_2d(side, side, width)
    expected = get_2d_sincos_pos_embed(width, side, base_size=side).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # both are rounded to float32: 6e-8 of 1
    # In a larger table, the middle is the image's; its first place is 0.
    stretched = sincos_2d(side, side, width, Positions(size=side, largest=side, base=2 * side))
    expected = get_2d_sincos_pos_embed(width, side, base_size=2 * side).numpy()
    np.testing.assert_allclose(stretched, expected, rtol=0, atol=4e-6)  # angles up to 30, which diffusers rounds: 2e-6


@pytest.mark.parametrize("shift", [0, 1])
def test_sinusoid(shift):
    steps = np.append(np.arange(1000), 62.5).astype(np.float32)
    found = np.asarray(layers.sinusoid(jnp.asarray(steps), shift))

    def theirs():
        return get_timestep_embedding(
            torch.tensor(steps), layers.FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=shift
        ).numpy()

    with torch_side.rounded_exp():
        np.testing.assert_allclose(found, theirs(), rtol=0, atol=2e-7)
    # torch's own exponential may be one unit in the last place of 1 off, which turns the largest angle by 1000 x 2^-23.
    np.testing.assert_allclose(found, theirs(), rtol=0, atol=1000 * 2**-23 + 2e-7)


@pytest.mark.parametrize("name", ["sd3-plain", "sd3-qk-norm", "dit-folder-sigma"])
def test_with_torchs_own_exponential(name, tmp_path):
    """The sinusoid's difference stays in the one gradient that multiplies it, the first matrix of the time's MLP."""
    case = CASES[name]
    module, given = torch_side.module(case, 0), case.inputs(0)
    found = ours(case, bring(case, torch_side.save(case, module, tmp_path)), given)
    expected = torch_side.theirs(case, module, given, context=torch_side.own_exp)
    first = next(key for key in found if key.endswith("timestep_embedder.linear_1.weight"))
    away = np.abs(found.pop(first) - expected[first]).max() / np.abs(expected.pop(first)).max()
    assert away <= 2**-23 * 1000 + TOLERANCE
    assert compare(found, expected).within


@pytest.mark.parametrize("name", ["sd3-dual-but-last", "sd3-plain", "dit-folder-sigma", "sit-sigma"])
def test_both_are_as_near_to_double_precision(name, tmp_path, compared):
    """Beside torch in float64, we are as near as torch's float32 is, up to a factor of four."""
    case = CASES[name]
    module, given = torch_side.module(case, 0), case.inputs(0)
    found = ours(case, bring(case, torch_side.save(case, module, tmp_path)), given)
    narrow = torch_side.theirs(case, module, given)
    wide = torch_side.theirs(case, module, given, torch.float64)
    compared(f"{case.layout} beside torch in float64", found, wide)
    mine, other = compare(found, wide), compare(narrow, wide)
    assert max(mine.output, mine.gradient) <= 4 * max(other.output, other.gradient)
