"""Text encoders beside transformers and diffusers: towers, tokenizers, and what Stable Diffusion 3 makes of a prompt.

RECORD=1 writes down what tests/encoders/test_language.py repeats."""

import gzip
import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks for a file from elsewhere

import diffusers
import jax
import language_cases
import numpy as np
import pipelines
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from language_cases import CASES, PROMPTS, TOKENS, TOLERANCE, difference, ours, record, recorded

from rfjax.config import Text
from rfjax.encoders.language import read, sd3, sentence
from rfjax.encoders.language.tokens import Tokenizer
from rfjax.tensors.opening import open_tensors

RECORD = os.environ.get("RECORD", "") not in ("", "0")
STRINGS = [
    "a photo of a cat", 'A cat holding a sign that says "hello world"', "astronaut riding a horse", "人 🐱 sea-shells",
    "", "   ", "\tThe  quick\nbrown\r\nfox", "it's they're I'll we've he'd O'Neill's", "3.14159 and 2,000,000 (½ ²)",
    "ÀÉÎÕÜ àéîõü Straße ﬁne ﬃ", "ｆｕｌｌ ｗｉｄｔｈ", "e\u0301 vs é", "مرحبا بالعالم", "שלום עולם", "Привет, мир!",
    "안녕하세요 세계", "สวัสดีชาวโลก", "👩\u200d👩\u200d👧\u200d👦 👍🏽", "a" * 300, "!" * 300,
    "&amp; <b>bold</b> “curly” ‘quotes’ — …",
    "<|endoftext|> in the <|startoftext|> middle", "\u200b\ufeff zero\u00a0width\u3000space", "x\x00y\x01z",
    "_under_score__", "CamelCaseWordsAndURLs https://example.org/?q=1&r=%20#frag", "the " * 200,
]  # fmt: skip


def made(case, folder, **changes):
    """The folder with the case's small model in it, with random weights; (names and shapes, config)."""
    model = getattr(transformers, case.model)
    model(model.config_class(**case.settings, **changes)).save_pretrained(folder)
    with open_tensors(folder) as tensors:
        shapes = {name: tensors.shape(name) for name in tensors.names}
    config = json.loads((folder / "config.json").read_text())
    language_cases.write(folder, shapes, config)
    return shapes, config


def theirs(case, folder):
    """transformers' states."""
    model = getattr(transformers, case.model).from_pretrained(folder).eval()
    tower, ids = getattr(model, case.part) if case.part else model, torch.tensor(case.ids).long()
    with torch.no_grad():
        if case.kind == "bert":
            return {"states": tower(ids, attention_mask=torch.tensor(case.mask).long()).last_hidden_state.numpy()}
        if case.kind == "t5":
            return {"states": tower(ids).last_hidden_state.numpy()}
        if case.model == "CLIPModel":
            out = model.text_model(ids, output_hidden_states=True)
            pooled = model.text_projection(out.pooler_output)
        else:
            out = tower(ids, output_hidden_states=True)
            pooled = out.text_embeds if case.model.endswith("Projection") else out.pooler_output
    found = {"penultimate": out.hidden_states[-2], "last": out.last_hidden_state, "pooled": pooled}
    return {name: x.numpy() for name, x in found.items()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_states(case, tmp_path, record_property):
    shapes, config = made(case, tmp_path)
    expected = theirs(case, tmp_path)
    away = difference(ours(case, tmp_path), expected)
    print(f"{case.name}: {away:.1e}")
    record_property("parity", [f"text {case.name}", away, 0.0, ""])
    assert away <= TOLERANCE
    if RECORD:
        record(case.name, expected, shapes=shapes, config=config)
    old, known = recorded(case.name)
    assert {name: tuple(shape) for name, shape in known["shapes"].items()} == shapes
    assert difference(expected, old) <= TOLERANCE


def test_both_prefixes_are_among_the_cases():
    names = {case.name: set(recorded(case.name)[1]["shapes"]) for case in CASES}
    assert any(name.startswith("text_model.") for name in names["clip-l"])
    assert not any(name.startswith("text_model.") for name in names["clip-alone"])
    assert any(name.startswith("bert.") for name in names["bert-masked"])
    assert any(name.startswith("decoder.") for name in names["t5-whole"])


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ("clip-l", "t5", "bert")], ids=str)
def test_folders_as_transformers_writes_them(case, tmp_path):
    """Sharded, with an index; and with a copy in half precision beside it, which is not taken."""
    made(case, tmp_path)
    model = getattr(transformers, case.model).from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    model.half().save_pretrained(tmp_path / "shards", max_shard_size="30KB", variant="fp16")
    assert len(list((tmp_path / "shards").glob("*.index*.json"))) == 2
    expected = ours(case, tmp_path)
    for name, found in ours(case, tmp_path / "shards").items():
        np.testing.assert_array_equal(found, expected[name])


