"""The section `data`: which examples a run sees."""

import dataclasses

from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Data:
    """Chooses the data set and says how its images are read."""

    name: str = key(
        "shapes",
        "Chooses the data source: `shapes` renders coloured shapes, `digits` are scikit-learn's 8 x 8 digits, `tfds` "
        "is a prepared TensorFlow Datasets data set, `folder` is a directory of images, `webdataset` are tar files of "
        "images and texts, `parquet` is a Hugging Face data set of images, `imagenet` has a directory for each class, "
        "`coco` has its own captions or instances, `latents` are stored latents, `moments` are the means and "
        "deviations of latents in REPA's layout. `none` stands in the config of an imported network that has no data.",
        choices=(
            "shapes",
            "digits",
            "tfds",
            "folder",
            "webdataset",
            "parquet",
            "imagenet",
            "coco",
            "latents",
            "moments",
            "none",
        ),
        paths=True,
    )
    image_size: int = key(
        16,
        "Sets the side of the square images that the source yields, in pixels; for stored latents it is the side in "
        "latent pixels. An autoencoder (config.autoencoder.path) makes latents of pictures, so that the network sees "
        "a smaller side. 0 takes the source's own size, which `shapes` (16) and `digits` (8) have.",
        low=0,
        high=16_384,
    )
    channels: int = key(
        3,
        "Sets the number of channels of an image or a latent that the source yields. 0 takes the source's own number, "
        "which `shapes` (3) and `digits` (1) have.",
        low=0,
        high=4096,
    )
    shape: tuple[int, ...] = key(
        (),
        "Sets the shape of one example as the source yields it, channels last: (H, W, C) of an image that is not "
        "square, (F, H, W, C) of a video. Empty takes (image_size, image_size, channels).",
        low=1,
        high=65_536,
    )
    codec: str = key(
        "",
        "Chooses what turns the data set's arrays into the network's input and samples into pictures: `pixels` scales "
        "pictures to -1 ... 1, `latents` passes stored latents on, `moments` draws latents from stored moments, afresh "
        "in each step. Empty takes the codec that is named like the source, `latents` for other numbers of channels "
        "than 1 and 3, else `pixels`.",
        choices=("", "pixels", "latents", "moments"),
        paths=True,
    )
    moments: str = key(
        "std",
        "Says how the codec `moments` reads the second half of the channels: as the standard deviation (`std`, REPA's "
        "files) or the log variance (`logvar`, U-ViT's, clamped to -30 ... 20). `mode` takes the mean alone.",
        choices=("std", "logvar", "mode"),
    )
    latent_scale: float = key(
        0.18215,
        "Multiplies the latents that the codec `moments` draws, so that their standard deviation is about 1. 0.18215 "
        "is that of Stable Diffusion's first autoencoder. With config.autoencoder.path the autoencoder's own shift and "
        "scale are taken instead.",
        low=1e-6,
        high=1e6,
    )
    resize: str = key(
        "crop",
        "Sets how an image becomes square: `crop` keeps the proportions and cuts off the longer side, `squash` changes "
        "the proportions and keeps all of the image, `adm` crops as ADM, DiT, SiT and REPA do with ImageNet: it halves "
        "the image by a box filter before the bicubic one.",
        choices=("crop", "squash", "adm"),
    )
    flip: bool = key(
        False,
        "Mirrors each training image with probability 1/2. Leave it off for `shapes`, `digits`, and captions that "
        "mention left and right, because mirrored images would contradict them. Stored latents and moments are "
        "mirrored too, though an autoencoder makes other latents of a mirrored image; SiT mirrors images before "
        "encoding, REPA mirrors nothing.",
    )
    synthetic_share: float = key(
        0.0,
        "Sets the probability that training takes a synthetic caption of an example that has original and synthetic "
        "ones; SD3 takes 0.5. Validation and prompts take the first original. The lines of training then count both "
        "kinds: captions_synthetic and captions_original.",
        low=0,
        high=1,
    )
    alt_text: float = key(
        0.0,
        "Sets the share of damaged words (colours, shapes, numbers, relations) in the original captions of the "
        "training examples of `shapes`: two of three are missing, one is wrong. The whole caption is then the "
        "synthetic one; validation and prompts have whole captions. 0 damages nothing.",
        low=0,
        high=1,
    )
    other_words: bool = key(
        False,
        "Says every second caption of the validation and test examples of `shapes` in words that training never has, "
        "such as `a scarlet disc` for `a red circle`. Their scores are apart.",
    )
    dataset: str = key(
        "",
        "Names the prepared data set of `tfds`. Add `:version` or `/config` if the folder holds several.",
    )
    data_dir: str = key("work/tfds", "Names the folder that holds the prepared data sets of `tfds`.")
    train_split: str = key("train[:95%]", "Selects the slice of a `tfds` data set that is trained on.")
    validation_split: str = key(
        "train[95%:]", "Selects the slice of a `tfds` data set that measures validation losses."
    )
    image_key: str = key(
        "",
        "Names the feature of `tfds`, the column of `parquet` or the field of `webdataset`, such as `jpg`, that holds "
        "the image. Empty finds it by its type.",
    )
    label_key: str = key(
        "",
        "Names the feature of `tfds`, the column of `parquet`, or the field or key of .json of `webdataset` that holds "
        "the class label. Empty finds it by its type.",
    )
    caption_key: str = key(
        "",
        "Names the feature of `tfds`, the column of `parquet`, or the field or key of .json of `webdataset` that holds "
        "the caption. Empty finds it by its name.",
    )
    synthetic_key: str = key(
        "",
        "Names the column of `parquet`, the field or key of .json of `webdataset`, or the key in the captions file of "
        "`folder` that holds a synthetic caption, which a model wrote. Empty takes `synthetic` of `folder` and none of "
        "the others.",
    )
    caption_template: str = key(
        "a photo of a {}",
        "Makes a caption for an example without one: the name of its label, or of the objects of a `coco` image, "
        "replaces `{}`.",
    )
    classes_file: str = key(
        "",
        "Names a file with the name of a class in each line, for `imagenet`, `webdataset` and `parquet`. A line of "
        "`imagenet` begins with its folder, as in LOC_synset_mapping.txt. Without it, `imagenet` takes the names of "
        "its folders.",
    )
    labels_file: str = key(
        "",
        "Names a file with the class of each picture of `imagenet` that is not in the directory of its class, as those "
        "of val/: in each line a file and its class's folder (LOC_val_solution.csv), or a class's folder alone, in the "
        "order of the files.",
    )
    annotations: str = key(
        "",
        "Names the JSON file of `coco`; `{}` stands for train or val. Empty takes annotations/captions_{}*.json, or, "
        "without it, annotations/instances_{}*.json.",
    )
    path: str = key(
        "",
        "Names the directory of images of `folder`, `imagenet` or `coco`, the directory or file of `webdataset` or "
        "`parquet`, the directory of `latents` that holds train/ and validation/, or the directory of `moments` that "
        "holds vae-sd/.",
    )
    validation_path: str = key(
        "",
        "Names another directory of `latents`, whose validation/ is taken in place of that of `path`: the paper trains "
        "on CC12M and validates on COCO.",
    )
    captions_file: str = key(
        "captions.jsonl",
        "Names the JSON-lines file of captions in the directory of `folder`. If the default file does not exist, "
        "metadata.jsonl is read instead.",
    )
    validation_percent: float = key(
        5.0,
        "Sets the percentage of the examples that are kept out of training for the validation loss. It applies to "
        "`folder`, and to other files and directories that have no validation split.",
        low=0,
        high=99,
    )
    layout: str = key(
        "",
        "Sets the order of the axes in the files of `latents`. Empty finds the order from the arrays' shape.",
        choices=("", "nhwc", "nchw"),
    )
    outside: bool = key(
        False,
        "Allows data files outside the data set's own folder, reached by a path in the captions file or through a "
        "symbolic link. Switch it on only for data that you trust.",
    )
    changed: str = key(
        "refuse",
        "Sets what happens when the data differ from those that a run recorded: `refuse` stops the job, `allow` "
        "continues and states the difference in the report.",
        choices=("refuse", "allow"),
    )
    max_bad: float = key(
        0.05,
        "Sets the largest fraction of broken records that are left out or replaced with a warning. The job stops if "
        "there are more.",
        low=0,
        high=1,
    )
    cache_mb: float = key(
        512.0,
        "Keeps the decoded images in memory if a split fits in this many MiB. A larger value uses more memory and "
        "saves decoding in every epoch.",
        low=0,
        high=1e7,
    )
    window_mb: float = key(
        256.0,
        "Sets how much of `parquet` is shuffled at once in MiB: its row groups are shuffled, then the rows of as many "
        "groups as fit in this window. Two windows lie in memory. A larger value shuffles better; the order of the "
        "examples changes with it.",
        low=0,
        high=1e7,
    )
    readers: int = key(
        -1,
        "Sets the number of processes that read and decode images beside the training process. -1 takes one for each "
        "core, at most 16, unless the decoded images lie in memory; 0 decodes in threads of the training process. The "
        "examples are the same.",
        low=0,
        high=1024,
        also=-1,
    )
