"""Reads numbers and names of a config.json, each checked."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from rfjax.errors import UserError, nearest

LARGEST = 2**20  # of any size


class Fields:
    """The settings of a network.

    Attributes:
        settings: of config.json.
        where: its name, for messages.
    """

    def __init__(self, settings: Any, where: str) -> None:
        """Raises UserError if the settings are no JSON object."""
        if not isinstance(settings, Mapping):
            raise UserError(f"{where} describes no network: take the config.json that came with the weights")
        self.settings, self.where = settings, where

    def whole(self, name: str, default: int, low: int = 1) -> int:
        """A whole number."""
        value = self._get(name, default)
        if type(value) is not int or not low <= value <= LARGEST:
            raise UserError(
                f"{self.where} has {name} = {value!r:.40}: it must be a whole number from {low} to {LARGEST}"
            )
        return value

    def divisor(self, name: str, default: int, of: int) -> int:
        """A whole number that divides another."""
        value = self.whole(name, default)
        if of % value:
            raise UserError(f"{self.where} has {name} = {value}, which does not divide the width {of}")
        return value

    def multiple(self, name: str, default: int, of: int) -> int:
        """A whole number that another divides."""
        value = self.whole(name, default)
        if value % of:
            raise UserError(f"{self.where} has {name} = {value}: it must be a multiple of {of}")
        return value

    def number(self, name: str, default: float) -> float:
        """A number above 0, below 1."""
        value = self._get(name, default)
        if type(value) not in (int, float) or not (math.isfinite(value) and 0 < value < 1):
            raise UserError(f"{self.where} has {name} = {value!r:.40}: it must be a number between 0 and 1")
        return float(value)

    def choice(self, name: str, default: str, choices: Iterable[str]) -> str:
        """One of several words."""
        value, choices = self._get(name, default), list(choices)
        if value not in choices:
            raise UserError(
                f"{self.where} has {name} = {value!r:.40}, which is not known here{nearest(str(value), choices)}"
            )
        return value

    def _get(self, name: str, default: Any) -> Any:
        value = self.settings.get(name)
        return default if value is None else value