@pytest.mark.parametrize("parts", [("clip_l", "clip_g", "t5"), ("clip_l", "clip_g"), ("clip_g", "t5")], ids=str)
def test_a_prompt_is_encoded_as_diffusers_pipeline_does(parts, tmp_path, record_property):
    pipelines.write_text(tmp_path)
    pipe = pipeline(tmp_path, parts)
    count = TOKENS - sd3.CLIP_TOKENS
    with torch.no_grad():
        found = pipe.encode_prompt(list(PROMPTS), None, None, max_sequence_length=count,
                                   do_classifier_free_guidance=False)  # fmt: skip
    expected = {"context": found[0].numpy(), "pooled": found[2].numpy()}
    if "t5" not in parts:  # diffusers has as many zeros as CLIP has tokens
        expected["context"] = expected["context"][:, :TOKENS]
    if "clip_l" not in parts:  # diffusers' pipeline needs it
        expected["context"][:, :77, :16], expected["pooled"][:, :16] = 0, 0
    config = Text(encoder="sd3", path=str(tmp_path), parts=parts, length=TOKENS, width=48, pooled_width=36)
    encoder = sd3.make(config)
    cond = encode(encoder, PROMPTS)
    away = difference({"context": np.asarray(cond.context), "pooled": np.asarray(cond.pooled)}, expected)
    print(f"{parts}: {away:.1e}")
    record_property("parity", [f"text of SD3 {' '.join(parts)}", away, 0.0, ""])
    assert away <= TOLERANCE
    assert encoder.cuts.cut == dict.fromkeys(parts, 1)
    if len(parts) == 3:
        if RECORD:
            record("sd3", expected)
        assert difference(expected, recorded("sd3")[0]) <= TOLERANCE


def pipeline(folder, parts):
    """diffusers' pipeline with these encoders alone."""
    load = lambda name, made: made.from_pretrained(folder / name).eval()  # noqa: E731
    clip, t5 = transformers.CLIPTextModelWithProjection, "t5" in parts
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=None, scheduler=None, vae=None,
        text_encoder=load("text_encoder", clip),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=load("text_encoder_2", clip),
        tokenizer_2=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        text_encoder_3=load("text_encoder_3", transformers.T5EncoderModel) if t5 else None,
        tokenizer_3=transformers.T5Tokenizer.from_pretrained(folder / "tokenizer_3") if t5 else None,
    )  # fmt: skip
    if not t5:
        pipe.transformer = SimpleNamespace(config=SimpleNamespace(joint_attention_dim=pipelines.WIDTH))
    return pipe


def encode(encoder, texts):
    weights = {part.name: read(part.tower) for part in encoder.parts}
    return jax.jit(encoder.encode)(weights, encoder.prompts(texts), np.zeros(len(texts)))


