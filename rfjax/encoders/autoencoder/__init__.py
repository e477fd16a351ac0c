"""The KL autoencoder of latent diffusion (diffusers' AutoencoderKL): pictures to latents and back."""

from rfjax.encoders.autoencoder.codec import AutoencoderCodec as AutoencoderCodec
from rfjax.encoders.autoencoder.codec import make as make
from rfjax.encoders.autoencoder.description import Architecture as Architecture
from rfjax.encoders.autoencoder.description import Description as Description
from rfjax.encoders.autoencoder.loading import Autoencoder as Autoencoder
from rfjax.encoders.autoencoder.loading import open_autoencoder as open_autoencoder
from rfjax.encoders.autoencoder.loading import write as write
