import contextlib
import copy
import functools
import json

import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax.errors import UserError


def changed(**sections):
    c = tiny()
    for section, values in sections.items():
        (c[section] if section else c).update(values)
    return c


SD3 = {"encoder": "sd3", "path": "pipeline", "length": 154}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"model": {"depth": 0}}, "config.model.depth = 0 must be from 1 to 1000"),
        ({"model": {"patch": 5}}, "config.data.image_size = 16 is not a multiple of config.model.patch = 5"),
        ({"model": {"precision": "float31"}}, "did you mean 'float32'"),
        ({"model": {"width": 30}}, "config.model.width = 30 must be a multiple of 4"),
        ({"model": {"width": 32, "heads": 5}}, "a width of 32 can't be split over 5 attention heads"),
        ({"model": {"largest_image": 8}}, "config.model.largest_image = 8 is smaller than config.data.image_size = 16"),
        ({"model": {"backbone": "mmdit3"}}, "set config.text.vocabularies = 2"),
        ({"model": {"backbone": "uvit", "patch": 1}}, "config.model.patch = 1 must be 2, 4, 8"),
        ({"model": {"backbone": "dit", "dual_blocks": 1}}, "must be at most 0 for 'dit' of depth 2"),
        ({"model": {"dual_blocks": 5}}, "must be at most 2 for 'mmdit' of depth 2"),
        ({"model": {"learn_sigma": True}}, "config.model.learn_sigma works with dit and sit, not with 'mmdit'"),
        (
            {"model": {"backbone": "uvit", "patch": 2, "modulation": "token"}},
            "works with mmdit, mmdit3, dit, sit and crossdit",
        ),
        ({"text": {"width": 0}}, "config.text.width = 0 takes the size of 'sd3' or 'sentence': 'words' needs a number"),
        ({"text": {"encoder": "stored", "null": "empty"}}, "which 'stored' can't: set it to 'zeros'"),
        ({"text": {"encoder": "sd3"}}, "config.text.path must name the folder of a diffusers pipeline"),
        ({"text": SD3 | {"parts": ()}}, "config.text.parts is empty"),
        ({"text": SD3 | {"parts": ("clip",)}}, "did you mean 'clip_"),
        ({"text": SD3 | {"length": 77}}, "CLIP has 77 tokens, and T5 needs more"),
        ({"text": SD3 | {"length": 76, "parts": ("clip_l",)}}, "CLIP has 77 tokens, without T5's"),
        (
            {"text": SD3 | {"length": 77, "parts": ("clip_l",)}, "model": {"backbone": "mmdit3"}},
            "length > 77 for 'sd3'",
        ),
        ({"text": {"encoder": "sentence"}, "model": {"backbone": "mmdit3"}}, "has weights for two kinds of text"),
        ({"text": {"encoder": "labels"}}, "with config.text.encoder = 'labels', take dit or sit"),
        ({"data": {"name": "shape"}}, "did you mean 'shapes'"),
        ({"data": {"image_size": 8}}, "at least 16 pixels"),
        ({"data": {"flip": True}}, "flip"),
        ({"data": {"name": "tfds"}}, "config.data.dataset"),
        ({"data": {"name": "folder"}}, "config.data.path"),
        ({"text": {"drop": 1.5}}, "config.text.drop = 1.5 must be from 0 to 1"),
        ({"validation": {"examples": 20}}, "multiple of the 8 levels"),
        ({"validation": {"along": 12}}, "validation.along = 12 must be a multiple of the 8 levels"),
        ({"optimizer": {"warmup": 8, "decay": "cosine"}}, "leaves no steps to decay in"),
        ({"optimizer": {"flatten": True, "weight_decay": 0.1}}, "flatten"),
        ({"sampling": {"settings": ("0@5.0",)}}, "a sampler takes from 1 to 100,000"),
        ({"sampling": {"settings": ()}}, "config.sampling.settings is empty"),
        ({"text": {"drop": 0.0}}, "never trains without text: use '2@1.0'"),
        ({"text": {"drop": 1.0}}, "the model sees no text"),
        ({"sampling": {"guidance_low": 0.6, "guidance_high": 0.5}}, "must be an interval within [0, 1]"),
        ({"sampling": {"sampler": "eulr"}}, "did you mean 'euler'"),
        ({"training": {"select": "best"}}, "needs a checkpoint at every validation"),
        ({"data": {"name": "folder", "path": "x", "image_size": 0}}, "'folder' has no size of its own"),
        ({"optimizer": {"b1": 1.5}}, "config.optimizer.b1 = 1.5 must be from 0 to 0.99999"),
        ({"optimizer": {"ema_decay": 1.5}}, "config.optimizer.ema_decay = 1.5 must be from 0 to 1"),
        ({"optimizer": {"eps": 0.0}}, "config.optimizer.eps = 0.0 must be from 1e-30 to 1"),
        ({"data": {"shape": (16, 16)}}, "must be (H, W, C) of an image"),
        ({"data": {"shape": (3, 16, 16, 3)}, "model": {"frame_patch": 2}}, "no multiple of frame_patch = 2"),
        ({"data": {"shape": (4, 16, 16, 3)}, "model": {"stored_positions": 8}}, "positions by formula"),
        ({"data": {"shape": (16, 15, 3)}}, "config.data.shape = (16, 15, 3) is not a multiple of"),
        ({"model": {"projectors": (-1,)}}, "config.model.projectors = -1 must be from 1 to 65536"),
        (
            {"sampling": {"guidance_channels": 99}},
            "config.sampling.guidance_channels = 99 exceeds config.data.channels",
        ),
        ({"recovery": {"explosion": 0.5}}, "config.recovery.explosion = 0.5 must be from 1.01 to 1000000000, or 0"),
        ({"cluster": {"process": -7}}, "config.cluster.process = -7 must be from -1 to 1048576"),
        ({"plan": {"utilisation": float("inf")}}, "config.plan.utilisation = inf must be a finite number"),
        ({"training": {"seed": 2**32}}, "config.training.seed = 4294967296 must be from 0 to 4294967295"),
        ({"mesh": {"fsdp": 0}}, "config.mesh.fsdp = 0 must be from 1 to 1048576, or -1"),
        ({"optimizer": {"learning_rate": float("nan")}}, "config.optimizer.learning_rate = nan must be a finite"),
        ({"model": {"attention": "cudnn"}}, "'cudnn' needs config.model.precision = 'bfloat16'"),
        ({"sampling": {"settings": ("2@3", "2@3.0")}}, "config.sampling.settings names '2@3.0' twice"),
        ({"sampling": {"settings": ("repa-sde@3",)}}, "such as 'repa-sde-250@1.8' (did you mean 'repa-sde-250'?)"),
        ({"sampling": {"settings": ("repa-ode-50@1.5",)}, "text": {"drop": 0.0}}, "use 'repa-ode-50@1.0'"),
        ({"generate": {"preset": "repa"}}, "config.generate.preset = 'repa' is not one of its choices"),
        ({"suite": {"name": "genval"}}, "did you mean 'geneval'"),
        ({"suite": {"per_prompt": -1}}, "config.suite.per_prompt = -1 must be from 0 to 10000"),
        ({"archive": {"rounding": "floor"}}, "config.archive.rounding = 'floor' is not one of its choices"),
        (
            {"generate": {"source": "x", "prompts": ("7",)}, "": {"job": "archive"}},
            "the job 'archive' takes the labels that config.archive.labels says",
        ),
        ({"data": {"path": "a\0b"}}, "config.data.path holds the character U+0000"),
        ({"data": {"caption_template": "\ud83d"}}, "config.data.caption_template holds the character U+D83D"),
        ({"data": {"path": "x" * 5000}}, "config.data.path has 5,000 characters"),
        ({"training": {"batch": -4}}, "config.training.batch = -4 must be from 1 to 16777216"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_key(sections, words):
    with pytest.raises(UserError) as error:
        configs.parse(changed(**sections))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_type_and_an_unknown_key_are_named():
    plain = configs.parse(tiny()).to_dict()
    plain["model"]["depth"] = "four"
    with pytest.raises(UserError, match=r"config.model.depth must be of type int, not str"):
        configs.from_dict(plain)
    plain["model"].pop("depth")
    plain["model"]["dept"] = 4
    with pytest.raises(UserError, match=r"no key 'model.dept' \(did you mean 'depth'\?\)"):
        configs.from_dict(plain)


def test_a_config_survives_json_and_integers_pass_as_floats():
    c = tiny()
    configs.axes(c, {"model.depth": (1, 2), "optimizer.learning_rate": (1e-3, 2e-3)})
    config = configs.parse(c)
    assert configs.from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert configs.from_dict({"optimizer": {"learning_rate": 1}}).optimizer.learning_rate == 1.0


def test_the_grid_is_every_combination_with_readable_names():
    c = tiny()
    configs.axes(c, {"model.depth": (1, 2), "optimizer.learning_rate": (1e-3, 2e-3)})
    runs = dict(configs.runs(configs.parse(c)))
    assert list(runs) == ["d1-lr0.001", "d1-lr0.002", "d2-lr0.001", "d2-lr0.002"]
    assert (runs["d2-lr0.001"].model.depth, runs["d2-lr0.001"].optimizer.learning_rate) == (2, 1e-3)
    assert [name for name, _ in configs.runs(configs.parse(tiny()))] == ["run"]


def test_an_axis_must_be_a_key_and_its_values_must_fit():
    c = tiny()
    with pytest.raises(UserError, match=r"model.depht is not a key.*did you mean 'model.depth'"):
        configs.axes(c, {"model.depht": (1, 2)})
    c = tiny()
    configs.axes(c, {"model.depth": (2, 0)})
    with pytest.raises(UserError, match=r"config.model.depth = 0 must be from 1 to 1000"):
        configs.parse(c)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data.caption_template": ("a/b {}", "a_b {}")}, "would share the folder"),
        ({"optimizer.learning_rate": (0.1, 0.10000000001)}, "would share the folder 'lr0.1': optimizer.learning_rate"),
        ({"model.depth": (1, 1)}, "would share the folder 'd1'"),
        ({"data.caption_template": ("A {}", "a {}")}, "would share the folder"),
        ({"model.depth": ()}, "config.study.axes.model.depth has no values"),
        ({"study.hold_out": (0, 1)}, "config.study holds for all of them"),
        ({"training.seed": range(200), "training.steps": range(1, 200)}, "39,800 runs, and at most 10,000"),
        ({"data.caption_template": ("x" * 300,)}, "has a name of over 200 bytes"),
        ({"optimizer.learning_rate": (0.1, float("inf"))}, "config.optimizer.learning_rate = inf must be a finite"),
        ({"training.seed": ("one",)}, "config.training.seed must be of type int, not str"),
    ],
)
def test_axes_that_make_no_study_are_one_sentence(values, words):
    c = tiny()
    configs.axes(c, values)
    with pytest.raises(UserError) as error:
        configs.parse(c)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_every_number_has_a_lowest_and_a_highest_value_around_its_default():
    for path, default, rule in configs.entries():
        if path == "model.projectors" or (isinstance(default, int | float) and not isinstance(default, bool)):
            assert rule["low"] < rule["high"], path
            assert default == () or rule["low"] <= default <= rule["high"] or default == rule["also"], path


