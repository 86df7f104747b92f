"""How close a generated answer is to the reference."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

_WORD = re.compile(r"[^\W_]+")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits: what ROUGE counts."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def exact_match(answer: str, reference: str) -> bool:
    """Same words in the same order; case, punctuation and spacing do not count."""
    return words(answer) == words(reference)


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 over words: the longest common subsequence against both lengths, 0 to 1.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), section 3, with
    beta 1.
    """
    from rapidfuzz.distance import LCSseq

    left, right = words(answer), words(reference)
    if not left or not right:
        return float(left == right)
    common = LCSseq.similarity(left, right)
    return 2 * common / (len(left) + len(right))


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words that answer and reference share, however they are ordered, 0 to 1.

    Source: Rajpurkar et al., "SQuAD" (2016), section 6.1, and its evaluation script, version 1.1:
    ASCII punctuation and the English articles do not count.
    """
    left, right = _squad_tokens(answer), _squad_tokens(reference)
    if not left or not right:
        return float(left == right)
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right))


def _squad_tokens(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()
