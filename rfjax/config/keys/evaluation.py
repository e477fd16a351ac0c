"""The section `evaluate`: the files that metrics need, and the job `evaluate`."""

import dataclasses

from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Names the networks and the reference of the metrics in sampling.metrics, and what the job `evaluate` measures."""

    inception: str = key(
        "",
        "Names the file of the Inception network of FID: torch-fidelity's or pytorch-fid's .pth, TensorFlow's "
        "classify_image_graph_def.pb, or .safetensors converted by `python -m rfjax.encoders.embedding.convert`.",
    )
    protocol: str = key(
        "adm",
        "Chooses how Inception sees a picture: `adm` as ADM's evaluator and torch-fidelity (TensorFlow 1's resize), "
        "`pytorch-fid` (half-pixel bilinear), `clean` as clean-fid (antialiased bicubic).",
        choices=("adm", "pytorch-fid", "clean"),
    )
    clip: str = key("", "Names the folder of CLIP L/14 with its tokenizer, for the CLIP score and CLIP-FID.")
    clip336: str = key("", "Names the folder of CLIP L/14 at 336 pixels, for CMMD.")
    dinov2: str = key("", "Names the folder of DINOv2 L/14 without registers, for FD-DINOv2.")
    pickscore: str = key("", "Names the folder of PickScore v1, a CLIP H/14 with its tokenizer.")
    hps: str = key(
        "", "Names the file of HPS v2 or v2.1, a CLIP H/14 in open_clip's layout; the tokenizer lies beside it."
    )
    lpips: str = key(
        "",
        "Names the folder of LPIPS: the backbone (vgg16 or alexnet, torchvision's .pth) and the heads (vgg.pth or "
        "alex.pth) of the package lpips.",
    )
