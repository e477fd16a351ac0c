"""Flax modules: depth -> widths; each counts its own parameters and FLOPs."""

from rfjax.models.backbone import Backbone as Backbone
from rfjax.models.backbones import BACKBONES as BACKBONES
from rfjax.models.backbones import build as build
from rfjax.models.counting import Size as Size
from rfjax.models.counting import measure as measure
from rfjax.models.inputs import Inputs as Inputs
from rfjax.models.positions import Positions as Positions
