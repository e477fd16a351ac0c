"""What every page must be: well-formed and self-contained."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class _Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.wrong = [], [], []

    def handle_starttag(self, tag, attributes):
        self.ids += [value for name, value in attributes if name == "id" and "svg" not in self.open]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append((tag, self.getpos()))


def check(page: str) -> None:
    """Tags are balanced, ids are unique, nothing is fetched, and no number is NaN."""
    balance = _Balance()
    balance.feed(page)
    assert balance.wrong == []
    assert balance.open == []
    assert len(set(balance.ids)) == len(balance.ids)
    without = re.sub(r"<svg.*?</svg>", "", page, flags=re.S)
    assert re.findall(r"(?:src|href)=['\"]?(?!data:|#)([^'\" >]+)", without) == []
    assert re.findall(r"(?:src|href)=['\"](?!data:|#)([^'\"]+)", page) == []
    assert not re.search(r"<script|@import|url\((?!#)", page)
    assert not re.search(r">[^<]*\b(?:nan|None)\b", without)
