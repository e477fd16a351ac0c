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
    reference: str = key(
        "train",
        "Names what generated pictures are compared with: a split of the model's own data (`train`, `validation`, "
        "`test`), a file of statistics (.npz of ADM, pytorch-fid or rfjax), an archive (.npz with arr_0), or a folder "
        "of pictures.",
    )
    reference_count: int = key(
        10_000,
        "Sets how many pictures of a split are the reference, the first ones. Published FIDs take all of the training "
        "data.",
        low=2,
        high=10**9,
    )
    classes_file: str = key(
        "", "Names a text file with the name of each class a line, which turns an archive's labels into captions."
    )
    source: str = key(
        "",
        "Names what the job `evaluate` measures: the folder of a study or of a run, another project's checkpoint, an "
        "archive (.npz with arr_0), a folder of pictures, or `autoencoder`, which reconstructs the validation pictures "
        "with config.autoencoder.path.",
    )
    checkpoints: str = key(
        "last",
        "Chooses the checkpoints of a run that the job `evaluate` measures.",
        choices=("last", "all"),
    )
    expected: tuple[str, ...] = key(
        (),
        "Lists known values as METRIC=VALUE, such as fid=3.9426: the job's report shows how far the measured ones are "
        "off.",
    )
    keep: bool = key(
        False, "Keeps the pictures that the job `evaluate` draws, as samples.npz of each model; else it removes them."
    )
