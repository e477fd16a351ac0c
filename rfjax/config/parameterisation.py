"""Checks of config.model.parameterisation against the rest of a config."""

from rfjax.config.keys import Config
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
            f"config.optimizer.depth_exponent = {exponent:g} and config.model.parameterisation = 'completep' would both "
            "scale the learning rate with depth: set config.optimizer.depth_exponent = 0"
        )
