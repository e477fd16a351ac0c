"""What depends on an autoencoder between the data's pictures and the network."""

from rfjax.config.keys import Config, Data
from rfjax.errors import UserError

PICTURE_CHANNELS = (1, 3)  # grey, or red, green and blue


def codec_name(data: Data) -> str:
    """The codec that `config.data` names: the source's own, else of pictures for 1 or 3 channels, or of latents."""
    own = data.name if data.name in ("latents", "moments") else ""
    return data.codec or own or ("pixels" if data.channels in PICTURE_CHANNELS else "latents")


def encodes_pictures(config: Config) -> bool:
    """Whether an autoencoder stands between the data's pictures and the network."""
    return bool(config.autoencoder.path) and codec_name(config.data) == "pixels"


def check_z(config: Config, shape: tuple[int, ...]) -> None:
    """Checks what depends on the latents that an autoencoder makes of the data's pictures.

    Args:
        config: of the run.
        shape: of z, (h, w, channels).

    Raises:
        UserError: if the network can't be built for them, or guidance not be applied.
    """
    if not encodes_pictures(config):
        return
    model, (height, width, channels) = config.model, shape
    made = f"the autoencoder makes latents of {height} x {width} x {channels} of config.data's pictures"
    if height % model.patch or width % model.patch:
        raise UserError(f"{made}, which config.model.patch = {model.patch} does not divide")
    if 0 < model.largest_image < max(height, width):
        raise UserError(f"{made}, and config.model.largest_image = {model.largest_image} latent pixels is smaller")
    if config.sampling.guidance_channels > channels:
        raise UserError(
            f"{made}, and config.sampling.guidance_channels = {config.sampling.guidance_channels} exceeds their "
            "channels: 0 guides all"
        )