WILD = (
    -7,
    0,
    10**12,
    10**400,
    -1e300,
    float("nan"),
    float("inf"),
    "text",
    "",
    (),
    (1, 2),
    ("a",),
    True,
    None,
    {"a": 1},
)


@pytest.mark.parametrize("value", WILD, ids=lambda value: repr(value)[:20])
def test_every_key_takes_a_wild_value_or_names_itself(value):
    plain = configs.parse(tiny()).to_dict()
    for path, default, _ in configs.entries():
        if isinstance(default, dict):
            continue
        changed = copy.deepcopy(plain)
        *sections, name = path.split(".")
        functools.reduce(dict.__getitem__, sections, changed)[name] = value
        try:
            config = configs.from_dict(changed)
        except UserError as error:
            assert f"config.{path}" in str(error) and "\n" not in str(error)
            continue
        with contextlib.suppress(UserError):
            configs.check(config)
        assert configs.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config


@pytest.mark.parametrize("workdir", ["", "x" * 300, "/tmp/" + "x/" * 2000], ids=["none", "name", "path"])
def test_a_work_folder_that_no_file_system_takes_is_refused(workdir):
    c = tiny()
    c.workdir = workdir
    with pytest.raises(UserError, match=r"config\.workdir .*(must name|is too long)"):
        configs.parse(c)


