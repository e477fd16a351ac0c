"""The config of a ladder that a pilot leads to: its text, and which of the pilot's runs it contains. Imports no JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from rfjax import config as configs
from rfjax.analysis.candidates import Candidate
from rfjax.config.grid import SEED, SIZE, STEPS
from rfjax.config.reading import flatten
from rfjax.errors import UserError
from rfjax.study.records import RunRecord

# Keys of a pilot's config that its ladder's file says otherwise, or not at all.
SKIPPED = ("job", "workdir", "only", "options", "validation.examples")
SECTIONS = ("design",)
APART = ("job", "workdir", "only", "study", "design")  # what a run's results do not depend on
OF_STUDY = ("axes", "seeds", "promise", "promise_at", "promise_probability", "compare", "compare_target")


def seeded(config: Mapping[str, Any]) -> bool:
    """Whether the names of a study's runs hold their seeds."""
    return bool(config["study"]["seeds"]) or SEED in config["study"]["axes"]


def axes(config: Mapping[str, Any], depths: Sequence[int], budgets: Sequence[int] = ()) -> dict[str, tuple[Any, ...]]:
    """The pilot's axes with other depths, and steps where there are any; no seeds: `study.seeds` counts those."""
    found = {path: tuple(values) for path, values in config["study"]["axes"].items() if path != SEED}
    changed = {SIZE: tuple(depths)} | ({STEPS: tuple(budgets)} if budgets else {})
    return ({} if SIZE in found else {SIZE: ()}) | found | changed  # the order makes the runs' names


def seeds(config: Mapping[str, Any], counts: Sequence[int]) -> tuple[int, ...]:
    """config.study.seeds of rungs with so many seeds, in order of size; empty for one each where the pilot has none."""
    if set(counts) == {1} and not seeded(config):
        return ()
    rest = list(counts)
    while len(rest) > 1 and rest[-1] == rest[-2]:
        rest.pop()
    return tuple(rest)


def contained(config: Mapping[str, Any], runs: Sequence[RunRecord], many: bool) -> dict[str, RunRecord]:
    """The pilot's runs, by name, that a ladder in its folder would find finished: their names and configs are its own.

    Args:
        config: the study's.
        runs: finished.
        many: whether the ladder has `study.seeds`.
    """
    if not runs:
        return {}
    depths = sorted({run.depth for run in runs})
    plain = {name: value for name, value in config.items() if name not in ("job", "only")}
    most = max(run.seed for run in runs) + 1
    plain["study"] = config["study"] | {"axes": axes(config, depths), "seeds": (most,) if many else ()}
    try:
        made = dict(configs.runs(configs.from_dict(plain)))
    except UserError:  # a config of another version: its runs are trained anew
        return {}
    return {run.name: run for run in runs if run.name in made and same(made[run.name].to_dict(), run.config)}


def same(ours: Mapping[str, Any], theirs: Mapping[str, Any], free: Sequence[str] = ()) -> bool:
    """Whether two plain configs are of one run, but for the keys in `free`."""
    flat = [dict(flatten({name: value for name, value in c.items() if name not in APART})) for c in (ours, theirs)]
    if all(flat[0].get(path) == flat[1].get(path) for path in {**flat[0], **flat[1]} if path not in free):
        return True  # the next line is slow
    return all(said.split(" ")[0] in free for said in configs.differences(ours, theirs))


def text(config: Mapping[str, Any], one: Candidate, workdir: str, about: str, study: Mapping[str, Any]) -> str:
    """A config file of a ladder: the pilot's settings with other rungs, seeds and validation examples.

    Args:
        config: the pilot's study's.
        about: a sentence, for its docstring.
        study: keys of the section `study` to set.
    """
    changes: dict[str, dict[str, Any]] = {}
    for path, default, _ in configs.entries():
        section, _, name = path.rpartition(".")
        value = (config.get(section, {}) if section else config).get(name, default)
        value = tuple(value) if isinstance(value, list) else value
        skipped = path in SKIPPED or section in SECTIONS or (section == "study" and name in OF_STUDY)
        if value != default and not skipped:
            changes.setdefault(section, {})[name] = value
    changes.setdefault("study", {}).update({name: value for name, value in study.items() if value})
    if count := seeds(config, one.seeds):
        changes["study"]["seeds"] = count
    changes.setdefault("validation", {})["examples"] = one.examples
    lines = [f"    c.{name} = {value!r}" for name, value in changes.pop("", {}).items()]
    for section, values in changes.items():
        given = ", ".join(f"{name}={value!r}" for name, value in values.items())
        lines += [f"    c.{section}.update({given})"] if values else []
    if options := config.get("options"):
        lines += ["    with c.unlocked():", f"        c.options.update({options!r})"]
    return "\n".join(
        [
            f'"""{about}"""',
            "",
            "from rfjax import config as configs",
            "",
            "",
            "def get_config():",
            "    c = configs.default()",
            f"    c.workdir = {workdir!r}",
            *lines,
            f"    configs.axes(c, {axes(config, one.depths, one.budgets)!r})",
            "    return c",
            "",
        ]
    )
