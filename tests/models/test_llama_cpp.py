"""What the rest of the program expects of the engine, on a real file."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from llamafarm.data.rows import Message
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.errors import ModelError, RunError, UserError
from llamafarm.models.gguf_file import read_gguf
from llamafarm.models.llama_cpp import LlamaCpp
from llamafarm.models.packaged import find_packaged_gguf
from tests.models.gguf_files import write_llama_gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TURNS = (
    Message("system", "Be brief."),
    Message("user", "What is 12 345?  漢字 👍"),
    Message("assistant", "A number."),
    Message("user", "Which?"),
)
MESSAGES = [{"role": str(turn.role), "content": turn.content} for turn in TURNS]
TEXT = "<|im_start|>user\n a  12345 naïve 漢字 👩🏽‍🚀<|im_end|>\n\tx"
VOCABULARY = 49152
END = 2
GONE_SECONDS = 20


@pytest.fixture(scope="module")
def packaged() -> Path:
    file = find_packaged_gguf()
    assert file is not None
    return file


@pytest.fixture(scope="module")
def engine(packaged: Path) -> Iterator[LlamaCpp]:
    with LlamaCpp(packaged, context_tokens=256, threads=1) as engine:
        yield engine


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Random weights, which load in no time."""
    write_llama_gguf(tmp_path / "tiny.gguf", pre="smollm")
    return tmp_path / "tiny.gguf"


@pytest.mark.parametrize("ready", [True, False])
def test_a_conversation_is_rendered_as_in_training(
    engine: LlamaCpp, smollm2_tokenizer: PreTrainedTokenizerFast, ready: bool
) -> None:
    template = ChatTemplate.for_tokenizer(
        smollm2_tokenizer.chat_template, smollm2_tokenizer, date=TRAINING_DATE
    )
    for turns in (TURNS[:2], TURNS[:3], TURNS):
        expected = template.render(turns, add_generation_prompt=ready)
        found = engine.render(MESSAGES[: len(turns)], add_generation_prompt=ready)
        assert found == expected


