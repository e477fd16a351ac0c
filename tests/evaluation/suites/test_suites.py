"""Prompts are read as the official scripts read them, files lie where they look, and what they write is read back."""

import json

import pytest
import suite_cases

from rfjax.errors import UserError
from rfjax.evaluation.suites import SUITES, Answer, Given, compbench, dpg, find_suite, geneval, parti


def test_every_suite_is_found_by_its_name():
    found = {name: find_suite(name) for name in SUITES}
    assert {name: (one.prompts, one.per_prompt) for name, one in found.items()} == {
        "geneval": (553, 4), "compbench": (2400, 10), "parti": (1632, 1), "dpg": (1065, 4),
    }  # fmt: skip
    with pytest.raises(UserError, match=r"config.suite.name = 'genval' is not one of its choices"):
        find_suite("genval")
    with pytest.raises(UserError, match="per_prompt = 3: the scorer of DPG-Bench reads 1 or 4 pictures"):
        found["dpg"].count(3)
    assert (found["geneval"].count(7), found["dpg"].count(0), found["dpg"].count(1)) == (7, 4, 1)


# GenEval


def test_geneval_lies_in_a_folder_for_each_prompt(tmp_path):
    prompts = geneval.read(suite_cases.geneval(tmp_path))
    assert [one.text for one in prompts] == [line["prompt"] for line in suite_cases.GENEVAL]
    assert [one.skill for one in prompts][-2:] == ["colors", "colors"]
    files = geneval.place(prompts, 4)
    assert files[2].pictures == tuple(f"00002/samples/000{j}.png" for j in range(4))
    path, content = files[2].beside
    assert (path, json.loads(content)) == ("00002/metadata.jsonl", suite_cases.GENEVAL[2])
    assert geneval.read(tmp_path) == prompts  # the folder will do


def test_geneval_results_are_read_back(tmp_path):
    prompts = geneval.read(suite_cases.geneval(tmp_path))
    rows = [suite_cases.geneval_row(n, j, right=(n + j) % 3 > 0) for n in range(6) for j in range(4)]
    path = suite_cases.geneval_results(tmp_path / "results.jsonl", rows[::-1])  # in the file system's order
    assert geneval.find(tmp_path) == path
    found = geneval.results(path, prompts, 4)
    assert found.answers == tuple(Answer(n, float((n + j) % 3 > 0)) for n in range(6) for j in range(4))
    assert found.notes == ()
    rows[3]["correct"] = not rows[3]["correct"]  # not what its boxes say
    (said,) = geneval.results(suite_cases.geneval_results(path, rows), prompts, 4).notes
    assert said.startswith("1 of 16 pictures are judged otherwise")  # those that ask for colours are not compared


GOOD = suite_cases.geneval_row(1, 0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [GOOD | {"prompt": "another"}],
            "is of the prompt 'another', and prompt 00001 here is 'a sketch of one cup and",
        ),
        ([GOOD | {"tag": "colors"}], "line 1 is of the prompt"),
        ([GOOD, GOOD], "line 2: picture 00001/0000 is there twice"),
        ([suite_cases.geneval_row(1, 4)], "is one more than the 4 of a prompt here"),
        ([GOOD | {"filename": "/x/00009/samples/0000.png"}], "prompt 00009 here is none"),
        ([GOOD | {"filename": "x.png"}], "'x.png' is no picture of GenEval's layout"),
        ([GOOD | {"filename": f"/{'9' * 5000}/samples/0.png"}], "is no picture of GenEval's layout"),
        ([GOOD | {"correct": "yes"}], "has a 'correct' or a 'filename' of another type"),
        ([{"prompt": "x", "score": 1}], "line 1 lacks filename, tag, correct, metadata"),
        ([[1]], "line 1 holds a list, not an object"),
        ([], "results.jsonl is empty"),
    ],
)
def test_other_results_of_geneval_are_refused_in_a_sentence(tmp_path, rows, words):
    prompts = geneval.read(suite_cases.geneval(tmp_path))
    with pytest.raises(UserError) as error:
        geneval.results(suite_cases.geneval_results(tmp_path / "results.jsonl", rows), prompts, 4)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "details", ["", "{", "[]", '{"cup": 1}', '{"cup": [[1, 2]]}', '{"cup": [["a", 1, 1, 1, 1]]}', 7]
)
def test_boxes_that_no_detector_wrote_are_not_compared(tmp_path, details):
    prompts = geneval.read(suite_cases.geneval(tmp_path))
    path = suite_cases.geneval_results(tmp_path / "r.jsonl", [suite_cases.geneval_row(0, 0, details=details)])
    assert geneval.results(path, prompts, 4) == geneval.Results((Answer(0, 1.0),))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tag": "colours"}, "has the tag 'colours', not one of single_object"),
        ({"prompt": " "}, "line 1 has no prompt"),
        ({"prompt": "a\nb"}, "holds the character U+000A"),
        ({"prompt": "a" * 20_000}, "has 20,000 characters"),
        ({"include": []}, "'include' or 'exclude' is not of GenEval's form"),
        ({"include": [{"class": "cup", "count": 0}]}, "is not of GenEval's form"),
        ({"include": [{"class": "cup", "count": 1, "position": ["left of", 0]}]}, "is not of GenEval's form"),
        ({"exclude": [{"count": 1}]}, "is not of GenEval's form"),
        ({"vqa_list": []}, "is of GenEval 2"),
    ],
)
def test_other_prompts_of_geneval_are_refused(tmp_path, change, words):
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text(json.dumps(suite_cases.GENEVAL[0] | change))
    with pytest.raises(UserError) as error:
        geneval.read(path)
    assert words in str(error.value) and str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    for suite in map(find_suite, SUITES):
        with pytest.raises(UserError, match=str(tmp_path)):
            suite.read(tmp_path)


