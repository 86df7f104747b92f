"""Small real tokenizers, texts that are hard to tokenise, and a GGUF file around a vocabulary."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from llamafarm.export.contents import Vocabulary
from llamafarm.export.vocabulary import read_vocabulary
from llamafarm.models.llama_cpp import LlamaCpp

_DATASETS = Path(__file__).parents[2] / "demos" / "datasets" / "medical"
_SIZE = 700
SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")

HARD_TEXTS = (
    "",
    " ",
    "  ",
    "\n",
    "\t",
    "a",
    "Hello, world!",
    " leading",
    "trailing ",
    "  two  between  words  ",
    "a         b          c           d            e",
    "line\nline\n\nline\n\n\nline\r\nline\r\n\r\n",
    "\n\n\n\n   \n\n  x",
    "\t\ttabs\t and \t spaces\t\t\n\t",
    "    def f(x):\n        return x ** 2  # \u00b2\n",
    "0 12 345 6789 1234567890 3.14159 1,000,000 1e-9 v2.0.1 10:30 5mg 2x",
    "a5 a 5 a  5 5  a 55 555 5555 55555 ٣٤٥ ४५६ ²³¹ ½ Ⅷ ⑨",
    "I'm you're he's it'll we've I'd can't 'tis rock'n'roll ''' ' s 'S",
    "I'M YOU'RE HE'S IT'LL WE'VE I'D CAN'T 'Ll 'vE",
    "d’accord l’été «guillemets» „Anführung“ naïve café Ångström İstanbul straße ﬁ ſ",
    "Übergrößenträger DONAUDAMPFSCHIFF",
    "中文没有空格。日本語のテキスト、カタカナ。한국어 문장입니다。我有3个苹果",
    "Привет, мир! Ελληνικά γράμματα Հայերեն ქართული",
    "नमस्ते दुनिया। क्षत्रिय हिन्दी में १२३",
    "مرحبا بالعالم، كيف حالك؟ שלום עולם",
    "สวัสดีชาวโลก ภาษาไทย ១២៣ កាន់តែពិសេស",
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 😶‍🌫️ 🇩🇪🇫🇷 ✅ 1️⃣",
    "\x00\x01\x07\x08\x0b\x0c\x1b\x7f\x80\x85\x9f",
    "non\u00a0breaking\u2003em\u2009thin\u3000ideographic\u200bzero\u200dwidth\ufeff\u2028\u2029",
    "!?.,;:-_()[]{}<>@#$%^&*+=/\\|`~\"'...---===###***//////",
    "https://example.org/a_b?c=d&e=%20f#g user@example.org C:\\dir\\file.txt",
    "word_with_underscores camelCaseWord HTMLParser iPhone15Pro XMLHttpRequest",
    "▁literal ▁▁ metaspace ▁",
    "<0x0A> <0xFF> <unk> <pad> [PAD5] [INST] <|nothing|>",
    "x" * 300,
    "ab" * 100 + "aba" * 50 + "anana" * 30,
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 8,
    "ĠĊĉ stand-ins for bytes Ġ",
)
SPECIAL_TEXTS = (
    "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|>",
    "a<|im_end|>b <|im_end|> c\n<|im_end|>\nd",
    "</s>  two spaces</s>\n\n",
    "<s>text</s>",
    "<|im_start <|im_end|>> |im_end|>",
)


_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
# The parts of tokenizer.json that say what becomes of spaces.
LLAMA_2 = {
    "normalizer": {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, _REPLACE],
    },
    "pre_tokenizer": None,
}
GEMMA = {
    "normalizer": _REPLACE,
    "pre_tokenizer": {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    },
}


def metaspace(prepend_scheme: str) -> dict[str, Any]:
    """As transformers writes the tokenizers of Llama 2 and Mistral."""
    scheme = {"replacement": "▁", "prepend_scheme": prepend_scheme, "split": False}
    return {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", **scheme}}


def random_texts(count: int, seed: int = 0) -> tuple[str, ...]:
    """Words, spaces, digits and characters of many scripts in any order."""
    numbers = random.Random(seed)
    ranges = ((32, 127), (32, 127), (0xA0, 0x250), (0x370, 0x530), (0x5D0, 0x650), (0x900, 0x980))
    ranges += ((0xE01, 0xE3A), (0x3041, 0x30FF), (0x4E00, 0x4F00), (0xAC00, 0xAD00))
    ranges += ((0x1F600, 0x1F640), (0, 32))
    pieces = [
        "the ",
        " patient",
        "'s",
        "'LL",
        "  ",
        "\n",
        "\n\n",
        "\t",
        " \n",
        "123",
        "Fever",
        "...",
    ]
    texts = []
    for _ in range(count):
        text = ""
        for _ in range(numbers.randint(1, 12)):
            if numbers.random() < 0.5:
                text += numbers.choice(pieces)
            else:
                first, last = numbers.choice(ranges)
                text += "".join(chr(numbers.randrange(first, last)) for _ in range(3))
        texts.append(text)
    return tuple(texts)


def training_lines() -> list[str]:
    """The texts of the medical demo."""
    lines = (_DATASETS / "medical_qa.jsonl").read_text("utf-8").splitlines()
    return [text for line in lines for text in json.loads(line).values() if isinstance(text, str)]


def byte_level_tokenizer(
    *steps: Any, normalizer: Any = None, ignore_merges: bool = False
) -> dict[str, Any]:
    """tokenizer.json of a byte-level BPE that splits text in these steps."""
    from tokenizers import Tokenizer, pre_tokenizers

    tokenizer = Tokenizer.from_str(_merged_across_words())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
    whole: dict[str, Any] = json.loads(tokenizer.to_str())
    whole["model"]["ignore_merges"] = ignore_merges
    return whole


@cache
def _merged_across_words() -> str:
    """tokenizer.json of a byte-level BPE whose merges know no words.

    Nearly every place at which text may be split lies within one of its tokens, in all scripts of
    the texts: tokens differ where splits do.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIALS),
        show_progress=False,
        max_token_length=12,
    )
    pieces = [
        text[at : at + 20]
        for text in HARD_TEXTS + random_texts(300)
        for at in range(0, len(text), 10)
    ]
    tokenizer.train_from_iterator([*training_lines(), *pieces], trainer)
    return str(tokenizer.to_str())


