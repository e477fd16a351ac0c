"""The other project's side of a case, in torch: the module with its weights, and what it makes of the inputs."""

import contextlib
import os
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks for a file from elsewhere

import torch
from diffusers import DiTTransformer2DModel, SD3Transformer2DModel
from parity.reference_sit import SiT
from parity_cases import original, weight


def module(case, seed):
    """The network with the case's weights, in evaluation mode."""
    settings = {key: value for key, value in case.settings.items() if not key.startswith("_")}
    if case.layout == "sd3":
        made = SD3Transformer2DModel(**settings)
    elif case.layout == "dit-folder":
        made = DiTTransformer2DModel(**settings)
    else:
        made = SiT(
            settings["sample_size"],
            settings["patch_size"],
            settings["in_channels"],
            settings["out_channels"],
            settings["num_layers"],
            settings["num_attention_heads"] * settings["attention_head_dim"],
            settings["num_attention_heads"],
            settings["num_embeds_ada_norm"],
            settings.get("projectors", ()),
            settings.get("hidden", 0),
        )
    fill(made, seed)
    return made.eval()


def fill(made, seed):
    """Gives a module its weights."""
    state = made.state_dict()
    made.load_state_dict({name: torch.tensor(weight(name, tuple(old.shape), seed)) for name, old in state.items()})


def shapes(made):
    return {name: tuple(value.shape) for name, value in made.state_dict().items()}


def forward(case, made, z, t, given):
    """The module's answer in our conventions: t = 0 is data, the velocity points to noise."""
    if case.layout == "sd3":
        return made(z, given["context"], given["pooled"], 1000 * t).sample
    if case.layout == "dit-folder":
        return made(z, 1000 * t - 1, given["label"]).sample
    if case.layout == "dit":
        return made(z, 1000 * t - 1, given["label"])
    if case.layout == "sit":
        return -made(z, 1 - t, given["label"])[:, : z.shape[1]]
    return made(z, t, given["label"])


def rounded_exp():
    """Within it, torch.exp is the exponential rounded to the nearest float.

    torch's own is a unit in the last place off for two of the 128 frequencies 10,000^(-i / 128) on a CPU with AVX-512,
    and may be for others elsewhere. That turns the angle of t = 1 by up to 1000 x 2^-23 = 1.2e-4, so torch does not
    agree with itself to 1e-5 from one CPU to the next. Nothing else in these networks calls it (softmax does not).
    """
    exp = torch.exp
    return mock.patch.object(torch, "exp", lambda x: exp(x.double()).to(x.dtype))


own_exp = contextlib.nullcontext


def theirs(case, made, given, dtype=torch.float32, context=rounded_exp):
    """What the module makes of the inputs; context: `rounded_exp` or `own_exp`."""
    made.zero_grad()
    if dtype != torch.float32:
        made = made.to(dtype)
    tensors = {name: torch.tensor(value) for name, value in given.items()}
    leaves = {name: tensors[name].to(dtype).requires_grad_() for name in ("z", "context", "pooled") if name in tensors}
    with context():
        output = forward(case, made, leaves["z"], tensors["t"], tensors | leaves)
    output.backward(tensors["cotangent"].to(dtype))
    return results(made, output, leaves)


def results(made, output, leaves):
    """Output and gradients by name; the gradients of copies of one tensor are added up."""
    result = {"output": output.detach()} | {f"grad/{name}": leaf.grad for name, leaf in leaves.items()}
    for name, parameter in made.named_parameters():
        if parameter.requires_grad and not name.startswith("projectors."):
            key = f"grad/weight/{original(name)}"
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            result[key] = result[key] + gradient if key in result else gradient
    return {name: value.numpy().copy() for name, value in result.items()}


def save(case, made, folder):
    """The module's checkpoint as its project writes it; returns what to import."""
    if case.layout in ("sd3", "dit-folder"):
        made.save_pretrained(folder)
        return folder
    state = {name: value.detach().clone() for name, value in made.state_dict().items()}
    if case.layout != "sit":  # SiT's published file is the average alone
        old = {name: value + 1 for name, value in state.items()}
        state = {"model": old, "ema": state, "opt": {"state": {}, "param_groups": []}, "steps": 7}
    torch.save(state, folder / "x.pt")
    return folder / "x.pt"