def test_text_becomes_the_tokens_of_training(
    engine: LlamaCpp, smollm2_tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = tuple(smollm2_tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    assert engine.tokenize(TEXT) == expected
    assert expected[0] == 1


def test_probabilities_are_those_of_the_whole_vocabulary(engine: LlamaCpp) -> None:
    prompt = engine.tokenize(engine.render(MESSAGES))
    found = engine.next_token(prompt, likeliest=VOCABULARY)
    assert len(found.log_probabilities) == VOCABULARY
    assert sum(map(math.exp, found.log_probabilities.values())) == pytest.approx(1, abs=1e-3)
    assert found.top == max(found.log_probabilities, key=found.log_probabilities.__getitem__)
    few = engine.next_token(prompt, likeliest=3).log_probabilities
    assert list(few) == list(found.log_probabilities)[:3]


def test_any_token_has_the_log_probability_that_it_has_unforced(engine: LlamaCpp) -> None:
    prompt = engine.tokenize(engine.render(MESSAGES))
    known = engine.next_token(prompt, likeliest=VOCABULARY)
    # The last two are bytes of a character, which is no text alone.
    for token in (known.top, 0, END, 17, 40_000, *engine.tokenize("👍")[-2:]):
        log_probability, likeliest = engine.log_probability(prompt, token)
        assert log_probability == pytest.approx(known.log_probabilities[token], abs=1e-4)
        assert likeliest is (token == known.top)


def test_a_probability_too_small_for_the_engine_is_a_finite_one(tiny: Path) -> None:
    norm = next(t for t in read_gguf(tiny).tensors if t.name == "output_norm.weight")
    weights = np.memmap(tiny, np.float32, "r+", offset=norm.offset, shape=norm.shape)
    weights *= 1000
    weights.flush()
    with LlamaCpp(tiny, context_tokens=64, threads=1) as engine:
        found = [engine.log_probability((5, 6), token)[0] for token in range(20)]
    assert min(found) == pytest.approx(math.log(2.0**-149))


def test_a_forced_end_token_stops_and_another_token_does_not(engine: LlamaCpp) -> None:
    prompt = engine.tokenize(engine.render(MESSAGES))
    assert engine.next_token(prompt, likeliest=1, forced=END).stops
    assert not engine.next_token(prompt, likeliest=1, forced=17).stops


def test_an_answer_is_made_of_the_likeliest_tokens(engine: LlamaCpp) -> None:
    prompt = engine.tokenize(engine.render(MESSAGES))
    answer = engine.generate(prompt, max_new_tokens=6)
    for at, token in enumerate(answer.token_ids):
        assert engine.next_token((*prompt, *answer.token_ids[:at]), likeliest=1).top == token
    assert engine.tokenize(answer.text) == tuple(t for t in answer.token_ids if t != END)


def test_an_answer_ends_at_its_end_token(engine: LlamaCpp) -> None:
    answer = engine.generate(engine.tokenize(engine.render(MESSAGES)), max_new_tokens=150)
    assert (answer.stopped_by, answer.token_ids.index(END)) == ("eos", len(answer.token_ids) - 1)
    assert "<|im_end|>" not in answer.text


def test_an_answer_ends_at_the_limit(engine: LlamaCpp) -> None:
    answer = engine.generate(engine.tokenize("One two three four"), max_new_tokens=3)
    assert (answer.stopped_by, len(answer.token_ids)) == ("limit", 3)


def test_an_answer_ends_before_a_stop_word(engine: LlamaCpp) -> None:
    prompt = engine.tokenize("One two three four five six seven eight one two three")
    whole = engine.generate(prompt, max_new_tokens=8).text
    word = whole.split()[2]
    answer = engine.generate(prompt, max_new_tokens=8, stop_words=[word])
    assert (answer.stopped_by, answer.stop_word) == ("word", word)
    assert answer.text == whole[: whole.index(word)]


def test_a_row_that_is_too_long_is_refused_and_the_engine_goes_on(engine: LlamaCpp) -> None:
    with pytest.raises(RunError, match="exceeds the available context size"):
        engine.next_token([5] * 256, likeliest=1)
    assert engine.next_token([5] * 255, likeliest=1).log_probabilities


def test_nobody_else_on_the_machine_is_answered(engine: LlamaCpp) -> None:
    request = urllib.request.Request(f"{engine._address}/tokenize", b'{"content": "a"}')
    with pytest.raises(urllib.error.HTTPError) as fault:
        urllib.request.urlopen(request)
    assert fault.value.code == 401
    assert engine._address.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("keep", [1000, -1000])
def test_a_damaged_file_is_named_with_what_llama_cpp_says(tiny: Path, keep: int) -> None:
    tiny.write_bytes(tiny.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"cannot load .*tiny\.gguf; it said:\n +\S"):
        LlamaCpp(tiny, context_tokens=64, threads=1)


def test_an_engine_that_dies_is_a_failed_run(tiny: Path) -> None:
    with LlamaCpp(tiny, context_tokens=64, threads=1) as engine:
        engine.tokenize("a")
        os.kill(engine._process.pid, signal.SIGKILL)
        engine._process.wait()
        with pytest.raises(RunError, match=r"llama\.cpp stopped while it ran .*tiny\.gguf"):
            engine.tokenize("a")


def test_the_engine_ends_with_the_block(tiny: Path) -> None:
    with LlamaCpp(tiny, context_tokens=64, threads=1) as engine:
        assert psutil.pid_exists(engine._process.pid)
    assert engine._process.poll() == 0


def test_the_engine_does_not_outlive_a_killed_program(tiny: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from llamafarm.models.llama_cpp import *\n"
        f"engine = LlamaCpp(Path({str(tiny)!r}), context_tokens=64, threads=1)\n"
        "print(engine._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _is_alive(child)
        parent.kill()
    end = time.monotonic() + GONE_SECONDS
    while _is_alive(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not _is_alive(child)


def test_a_program_that_is_stopped_while_the_engine_starts_ends_at_once(tiny: Path) -> None:
    """The signal comes just before the alarm for a slow start is taken back."""
    program = f"""
import threading
from pathlib import Path
from llamafarm.models.llama_cpp import LlamaCpp

def stopped(self):
    raise KeyboardInterrupt

threading.Timer.cancel = stopped
LlamaCpp(Path({str(tiny)!r}), context_tokens=64, threads=1)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stderr.endswith("KeyboardInterrupt\n")


def test_a_machine_without_the_engine_says_how_to_get_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed") as fault:
        LlamaCpp(tiny, context_tokens=64, threads=1)
    assert "llamafarm[verify]" in fault.value.hint


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
