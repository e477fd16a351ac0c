"""The mathematics of flows: arrays in, arrays out. t = 0 is data, t = 1 is noise."""

from rfjax.flow.denoiser import Denoiser as Denoiser
from rfjax.flow.denoiser import Sampled as Sampled
from rfjax.flow.formulations import KINDS as KINDS
from rfjax.flow.formulations import Coefficients as Coefficients
from rfjax.flow.formulations import Formulation as Formulation
from rfjax.flow.formulations import FormulationArrays as FormulationArrays
from rfjax.flow.formulations import formulation as formulation
from rfjax.flow.guidance import Guidance as Guidance
from rfjax.flow.guidance import guided as guided
from rfjax.flow.losses import cfm_loss as cfm_loss
from rfjax.flow.losses import noised as noised
from rfjax.flow.losses import squared_error as squared_error
from rfjax.flow.samplers import DIFFUSIONS as DIFFUSIONS
from rfjax.flow.samplers import SAMPLERS as SAMPLERS
from rfjax.flow.samplers import sampler as sampler
from rfjax.flow.schedules import SCHEDULES as SCHEDULES
from rfjax.flow.schedules import Schedule as Schedule
from rfjax.flow.schedules import of_times as of_times
from rfjax.flow.schedules import schedule as schedule
from rfjax.flow.schedules import tabulated as tabulated
from rfjax.names import OWN as OWN
from rfjax.names import TABLE_1 as TABLE_1
from rfjax.names import schedule_of as schedule_of