# T2I-CompBench


def test_compbench_has_prompts_for_names(tmp_path):
    prompts = compbench.read(suite_cases.compbench(tmp_path))
    assert [one.skill for one in prompts] == ["color", "color", "spatial", "complex"]
    assert prompts[0].text == "a teal door and a pink mat"  # up to the tab
    files = compbench.place(prompts, 10)
    assert files[0].pictures[3] == "color/samples/a teal door and a pink mat_000003.png"
    assert files[1].pictures[0] == "color/samples/half\u2215half tea and a_b cake_000010.png"
    assert files[2].pictures[9] == "spatial/samples/a fox on the left of a jar_000009.png"
    name = files[3].pictures[0].removeprefix("complex/samples/")
    assert len(name.encode()) == 255 and name.endswith("_000000.png")
    said = compbench.warnings(prompts)
    assert [text.partition(",")[0] for text in said] == [
        "1 of 4 prompts hold a '/'", "1 of 4 prompts are longer than a file's name may be", "1 of 4 prompts hold a '_'",
    ]  # fmt: skip
    assert all("color_val.txt, line 2" in text for text in (said[0], said[2]))
    assert compbench.warnings(prompts[:1]) == []
    assert len(compbench.file_name("ä" * 300, 7).encode()) in (254, 255)  # no half of a letter


def test_compbench_results_are_read_back(tmp_path):
    prompts = compbench.read(suite_cases.compbench(tmp_path))
    images = tmp_path / "images"
    assert compbench.find(tmp_path) is None
    suite_cases.answers(images / "color/annotation_blip/vqa_result.json", ["0.2500", "1.0000", "0.0000", "0.5000"])
    suite_cases.answers(images / "spatial/labels/annotation_obj_detection_2d/vqa_result.json", [0.75])
    assert compbench.find(tmp_path) == images
    found = compbench.results(images, prompts, 2)
    assert found.answers == (Answer(0, 0.25), Answer(0, 1.0), Answer(1, 0.0), Answer(1, 0.5), Answer(2, 0.75))
    assert found.notes == ("No scorer has judged complex: the mean is over the other categories.",)
    with pytest.raises(UserError, match="has 4 answers for 6 pictures: this scorer numbers what it finds"):
        compbench.results(images, prompts, 3)
    with pytest.raises(UserError, match="picture 2 is none of the 2 of its category here"):
        compbench.results(images, prompts, 1)
    with pytest.raises(UserError, match="has no result such as color/annotation_blip"):
        compbench.results(tmp_path, prompts, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not JSON"),
        ("{}", "is no list of objects"),
        ("[1]", "is no list of objects"),
        ("[" * 9999, "deep|JSON"),
        ('[{"question_id": 0}]', "without 'question_id' or 'answer'"),
        ('[{"question_id": "0", "answer": 1}]', "without 'question_id' or 'answer'"),
        ('[{"question_id": 0, "answer": "yes"}]', "without 'question_id' or 'answer'"),
        ('[{"question_id": 0, "answer": NaN}]', "without 'question_id' or 'answer'"),
        ('[{"question_id": 0, "answer": 1}, {"question_id": 0, "answer": 1}]', "picture 0 is there twice"),
        ('[], "more": []', "is not JSON|no list"),
    ],
)  # fmt: skip
def test_other_results_of_compbench_are_refused(tmp_path, content, words):
    prompts = compbench.read(suite_cases.compbench(tmp_path))
    path = tmp_path / "color/annotation_blip/vqa_result.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        compbench.results(tmp_path, prompts, 1)


