"""The chat template as a GGUF file carries it: the model's own, in a form that every reader keeps.

`ollama create` compares the template of a GGUF with the ones that Ollama knows, and where one is
fewer than 100 edits away (Levenshtein, in characters) it stores that one's prompt format and stop
words instead of the model's, without a word (Ollama's `detectChatTemplate` and `template.Named`).
Short templates always find such a neighbour.
"""

from __future__ import annotations

import re

_DOT = "·"
# Ollama's limit is 100; the rest is for a template of its own that holds a few such dots too.
_DOTS = 128
_COMMENT = (
    f"{{# {_DOT * (_DOTS // 2)} llamafarm: these dots keep `ollama create` from taking this "
    f"template for another one {_DOT * (_DOTS // 2)} #}}\n"
)
# Whatever may hold the text of a tag without being one is matched first, and stays as it is.
_PIECE = re.compile(
    r"""
      \{\#.*?\#\}
    | \{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\b
    | \{%(?P<left>[-+]?)\s*(?P<tag>generation|endgeneration)\s*(?P<right>[-+]?)%\}
    | \{[{%](?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^'"])*?[%}]\}
    """,
    re.VERBOSE | re.DOTALL,
)


def embedded_template(text: str) -> str:
    """The template with what it renders unchanged, and out of reach of Ollama's own templates.

    It gets a comment with 128 middle dots. One edit changes how often a text holds a character by
    one at most, so texts that hold n and m dots are |n - m| edits apart or more: a template of
    Ollama's would need more than 28 dots to come within 100 edits, and none has any. (Ollama counts
    in 16 bits: this holds for templates of up to 65,535 characters.) Embedding twice adds one
    comment.

    The comment stands on a line of its own in front of everything. There the newline after it is
    trimmed, and what follows still stands at the start of a line, as it did: neither jinja2 as
    transformers sets it up (trim_blocks, lstrip_blocks) nor llama.cpp renders anything else.
    """
    text = without_generation_tags(text)
    return text if text.count(_DOT) >= _DOTS else _COMMENT + text


def without_generation_tags(text: str) -> str:
    """The template with its `{% generation %}` tags turned into comments.

    The tags mark what is trained on and are transformers' own: other readers of a GGUF stop at
    them. A comment takes the white space around it exactly as a tag does, with `-` and `+` too. One
    thing differs: a variable that is set between the tags stays set after them.
    """
    return _PIECE.sub(_as_comment, text)


def _as_comment(piece: re.Match[str]) -> str:
    if piece["tag"] is None:
        return piece[0]
    return f"{{#{piece['left']} {piece['tag']} {piece['right']}#}}"
