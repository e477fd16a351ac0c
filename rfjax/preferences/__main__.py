"""Compares models by people's preferences.

    python -m rfjax.preferences serve --samples d3=FOLDER d6=FOLDER --votes votes.jsonl      asks raters in a browser
    python -m rfjax.preferences report --votes votes.jsonl --out FOLDER                      ratings from their votes

`serve` shows pairs of pictures of one prompt and asks which is better: sides and order are drawn for each rater, models
are not named, some pairs return with their sides swapped. It goes on where raters stopped. `report` reads one file or
more. Exit codes: 0 done, 2 a mistake (the message says how to fix it).
"""

import argparse
import re
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rfjax import terminal
from rfjax.errors import Exit, UserError, nearest, one_line, printable
from rfjax.preferences.pairs import QUESTIONS

REPEATS = 0.08  # share of the pairs that come twice
LONGEST_NAME = 60


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    asked = "\n".join(f"  {name:12}{question.title}" for name, question in QUESTIONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m rfjax.preferences",
        description=f"{__doc__}\nQuestions:\n{asked}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="ask raters in a browser")
    serve.add_argument(
        "--samples", nargs="+", required=True, metavar="NAME=FOLDER", help="two sets of pictures or more"
    )
    serve.add_argument("--votes", type=Path, required=True, help="the file of votes; a later session goes on with it")
    serve.add_argument("--questions", nargs="+", default=list(QUESTIONS), help="one pass each, in this order")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines in")
    serve.add_argument("--port", type=int, default=0, help="0 takes a free one")
    serve.add_argument("--seed", type=int, default=0, help="of the raters' orders")
    serve.add_argument("--repeats", type=float, default=REPEATS, help=f"share of pairs that come twice, {REPEATS:g}")
    serve.add_argument("--limit", type=int, default=0, help="pairs for each rater and question; 0 for all")
    serve.add_argument("--size", type=int, default=0, help="pixels of the longer side; 0 leaves pictures as they are")
    serve.add_argument("--common", action="store_true", help="compare only the prompts that all sets have")
    report = commands.add_parser("report", help="ratings, win rates and agreement")
    report.add_argument("--votes", type=Path, nargs="+", required=True, help="files of votes")
    report.add_argument("--losses", nargs="+", default=[], metavar="NAME=VALUE", help="validation losses, to correlate")
    report.add_argument("--out", type=Path, required=True, help="the folder to write")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    terminal.print_anything()
    given = parse(arguments)
    return _serve(given) if given.command == "serve" else _report(given, arguments)


def named(words: Sequence[str], key: str) -> dict[str, str]:
    """The values of NAME=VALUE.

    Raises:
        UserError: if a word is none, or a name comes twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value or not re.fullmatch(r"[\w.,()@ /-]+", name) or len(name) > LONGEST_NAME:
            raise UserError(f"{key} '{one_line(word)}' must be NAME=VALUE, such as d6=...")
        if name in found:
            raise UserError(f"{key} has '{name}' twice: give each its own name")
        found[name] = value
    return found


def check(given: argparse.Namespace) -> None:
    """Refuses what `serve` can't do.

    Raises:
        UserError: with what to change.
    """
    for name in given.questions:
        if name not in QUESTIONS:
            raise UserError(f"--questions '{one_line(name)}' is none of them{nearest(name, QUESTIONS)}")
    if len(set(given.questions)) < len(given.questions):
        raise UserError("--questions has one twice: each is one pass")
    if not 0 <= given.repeats <= 1:
        raise UserError(f"--repeats {given.repeats:g} must be a share of the pairs, such as {REPEATS:g}")
    for name in ("limit", "size"):
        if getattr(given, name) < 0:
            raise UserError(f"--{name} {getattr(given, name)} must be 0 or more")
    if not 0 <= given.port < 2**16:
        raise UserError(f"--port {given.port} must be a port, or 0 for a free one")


def _serve(given: argparse.Namespace) -> int:
    from rfjax.preferences.ballots import Ballots, Plan, summary
    from rfjax.preferences.pairs import make_pairs
    from rfjax.preferences.samples import open_set
    from rfjax.preferences.server import Server
    from rfjax.preferences.votes import VotesFile

    check(given)
    sets = [open_set(name, Path(path)) for name, path in named(given.samples, "--samples").items()]
    pairs = make_pairs(sets, given.common, given.size)
    plan = Plan(pairs, tuple(given.questions), given.seed, given.repeats, given.limit, given.size)
    file = VotesFile(given.votes)
    try:
        ballots = Ballots(plan, file, secrets.token_bytes(32), _say)
        server = Server((given.host, given.port), ballots)
        _say(summary(plan, {one.name: len(one.pictures) for one in sets}))
        known = file.votes
        _say(f"votes go to {given.votes}; {len(known.counted)} are there")
        if known.damaged:
            _say(f"warning: {known.damaged} lines of it are no votes, and don't count")
        if server.open_to_others:
            _say("warning: other machines reach this server, without encryption; who has the address can vote")
        _say(f"open {server.address}\nCtrl-C stops")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            _say(f"\nstopped; {ballots.count} votes are in {given.votes}, and the same command goes on")
        finally:
            server.server_close()
            ballots.close()
    finally:
        file.close()
    return Exit.DONE


def _report(given: argparse.Namespace, arguments: list[str]) -> int:
    from rfjax.preferences import report
    from rfjax.preferences.votes import read_votes

    losses = {}
    for name, text in named(given.losses, "--losses").items():
        try:
            losses[name] = float(text)
        except ValueError as error:
            raise UserError(f"--losses {name}={one_line(text)} must be a number") from error
    votes = read_votes(given.votes)
    try:
        lines = report.write(votes, losses, given.out, arguments)
    except OSError as error:
        raise UserError(f"the report can't be written to {given.out} ({error.strerror or error})") from error
    _say("\n".join(lines))
    return Exit.DONE


def _say(text: str) -> None:
    print(printable(text), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as mistake:
        print(f"rfjax: {printable(str(mistake))}", file=sys.stderr)
        sys.exit(Exit.MISTAKE)
    except KeyboardInterrupt:
        print("\nrfjax: stopped", file=sys.stderr)
        sys.exit(Exit.INTERRUPTED)
