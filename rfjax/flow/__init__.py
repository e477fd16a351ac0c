"""The mathematics of flows: arrays in, arrays out. t = 0 is data, t = 1 is noise."""

from rfjax.flow.formulations import Formulation as Formulation
from rfjax.flow.formulations import formulation as formulation
from rfjax.flow.guidance import drop_text as drop_text
from rfjax.flow.guidance import guided as guided
from rfjax.flow.losses import cfm_loss as cfm_loss
from rfjax.flow.losses import squared_error as squared_error
from rfjax.flow.samplers import SAMPLERS as SAMPLERS
from rfjax.flow.samplers import euler as euler
from rfjax.flow.samplers import uniform_times as uniform_times