def test_differences_name_the_key_and_leave_operational_ones_aside():
    ours = configs.parse(tiny()).to_dict()
    theirs = configs.parse(changed(mesh={"fsdp": 2}, training={"keep_checkpoints": 9})).to_dict() | {"workdir": "x"}
    assert configs.differences(ours, theirs) == []
    theirs = configs.parse(changed(training={"batch": 16})).to_dict()
    assert configs.differences(ours, theirs) == ["training.batch is 16 there and 8 here"]
    ours["sampling"], theirs["sampling"] = {"metrics": ["own"]}, {"metrics": ["own", "fid"]}
    assert "sampling.metrics is ('own', 'fid') there and ('own',) here" in configs.differences(ours, theirs)


def test_a_study_from_before_grids_were_the_formulation_s_own_goes_on_where_they_are_the_same():
    older = lambda name: configs.parse(changed(sampling={"schedule": "uniform"}, flow={"formulation": name})).to_dict()  # noqa: E731
    newer = lambda name: configs.parse(changed(flow={"formulation": name})).to_dict()  # noqa: E731
    assert configs.differences(newer("rf"), older("rf")) == []
    said = configs.differences(newer("edm(-1.20,1.20)"), older("edm(-1.20,1.20)"))
    assert said == ["sampling.schedule is 'uniform' there and 'karras' here"]


