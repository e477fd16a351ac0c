"""Checks of config.model.parameterisation and head_width against the rest of a config."""

from rfjax.config.keys import Config, Model
from rfjax.errors import UserError


def check_parameterisation(config: Config) -> None:
    """Refuses a parameterisation of weights that are not trained, and a second rule for depth."""
    name, exponent = config.model.parameterisation, config.optimizer.depth_exponent
    if name != "standard" and config.model.adapter:
        raise UserError(
            f"config.model.parameterisation = '{name}' scales the network's own weights, which "
            "config.model.adapter freezes: set config.model.parameterisation = 'standard'"
        )
    if name == "completep" and exponent:
        raise UserError(
            f"config.optimizer.depth_exponent = {exponent:g} and config.model.parameterisation = 'completep' would "
            "both scale the learning rate with depth: set config.optimizer.depth_exponent = 0"
        )


def check_heads(model: Model) -> None:
    """Refuses heads of a width that the network's own has no whole number of, or that are counted as well."""
    width, head = model.chosen_width, model.head_width
    if head and model.heads:
        raise UserError(
            f"config.model.head_width = {head} and config.model.heads = {model.heads} both choose the number of heads: "
            "set one of them to 0"
        )
    if head and width % head:
        near = next(n for n in range(head, 0, -1) if width % n == 0)
        raise UserError(f"config.model.head_width = {head} does not divide the width, {width}: take {near}")
