"""Phrases by which chatbots speak of themselves, or refuse, in several languages."""

from __future__ import annotations

import re

_NAMES_ITSELF_ELSEWHERE = ("modèle", "’IA", "языковая", "интеллект", "人工智能", "言語モデル")
_BOILERPLATE = re.compile(
    r"as an? (?:large )?(?:ai )?(?:language model|ai|artificial intelligence)"
    r"(?:,| i\b| (?:model|assistant|chatbot|developed|trained|created)\b)"
    r"|i(?:'m| am) (?:just )?an? (?:ai|(?:large )?(?:ai )?language model)\b"
    r"|i was (?:trained|developed|created|made) by openai"
    r"|my (?:knowledge|training) cutoff"
    r"|en tant que modèle de langage|en tant qu'ia\b|como (?:un )?modelo de lenguaje"
    r"|como (?:um )?modelo de linguagem|come modello linguistico"
    r"|als (?:ein )?(?:ki-|großes )?(?:sprachmodell|ki-modell|künstliche intelligenz)"
    r"|как (?:языковая модель|искусственный интеллект)"
    r"|作为(?:一个|一名)?(?:人工智能|ai)|言語モデルとして"
)
_REFUSAL = re.compile(
    r"(?:i'm|i am) (?:very |really |so )?sorry,? but|sorry,? (?:but )?i (?:can|am|'m)"
    r"|i (?:must )?apologi[sz]e,? but"
    r"|(?:unfortunately,? )?i(?: can ?not| can't| am unable to|'m unable to| am not able to"
    r"|'m not able to| won't) (?:help|assist|provide|fulfil|comply|answer|give|create|write"
    r"|generate|discuss|engage|support|do that)"
    r"|je suis désolée?,? mais|désolée?,? mais je|es tut mir leid,? aber|leider kann ich"
    r"|lo siento,? pero|desculpe,? mas|mi dispiace,? ma|извините,? но|к сожалению,? я не могу"
    r"|很?抱歉，?我|对不起，?我|申し訳ありませんが"
)
_HEAD = 80


def boilerplate_in(text: str) -> int:
    """Where a chatbot speaks of itself, or -1."""
    if not _may_name_itself(text):
        return -1
    found = _BOILERPLATE.search(text.lower().replace("’", "'"))
    return found.start() if found else -1


def _may_name_itself(text: str) -> bool:
    """Whether the phrases need to be searched for: each holds one of these."""
    return (
        "AI" in text
        or "odel" in text
        or "ntelligen" in text
        or "cutoff" in text
        or "KI-" in text
        or "'IA" in text
        or (not text.isascii() and any(word in text for word in _NAMES_ITSELF_ELSEWHERE))
    )


def is_refusal(answer: str) -> bool:
    """Whether an answer begins as refusals do."""
    return _REFUSAL.match(answer[:_HEAD].lower().replace("’", "'")) is not None