def sample_job(**values):
    c = configs.default()
    c.job = "generate"
    c.generate.update(source="somewhere")
    c.generate.update(values)
    return c


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": ""}, "config.generate.source must name the folder of a run"),
        ({"steps": 0}, "config.generate.steps = 0 must be from 1 to 100000"),
        ({"guidance": float("inf")}, "must be a finite number, from 0 to 10000"),
        ({"seed": 2**32}, "must be from 0 to 4294967295"),
        ({"prompts": ("a",), "encodings": "x.npz"}, "set one of them"),
        ({"prompts": (207,)}, "config.generate.prompts must be of type str, not int (207)"),
        ({"weights": "emma"}, "did you mean 'ema'?"),
    ],
)
def test_a_job_of_samples_that_no_model_could_do_is_one_sentence(values, words):
    with pytest.raises(UserError) as error:
        configs.parse(sample_job(**values))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "run", "words"),
    [
        ({"height": 6}, {}, "height = 6 is not a multiple of the model's patch, 4: take 4 or 8"),
        ({"width": 2}, {}, "take 4"),
        ({"width": 20}, {}, "width = 20, and this model has positions for 16 at most"),
        ({"width": 20}, {"model": {"largest_image": 16}}, "positions for 16 at most"),
        ({"width": 36}, {"model": {"stored_positions": 8}}, "positions for 32 at most"),
        (
            {},
            {"text": {"drop": 0.0}, "sampling": {"count": 0}},
            "never trains without text: set config.generate.guidance",
        ),
        ({"prompts": ("a",)}, {"text": {"encoder": "stored"}}, "or an .npz file"),
    ],
)
def test_what_a_model_can_t_draw_is_one_sentence(values, run, words):
    with pytest.raises(UserError) as error:
        configs.check_generate(configs.parse(sample_job(**values)).generate, configs.parse(changed(**run)), (16, 16))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_draws_at_its_own_size_or_at_another():
    check = lambda values, **run: configs.check_generate(  # noqa: E731
        configs.parse(sample_job(**values)).generate, configs.parse(changed(**run)), (16, 16)
    )
    assert check({}) == (16, 16)
    assert check({"height": 8, "prompts": ("a",)}) == (8, 16)
    assert check({"width": 24}, model={"largest_image": 24}) == (16, 24)
    assert check({"width": 32}, model={"stored_positions": 8}) == (16, 32)
    assert check({"guidance": 1.0}, text={"drop": 1.0}, sampling={"count": 0}) == (16, 16)


def test_a_study_does_not_know_what_samples_were_drawn():
    plain = configs.parse(tiny()).to_dict()
    older = {name: value for name, value in plain.items() if name != "generate"}
    assert configs.from_dict(older) == configs.parse(tiny())
    assert configs.differences(configs.parse(changed(generate={"seed": 3})).to_dict(), older) == []


def test_help_lists_every_key_with_its_meaning():
    text = configs.describe(configs.parse(tiny()).to_dict())
    for path, _, metadata in configs.entries():
        assert f"--config.{path}=" in text
        assert metadata["doc"] in text


def test_a_data_set_has_a_size_of_its_own():
    c = tiny()
    c.data.update(image_size=0, channels=0)
    c.validation.examples = 8
    configs.axes(c, {"data.name": ("shapes", "digits")})
    runs = dict(configs.runs(configs.parse(c)))
    assert {name: (run.data.image_size, run.data.channels) for name, run in runs.items()} == {
        "shapes": (16, 3),
        "digits": (8, 1),
    }


def test_the_names_of_formulations_make_names_of_folders():
    c = tiny()
    configs.axes(c, {"data.name": ("shapes",), "flow.formulation": ("rf/lognorm(0.00,1.00)", "edm(-1.20,1.20)")})
    assert [name for name, _ in configs.runs(configs.parse(c))] == [
        "shapes-rf_lognorm_0.00_1.00",
        "shapes-edm_-1.20_1.20",
    ]


def test_a_config_of_an_older_version_is_read_under_today_s_names():
    older = {
        "job": "sample",
        "samples": {"grid": "repa", "count": 8},
        "sample": {"seed": 3},
        "validation": {"grid": "(k+0.5)/8", "examples": 16},
        "study": {"axes": {"samples.count": (4, 8), "model.depth": (1, 2)}},
    }
    config = configs.from_dict(older)
    assert (config.job, config.sampling.schedule, config.sampling.count) == ("generate", "repa", 8)
    assert (config.generate.seed, config.validation.levels, config.validation.examples) == (3, "(k+0.5)/8", 16)
    assert config.study.axes == {"sampling.count": (4, 8), "model.depth": (1, 2)}
    assert configs.filled(older)["sampling"]["schedule"] == "repa"
    assert configs.differences(config.to_dict(), older) == []
    assert configs.from_dict(config.to_dict()).to_dict() == config.to_dict()
