"""The keys of a config, and the checks of their values.

A file in `configs/` starts from `default()`, an `ml_collections.ConfigDict` that flags can override. `parse` checks the
result and returns a frozen `Config` before anything is compiled. This package imports no JAX.
"""

from rfjax.config.branches import Branch as Branch
from rfjax.config.branches import branches as branches
from rfjax.config.checks import check as check
from rfjax.config.checks import check_generate as check_generate
from rfjax.config.compared import compared_keys as compared_keys
from rfjax.config.compared import design_of as design_of
from rfjax.config.compared import target_of as target_of
from rfjax.config.compared import validated as validated
from rfjax.config.comparing import differences as differences
from rfjax.config.comparing import of_results as of_results
from rfjax.config.keys import Alignment as Alignment
from rfjax.config.keys import Archive as Archive
from rfjax.config.keys import Autoencoder as Autoencoder
from rfjax.config.keys import Cluster as Cluster
from rfjax.config.keys import Config as Config
from rfjax.config.keys import Data as Data
from rfjax.config.keys import Design as Design
from rfjax.config.keys import Encode as Encode
from rfjax.config.keys import Evaluate as Evaluate
from rfjax.config.keys import Flow as Flow
from rfjax.config.keys import Generate as Generate
from rfjax.config.keys import Mesh as Mesh
from rfjax.config.keys import Model as Model
from rfjax.config.keys import Optimizer as Optimizer
from rfjax.config.keys import Plan as Plan
from rfjax.config.keys import Recovery as Recovery
from rfjax.config.keys import Representations as Representations
from rfjax.config.keys import Sampling as Sampling
from rfjax.config.keys import Study as Study
from rfjax.config.keys import Suite as Suite
from rfjax.config.keys import Text as Text
from rfjax.config.keys import Training as Training
from rfjax.config.keys import Validation as Validation
from rfjax.config.latents import PICTURE_CHANNELS as PICTURE_CHANNELS
from rfjax.config.latents import check_z as check_z
from rfjax.config.latents import codec_name as codec_name
from rfjax.config.reading import axes as axes
from rfjax.config.reading import default as default
from rfjax.config.reading import describe as describe
from rfjax.config.reading import entries as entries
from rfjax.config.reading import filled as filled
from rfjax.config.reading import from_dict as from_dict
from rfjax.config.reading import parse as parse
from rfjax.config.reading import runs as runs
from rfjax.config.setting import PRESETS as PRESETS
from rfjax.config.setting import Setting as Setting
from rfjax.config.setting import setting as setting
from rfjax.config.setting import with_preset as with_preset