# PartiPrompts


def test_parti_is_read_with_quotation_marks_and_spaces(tmp_path):
    prompts = parti.read(suite_cases.parti(tmp_path))
    assert [one.text for one in prompts] == ['"stop" on a wall', " a moth ", 'a "tall lamp']
    assert (prompts[0].skill, prompts[0].line["challenge"]) == ("Artifacts", "Writing & Symbols")
    path, content = parti.place(prompts, 1)[1].beside
    assert json.loads(content) == {"prompt": " a moth ", "category": "Animals", "challenge": "Basic"}
    assert (path, parti.SUITE.results) == ("00001/metadata.jsonl", None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Prompt,Category,Challenge,Note\n", "has other columns"),
        ("Prompt\tCategory\tChallenge\tNote\n", "has no prompt below its header"),
        ("Prompt\tCategory\tChallenge\tNote\na\tb\n", "line 2 has 2 columns"),
        ("Prompt\tCategory\tChallenge\tNote\n\tb\tc\td\n", "line 2 has no prompt"),
    ],
)
def test_another_table_of_parti_is_refused(tmp_path, content, words):
    (tmp_path / "PartiPrompts.tsv").write_text(content)
    with pytest.raises(UserError, match=words):
        parti.read(tmp_path)


# DPG-Bench

SHARES = {"lamp3": [1.0, 0.5, 0.5, 0.0], "moth7": [1.0, 1.0, 1.0, 0.5]}


def test_dpg_lies_in_grids_and_is_read_back(tmp_path):
    prompts = dpg.read(suite_cases.dpg(tmp_path / "dpg_bench"))
    assert [one.text for one in prompts] == [f"A long text on {name}, with two lines." for name in SHARES]
    assert [one.line["questions"] for one in prompts] == [
        {"attribute": 1},
        {"entity": 1, "attribute": 1},
    ]  # no first row
    assert dpg.place(prompts, 4)[1] == dpg.Files(("moth7.png",), columns=2)
    assert (dpg.place(prompts, 1)[1].columns, dpg.warnings(prompts)) == (0, [])
    found = dpg.results(suite_cases.dpg_results(tmp_path / "a_results.txt", SHARES), prompts, 4)
    assert found.answers == tuple(Answer(n, share) for n, own in enumerate(SHARES.values()) for share in own)
    assert found.given == (Given("attribute", 0.5, 2), Given("entity", 1.0, 1))
    assert "count the last picture of each grid alone" in found.notes[0]
    assert dpg.find(tmp_path) == tmp_path / "a_results.txt"
    (tmp_path / "b_results.txt").write_text("")
    with pytest.raises(UserError, match="has 2 files"):
        dpg.find(tmp_path)


def test_dpg_without_its_table_or_its_summary(tmp_path):
    folder = suite_cases.dpg(tmp_path / "dpg_bench")
    (folder / "dpg_bench.csv").unlink()
    prompts = dpg.read(folder / "prompts")
    assert dpg.warnings(prompts) == [
        "There is no dpg_bench.csv beside the prompts, so how many questions a category has is not known."
    ]
    path = suite_cases.dpg_results(tmp_path / "results.txt", SHARES)
    assert [one.count for one in dpg.results(path, prompts, 4).given] == [0, 0]
    path.write_text(path.read_text().partition("Model: ")[0])
    found = dpg.results(path, prompts, 4)
    assert (len(found.answers), found.given) == (8, ())
    assert found.notes == ("The scorer has not written its summary: it was stopped before its end.",)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("lamp3.png", "other.png", "'other' is none of the prompts here"),
        ("lamp3.png", "moth7.png", "line 2: 'moth7' is there twice"),
        ("1.0, 0.5, 0.5, 0.0, 0.5", "1.0, 0.5, 0.5, 0.0, 0.6", "shares and their mean"),
        ("1.0, 0.5, 0.5, 0.0, 0.5", "1.0, 0.5, 0.75", "2 pictures of a grid are scored, and 4 are in it"),
        ("entity: 100.0", "entity: 140", "is no category's score"),
        ("DPG-Bench score: 68.75", "DPG-Bench score: 70", "says 70 in all, and its pictures have a mean of 68.75"),
    ],
)
def test_other_results_of_dpg_are_refused(tmp_path, old, new, words):
    prompts = dpg.read(suite_cases.dpg(tmp_path / "dpg_bench"))
    path = suite_cases.dpg_results(tmp_path / "results.txt", SHARES)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError) as error:
        dpg.results(path, prompts, 4)
    assert words in str(error.value)
