"""SiT's and REPA's own conventions end to end: the direction of time, the sign, the projectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from parity import torch_side
from parity_cases import CASES, SEEDS, bring, uniform

from rfjax import flow
from rfjax.conditioning import TextConditioning
from rfjax.models.projector import Projector

STEPS = 8  # of Euler: with a power of two, both sides' times are the same numbers


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["sit-sigma", "sit-plain", "repa-one-projector"])
def test_euler_from_noise_to_data(name, seed, tmp_path, compared):
    """SiT goes from t = 0 to 1 along v, REPA and we from 1 to 0 against it: the same pictures from the same noise."""
    case = CASES[name]
    module = torch_side.module(case, seed)
    made, given = bring(case, torch_side.save(case, module, tmp_path)), case.inputs(seed)
    label, z = torch.tensor(given["label"]), torch.tensor(given["z"])
    with torch.no_grad(), torch_side.rounded_exp():
        for i in range(STEPS):
            if case.layout == "sit":
                t = torch.full((len(z),), i / STEPS)
                z = z + module(z, t, label)[:, : z.shape[1]] / STEPS
            else:
                t = torch.full((len(z),), 1 - i / STEPS)
                z = z - module(z, t, label) / STEPS
    formulation = flow.formulation(made.config.flow.formulation)
    pooled = jnp.eye(11, dtype=np.float32)[given["label"]][:, :10]
    params, cond = jax.tree.map(np.asarray, made.params), TextConditioning(jnp.zeros((len(z), 0, 1)), pooled)
    network = lambda z, t, cond: made.spec.model.apply({"params": params}, z, t, cond)  # noqa: E731
    field = flow.Denoiser(flow.guided(network, cond, flow.Guidance(1.0)), formulation)
    start, grid = given["z"].transpose(0, 2, 3, 1), flow.schedule("uniform", STEPS, formulation)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(lambda z: flow.sampler("euler")(field, z, grid, None).z)(start)
    found = np.asarray(found.transpose(0, 3, 1, 2))
    compared(f"{case.layout}: {STEPS} steps of Euler", {"output": found}, {"output": z.numpy()})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["repa-one-projector", "repa-two-projectors"])
def test_projectors(name, seed, tmp_path, compared):
    case = CASES[name]
    module = torch_side.module(case, seed)
    made = bring(case, torch_side.save(case, module, tmp_path))
    assert made.config.model.projectors == case.settings["projectors"]
    for i, target in enumerate(case.settings["projectors"]):
        width = case.settings["num_attention_heads"] * case.settings["attention_head_dim"]
        x = uniform("tokens", (2, 9, width), seed).astype(np.float32)
        cotangent = uniform("cotangent", (2, 9, target), seed).astype(np.float32)
        there, leaf = module.projectors[i], torch.tensor(x).requires_grad_()
        there.zero_grad()
        output = there(leaf)
        output.backward(torch.tensor(cotangent))
        expected = torch_side.results(there, output, {"x": leaf})
        ours = Projector(target, case.settings["hidden"])
        with jax.default_matmul_precision("highest"):
            params = jax.tree.map(np.asarray, made.params[f"projector_{i}"])
            output, pull = jax.vjp(jax.jit(lambda p, x, m=ours: m.apply({"params": p}, x)), params, x)
            of_params, of_x = pull(cotangent)
        found = {"output": output, "grad/x": of_x}
        for j in range(3):
            layer = of_params[f"fc{j + 1}"]
            found |= {f"grad/weight/{2 * j}.weight": layer["kernel"].T, f"grad/weight/{2 * j}.bias": layer["bias"]}
        compared("repa: projectors", {key: np.asarray(value) for key, value in found.items()}, expected)


def test_the_average_is_read_where_a_file_has_one(tmp_path):
    case = CASES["repa-one-projector"]
    module = torch_side.module(case, 0)
    made = bring(case, torch_side.save(case, module, tmp_path))  # its "model" is another
    table = np.asarray(made.params["label_embed"]["embedding"])
    np.testing.assert_array_equal(table, module.y_embedder.embedding_table.weight.detach().numpy())
