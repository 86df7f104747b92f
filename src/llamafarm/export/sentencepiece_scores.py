"""Merge ranks of a `▁` tokenizer as the scores that llama.cpp merges by.

tokenizer.json ranks pairs: of all adjacent pairs the one of lowest rank is merged, of equals the
leftmost. llama.cpp (src/llama-vocab.cpp, `llm_tokenizer_spm_session`) scores tokens: of all
adjacent pairs that together are a token, merge or not, the one whose token has the highest score is
merged, of equals the leftmost. Both do the same when
 1. every pair that makes up a token is a merge, and
 2. the merges that make one token stand together in the list, with no other token's between them,
which is how the lists of SentencePiece models are made. The score of a token is then the negated
place of its merges. What is left is the order among pairs that make the same token and share a
symbol (`▁▁` `▁` and `▁` `▁▁`): no text is known on which it shows. Added tokens are exempt, as they
are cut out of the text. Of runs of spaces that are both (Gemma's), longer ones have earlier merges.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from llamafarm.errors import ModelError, Problem

_SHOWN = 3


def scores_of_tokens(
    vocabulary: Collection[str], merges: Sequence[tuple[str, str]], added: Collection[str]
) -> Mapping[str, float]:
    """The score of every token that a merge makes; the others are never merged to.

    added: tokens that are cut out of the text before anything is merged. Raises ModelError when
    scores cannot say what the merges say.
    """
    places = _places(merges, added)
    problems = _missing_merges(vocabulary, set(merges), added)
    if problems:
        raise _inexpressible("some pairs that make up a token are not among the merges", problems)
    return {token: -float(place) for token, place in places.items()}


def _places(merges: Sequence[tuple[str, str]], added: Collection[str]) -> dict[str, int]:
    """Place of each token among the tokens, in order of their merges."""
    places: dict[str, int] = {}
    torn: list[Problem] = []
    last = ""
    for left, right in merges:
        token = left + right
        if token == last:
            continue
        if token not in places:
            places[token] = len(places)
        elif token not in added:
            torn.append(Problem(repr(token)))
        last = token
    if torn:
        raise _inexpressible("the merges of one token are not next to each other", torn)
    return places


def _missing_merges(
    vocabulary: Collection[str], merges: Collection[tuple[str, str]], added: Collection[str]
) -> list[Problem]:
    """Pairs that llama.cpp would merge and tokenizer.json does not."""

    def may_stand_alone(text: str) -> bool:
        return len(text) == 1 or (text in vocabulary and text not in added)

    missing = []
    for token in vocabulary:
        if token in added:
            continue
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if may_stand_alone(left) and may_stand_alone(right) and (left, right) not in merges:
                missing.append(Problem(f"{left!r} and {right!r}"))
    return missing


def _inexpressible(reason: str, problems: Sequence[Problem]) -> ModelError:
    more = f" ({len(problems):,} in all)" if len(problems) > _SHOWN else ""
    return ModelError(
        "llama.cpp cannot merge as this tokenizer does, because it knows scores of tokens and no "
        f"merges: {reason}{more}",
        problems[:_SHOWN],
        hint="tokenizers that were made with SentencePiece can be expressed, e.g. those of Llama 2 "
        "and Gemma; the Hugging Face directory can be deployed as it is",
    )
