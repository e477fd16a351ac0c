"""DiT and SiT in plain torch, with the tensors' names and the order of operations of the published checkpoints.

Written from facts/repa.md, section 4; the originals need timm. Peebles & Xie 2023, Ma et al. 2024, Yu et al. 2025.
"""

import math

import torch
from torch import nn

FREQUENCIES = 256
EPSILON = 1e-6


def modulate(x, shift, scale):
    return nn.functional.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale[:, None]) + shift[:, None]


def sinusoid(t):
    """[cos | sin] of 128 frequencies, in float32."""
    half = FREQUENCIES // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angle = t.float()[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimeEmbedder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        return self.mlp(sinusoid(t).to(self.mlp[0].weight.dtype))


class LabelEmbedder(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)  # the last row is "no label"

    def forward(self, label):
        return self.embedding_table(label)


class PatchEmbedder(nn.Module):
    def __init__(self, patch, channels, width):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, z):
        return self.proj(z).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = MLP(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, y):
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(y).chunk(6, dim=1)
        x = x + gate[:, None] * self.attn(modulate(x, shift, scale))
        return x + gate_mlp[:, None] * self.mlp(modulate(x, shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, y):
        return self.linear(modulate(x, *self.adaLN_modulation(y).chunk(2, dim=1)))


def projector(width, hidden, target):
    """REPA's, from a token to an encoder's token."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, target)
    )


class SiT(nn.Module):
    """(z NCHW, t as this project counts it, label) -> all channels of the final layer."""

    def __init__(self, side, patch, channels, outputs, depth, width, heads, classes, projectors=(), hidden=0):
        super().__init__()
        self.patch, self.outputs = patch, outputs
        self.x_embedder = PatchEmbedder(patch, channels, width)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(classes, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, (side // patch) ** 2, width), requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch**2 * outputs)
        if projectors:
            self.projectors = nn.ModuleList(projector(width, hidden, target) for target in projectors)

    def forward(self, z, t, label):
        x, y = self.x_embedder(z) + self.pos_embed, self.t_embedder(t) + self.y_embedder(label)
        for block in self.blocks:
            x = block(x, y)
        x = self.final_layer(x, y)
        batch, _, rows, columns = z.shape
        x = x.reshape(batch, rows // self.patch, columns // self.patch, self.patch, self.patch, self.outputs)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, self.outputs, rows, columns)
