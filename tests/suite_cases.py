"""Small prompt suites of our own, in the official forms, and result files as the official scorers write them."""

import json

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a sketch of one bench"},
    {
        "tag": "two_object",
        "include": [{"class": "cup", "count": 1}, {"class": "kite", "count": 1}],
        "prompt": "a sketch of one cup and one kite",
    },
    {
        "tag": "counting",
        "include": [{"class": "cup", "count": 3}],
        "exclude": [{"class": "cup", "count": 4}],
        "prompt": "a sketch of three cups",
    },
    {
        "tag": "position",
        "include": [{"class": "cup", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
        "prompt": "a sketch of one dog left of one cup",
    },
    {
        "tag": "colors",
        "include": [{"class": "cup", "count": 1, "color": "red"}],
        "prompt": "a sketch of one red cup",
    },
    {
        "tag": "colors",
        "include": [{"class": "kite", "count": 1, "color": "blue"}],
        "prompt": "a sketch of one blue kite",
    },
]
BOXES = {
    "a sketch of one bench": {"bench": [[0, 0, 10, 10, 0.9]]},
    "a sketch of one cup and one kite": {"cup": [[0, 0, 10, 10, 0.9]], "kite": [[20, 0, 30, 10, 0.8]]},
    "a sketch of three cups": {"cup": [[0, 0, 9, 9, 0.99], [20, 0, 29, 9, 0.98], [40, 0, 49, 9, 0.95]]},
    "a sketch of one dog left of one cup": {"cup": [[50, 0, 60, 10, 0.9]], "dog": [[0, 0, 10, 10, 0.7]]},
}


def geneval(folder):
    """evaluation_metadata.jsonl."""
    path = folder / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in GENEVAL))
    return path


def geneval_row(number, sample, right=True, **changes):
    """A line of results.jsonl."""
    line = GENEVAL[number]
    details = BOXES.get(line["prompt"], {}) if right else {}
    return {
        "filename": f"/somewhere/images/{number:05}/samples/{sample:04}.png",
        "tag": line["tag"],
        "prompt": line["prompt"],
        "correct": right,
        "reason": "" if right else "expected something",
        "metadata": json.dumps(line),
        "details": json.dumps(details),
    } | changes


def geneval_results(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def compbench(folder):
    """Files of three categories; one prompt is no file name, one is longer than any."""
    (folder / "color_val.txt").write_text("a teal door and a pink mat\tseen\nhalf/half tea and a_b cake\n")
    (folder / "spatial_val.txt").write_text("a fox on the left of a jar\n")
    (folder / "complex_val.txt").write_text(f"{'a very long prompt, ' * 20}and its end\n")
    return folder


def answers(path, values):
    """vqa_result.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"question_id": i, "answer": value} for i, value in enumerate(values)]))


def parti(folder):
    """PartiPrompts.tsv, with a quotation mark and spaces at the edges."""
    rows = [
        ("Prompt", "Category", "Challenge", "Note"),
        ('"stop" on a wall', "Artifacts", "Writing & Symbols", ""),
        (" a moth ", "Animals", "Basic", "a note"),
        ('a "tall lamp', "Artifacts", "Imagination", ""),
    ]
    path = folder / "PartiPrompts.tsv"
    path.write_text("".join("\t".join(row) + "\r\n" for row in rows), newline="")
    return path


DPG_COLUMNS = (
    "item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
    "question_natural_language",
)  # fmt: skip


def dpg(folder):
    """A folder with prompts/ and dpg_bench.csv."""
    (folder / "prompts").mkdir(parents=True)
    for name in ("lamp3", "moth7"):
        (folder / "prompts" / f"{name}.txt").write_text(f"A long text on {name},\nwith two lines.\n")
    rows = [DPG_COLUMNS]
    for name in ("lamp3", "moth7"):
        rows.append((name, "a text", "", "1", "0", "entity", "whole", f"entity - whole ({name})", "Is it there?"))
        rows.append((name, "a text", "", "2", "1", "attribute", "color", f"attribute - color ({name}, red)", "Red?"))
    (folder / "dpg_bench.csv").write_text("".join(",".join(f'"{c}"' for c in row) + "\n" for row in rows))
    return folder


def dpg_results(path, shares):
    """What compute_dpg_bench.py writes: name -> the share of each picture."""
    means = {name: sum(values) / len(values) for name, values in shares.items()}
    rows = [f"/a, b/{name}.png, {', '.join(map(str, values))}, {means[name]}" for name, values in shares.items()]
    whole = 100 * sum(means.values()) / len(means)
    rows += ["Model: images", "L1 category scores:", "\tentity: 100.0", "\tattribute: 50.0", "L2 category scores:"]
    rows += ["\tentity - whole: 100.0", "Image path: /a, b", "Save results to: x", f"DPG-Bench score: {whole}"]
    path.write_text("\n".join(rows) + "\n")
    return path