def byte_fallback_tokenizer(spaces: Mapping[str, Any], *, runs: bool = False) -> dict[str, Any]:
    """tokenizer.json as it is made from a SentencePiece model: all pairs of a piece are merges.

    spaces: LLAMA_2 and so on. runs: with Gemma's runs of spaces and newlines as added tokens.
    """
    start = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    added = [*("▁" * n for n in range(2, 9)), *("\n" * n for n in range(1, 5)), "<b>"]
    added = added if runs else []
    pieces = [piece for piece in _trained_pieces() if piece not in added]
    return _converted([*start, *added, *pieces, *SPECIALS[2:]], spaces, added)


def sentencepiece_tokenizer(directory: Path) -> tuple[dict[str, Any], Any]:
    """tokenizer.json and the SentencePiece model that it is made from, trained as Llama 2's was."""
    import sentencepiece

    corpus = directory / "corpus.txt"
    corpus.write_text("\n".join(training_lines()), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(directory / "tokenizer"),
        model_type="bpe",
        vocab_size=_SIZE,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(str(directory / "tokenizer.model"))
    pieces = [model.id_to_piece(number) for number in range(model.get_piece_size())]
    return _converted(pieces, LLAMA_2, ()), model


def _converted(
    texts: Sequence[str], spaces: Mapping[str, Any], user_defined: Sequence[str]
) -> dict[str, Any]:
    """texts: by id, those that are merged in order of their scores."""
    ids = {text: number for number, text in enumerate(texts)}
    specials = [text for text in (*texts[:3], *SPECIALS[2:]) if text in ids]
    merged = [text for text in texts if text not in (*specials, *user_defined)]
    merges = [*_merges_of_longest_first(user_defined, ids), *_merges_of(merged, ids)]
    entries = [_added_entry(ids[text], text, special=True) for text in specials]
    entries += [_added_entry(ids[text], text, special=False) for text in user_defined]
    model = {"type": "BPE", "byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    return {
        "version": "1.0",
        "added_tokens": sorted(entries, key=lambda entry: entry["id"]),
        **spaces,
        "post_processor": None,
        "decoder": None,
        "model": model | {"vocab": ids, "merges": [list(merge) for merge in merges]},
    }


def _trained_pieces() -> list[str]:
    """Pieces in order of merging, the characters last, as SentencePiece orders them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=_SIZE, show_progress=False)
    tokenizer.train_from_iterator(training_lines(), trainer)
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return sorted((piece for piece, _ in pieces), key=lambda piece: len(piece) == 1)


def _merges_of(pieces: Iterable[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    splits = [(piece[:at], piece[at:]) for piece in pieces for at in range(1, len(piece))]
    return [pair for pair in splits if pair[0] in ids and pair[1] in ids]


def _merges_of_longest_first(
    pieces: Sequence[str], ids: Mapping[str, int]
) -> list[tuple[str, str]]:
    """User-defined pieces share one score; pairs with a longer left side come first then."""
    pairs = _merges_of(pieces, ids)
    return sorted(pairs, key=lambda pair: (len(pair[0]), len(pair[1])), reverse=True)


def _added_entry(number: int, text: str, *, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": text, "special": special, **flags}


def save_tokenizer(
    directory: Path, whole: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> Path:
    """A directory with tokenizer.json and tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = roles if config is None else config
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return directory


def differing_texts(directory: Path, texts: Iterable[str], *, name: str = "test") -> list[str]:
    """The texts of which llama.cpp and `tokenizers` make other tokens, without a start token.

    name: of the model in the GGUF file.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    vocabulary = read_vocabulary(directory, tokenizer.get_vocab_size() + 3)
    file = write_vocabulary_gguf(directory / "model.gguf", vocabulary, name=name)
    with LlamaCpp(file, context_tokens=128, threads=1) as engine:
        return [
            text
            for text in texts
            if engine.tokenize(text, add_special=False)
            != tuple(tokenizer.encode(text, add_special_tokens=False).ids)
        ]


def write_vocabulary_gguf(path: Path, vocabulary: Vocabulary, *, name: str = "test") -> Path:
    """A random llama of one layer, hidden 32, around a vocabulary."""
    import gguf

    numbers = np.random.default_rng(0)
    hidden, middle = 32, 64
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(middle)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary.tokens))
    _add_vocabulary(writer, vocabulary)
    shapes = {
        "token_embd": (len(vocabulary.tokens), hidden),
        "output_norm": (hidden,),
        "blk.0.attn_norm": (hidden,),
        "blk.0.ffn_norm": (hidden,),
        **{f"blk.0.attn_{part}": (hidden, hidden) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (middle, hidden),
        "blk.0.ffn_up": (middle, hidden),
        "blk.0.ffn_down": (hidden, middle),
    }
    for tensor, shape in shapes.items():
        writer.add_tensor(f"{tensor}.weight", numbers.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.token_types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.add_space_prefix is not None:
        writer.add_add_space_prefix(vocabulary.add_space_prefix)
    for key in ("bos", "eos", "unk", "pad"):
        number = getattr(vocabulary, f"{key}_id")
        if number is not None:
            getattr(writer, f"add_{key}_token_id")(number)
    writer.add_add_bos_token(False)