def clip_table(folder):
    """vocab.json and merges.txt of the real CLIP, from the wheel of open-clip-torch."""
    found = importlib.util.find_spec("open_clip")
    path = Path(found.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz" if found else None
    if path is None or not path.exists():
        pytest.skip("the package open-clip-torch, whose table this reads, is not installed")
    merges = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    return pipelines.write_clip_tokenizer(folder, merges=tuple(merges))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """name -> (ours, transformers')."""
    folder = tmp_path_factory.mktemp("tokenizers")
    found = {}
    toy = pipelines.write_clip_tokenizer(folder / "toy")
    found["clip toy"] = Tokenizer(str(toy), "clip_l", 77), transformers.CLIPTokenizer.from_pretrained(toy)
    found["clip toy"][1].save_pretrained(folder / "json")
    assert (folder / "json" / "tokenizer.json").exists()
    found["clip json"] = Tokenizer(str(folder / "json"), "clip_l", 77), found["clip toy"][1]
    other = pipelines.write_clip_tokenizer(folder / "g", pad="!")
    found["clip g"] = Tokenizer(str(other), "clip_g", 77), transformers.CLIPTokenizer.from_pretrained(other)
    t5 = pipelines.write_t5_tokenizer(folder / "t5")
    found["t5"] = Tokenizer(str(t5), "t5", 40), transformers.T5Tokenizer.from_pretrained(t5)
    found["t5"][1].save_pretrained(folder / "t5json")
    (folder / "t5json" / "spiece.model").unlink(missing_ok=True)
    found["t5 json"] = Tokenizer(str(folder / "t5json"), "t5", 40), found["t5"][1]
    bert = pipelines.write_sentence(folder / "bert")
    found["bert"] = Tokenizer(str(bert), "bert", 12), transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(bert / "tokenizer.json"), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )  # fmt: skip
    return found


def same_tokens(pair, text):
    own, other = pair
    wanted = other([text], padding="max_length", max_length=own.length, truncation=True)["input_ids"]
    np.testing.assert_array_equal(own([text]).ids, wanted, err_msg=repr(text))


NAMES = ["clip toy", "clip json", "clip g", "t5", "t5 json", "bert"]


@pytest.mark.parametrize("name", NAMES)
def test_tokens(name, tokenizers):
    for text in STRINGS:
        same_tokens(tokenizers[name], text)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_of_any_text(name, tokenizers):
    @settings(max_examples=150)
    @given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
    def check(text):
        same_tokens(tokenizers[name], text)

    check()


def test_tokens_of_the_real_clip(tmp_path):
    folder = clip_table(tmp_path)
    own, other = Tokenizer(str(folder), "clip_l", 77), transformers.CLIPTokenizer.from_pretrained(folder)
    assert len(json.loads((folder / "vocab.json").read_text(encoding="utf-8"))) == 49408
    for text in STRINGS:
        same_tokens((own, other), text)
    goldens = {  # of CLIP's own table: facts that any copy must keep
        "a photo of a cat": [49406, 320, 1125, 539, 320, 2368, 49407],
        'A cat holding a sign that says "hello world"':
            [49406, 320, 2368, 5050, 320, 2292, 682, 1563, 257, 3306, 1002, 257, 49407],
        "astronaut riding a horse": [49406, 18376, 6765, 320, 4558, 49407],
        "人 🐱 sea-shells": [49406, 21078, 374, 22979, 2102, 268, 19265, 49407],
    }  # fmt: skip
    for text, wanted in goldens.items():
        tokens = own([text])
        assert tokens.ids[0, : tokens.counts[0]].tolist() == wanted
        assert set(tokens.ids[0, tokens.counts[0] :].tolist()) <= {49407}


SENTENCES = ("a red circle", "a scarlet disc", "a blue square", "an azure box", "the stock market fell sharply today")


def test_all_minilm(record_property):
    """The real weights: as transformers has them, and sensible by themselves."""
    folder = minilm()
    tower = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer(list(SENTENCES), padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = tower(**given).last_hidden_state
    mask = given["attention_mask"][..., None]
    pooled = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))
    cond = encode(sentence.make(Text(encoder="sentence", length=16, width=0, pooled_width=384)), SENTENCES)
    found = {"context": np.asarray(cond.context), "pooled": np.asarray(cond.pooled)}
    away = difference(found, {"context": (states * mask).numpy(), "pooled": pooled.numpy()})
    print(f"all-MiniLM: {away:.1e}")
    record_property("parity", ["text all-MiniLM", away, 0.0, ""])
    assert away <= TOLERANCE
    if RECORD:
        record("minilm", {"similarities": (pooled @ pooled.T).numpy()})
    np.testing.assert_allclose(found["pooled"] @ found["pooled"].T, recorded("minilm")[0]["similarities"], atol=1e-5)


def minilm():
    try:
        return sentence.packaged()
    except Exception as error:
        pytest.skip(str(error))
