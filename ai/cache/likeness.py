"""Two questions that a model of meaning takes for the same: do their words say otherwise?

Such models see what a text is about, and hardly who does what to whom: `meters to feet` and
`feet to meters` are 0.99 alike to the local one, a negation 0.98, `buy` and `sell` 0.94. Judged
here is only what is nearly certain; what is left is the threshold's to decide.
"""

import re
from collections import Counter
from typing import Literal, TypeAlias

Contradiction: TypeAlias = Literal["figures", "quotes", "negation", "opposites", "order", "word"]

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_FIGURE = re.compile(r"\d+")
_QUOTED = re.compile(
    r"\"[^\"]{1,500}\"|`[^`]{1,500}`|\u201c[^\u201d]{1,500}\u201d|\S+@\S+|\w+://\S+"
)

# Words that are only manners.
_IDLE_TEXT = """
a an the do does did can could would please kindly hi hello hey thanks thank just so ok okay 's s
bitte mal denn der die das ein eine einen le la les un une el los las por favor
"""
_NEGATIONS_TEXT = """
not no never none nothing nobody neither nor without cannot cant dont doesnt didnt isnt arent wasnt
werent wont wouldnt shouldnt couldnt hasnt havent hadnt except unless
nicht kein keine keinen nie ohne ne pas jamais sans nunca sin sem nao não non niet geen
"""
_OPPOSITES_TEXT = """
enable/disable on/off open/close start/stop buy/sell add/remove create/delete up/down in/out max/min
maximum/minimum most/least more/less highest/lowest high/low best/worst best/least first/last
before/after increase/decrease raise/lower left/right pros/cons pro/con advantages/disadvantages
today/tomorrow today/yesterday tomorrow/yesterday true/false yes/no import/export encrypt/decrypt
income/expense income/expenses male/female his/her he/she him/her login/logout win/lose old/new
hot/cold long/short big/small push/pull send/receive from/to upload/download allow/deny
accept/reject approve/reject credit/debit my/your always/never all/none with/without who/when
who/where when/where when/why where/why is/was are/were
"""
_IDLE = frozenset(_IDLE_TEXT.split())
_NEGATIONS = frozenset(_NEGATIONS_TEXT.split())
_OPPOSITES = frozenset(frozenset(pair.split("/")) for pair in _OPPOSITES_TEXT.split())
_PREFIXES = ("un", "dis", "in", "im", "ir", "il", "non", "mis", "de", "anti")

_STEM_LENGTH_MIN = 4
_STEM_SHARE_MIN = 0.6


def contradiction(asked: str, kept: str) -> Contradiction | None:
    """Why the answer to one question is none to the other; None where nothing says so."""
    asked, kept = asked.casefold(), kept.casefold()
    if _FIGURE.findall(asked) != _FIGURE.findall(kept):
        return "figures"
    if sorted(_QUOTED.findall(asked)) != sorted(_QUOTED.findall(kept)):
        return "quotes"
    ours, theirs = _words(asked), _words(kept)
    if _negation_count(ours) != _negation_count(theirs):
        return "negation"
    only_ours = list((Counter(ours) - Counter(theirs)).elements())
    only_theirs = list((Counter(theirs) - Counter(ours)).elements())
    if any(_are_opposites(one, other) for one in only_ours for other in only_theirs):
        return "opposites"
    if not only_ours and not only_theirs:
        return None if ours == theirs else "order"
    if len(only_ours) == len(only_theirs) == 1 and not _is_same(only_ours[0], only_theirs[0]):
        # Nothing but one word differs: nearly always another thing is asked for.
        return "word"
    return None


def _words(text: str) -> list[str]:
    words = []
    for found in _WORD.findall(text):
        word = found.replace("\u2019", "'")
        if word.endswith("n't"):
            words += [word[:-3], "not"]
        else:
            words += word.split("'") if word.endswith("'s") else [word.replace("'", "")]
    return [word for word in words if word not in _IDLE and word]


def _negation_count(words: list[str]) -> int:
    return sum(word in _NEGATIONS for word in words)


def _are_opposites(one: str, other: str) -> bool:
    if frozenset((one, other)) in _OPPOSITES:
        return True
    short, long = sorted((one, other), key=len)
    return len(short) >= _STEM_LENGTH_MIN and long in {prefix + short for prefix in _PREFIXES}


def _is_same(one: str, other: str) -> bool:
    """Forms of one word, as far as its beginning tells."""
    shared = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared += 1
    return shared >= max(_STEM_LENGTH_MIN, _STEM_SHARE_MIN * max(len(one), len(other)))
