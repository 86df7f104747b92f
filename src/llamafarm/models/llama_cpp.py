"""The real llama.cpp engine on a real file: it renders, tokenises, predicts and generates.

The engine runs in a process of its own (xllamacpp, an optional part): should llama.cpp abort on a
file, that process dies and not ours, and what it prints stays out of our output. It listens on the
loopback address only, behind a key that this process made up, and ends when this process ends.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import secrets
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from llamafarm.errors import ModelError, RunError, UserError

_LINES_KEPT = 12
# Threads meet at every operation. With small models that gains little (SmolLM2-135M: 14 ms a token
# with two, 20 with one), and costs seconds a token where another process takes a core.
_FILE_FOR_THREADS = 1 << 30
_ALL_TOKENS = 1 << 20
_START_SECONDS = 600.0
_ANSWER_SECONDS = 600.0
# Added to a logit, it leaves the other tokens no chance.
_ALWAYS = 1000.0
_LEAST_LOG_PROBABILITY = math.log(2.0**-149)


@dataclass(frozen=True, slots=True)
class NextToken:
    """The engine's prediction after a row of tokens. log_probabilities: natural logarithms, of the
    likeliest tokens by id, likeliest first.
    """

    log_probabilities: Mapping[int, float]
    stops: bool

    @property
    def top(self) -> int:
        """The likeliest token."""
        return next(iter(self.log_probabilities))


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What the engine wrote. stopped_by: an end token, a stop word, or the length limit."""

    text: str
    token_ids: tuple[int, ...]
    stopped_by: Literal["eos", "word", "limit"]
    stop_word: str = ""


def require_llama_cpp() -> None:
    """Raises UserError with what to type where the engine is not installed."""
    import importlib.util

    if importlib.util.find_spec("xllamacpp") is None:
        raise UserError(
            "the llama.cpp engine is not installed, which runs GGUF files",
            hint="pip install 'llamafarm[verify]'",
        )


class LlamaCpp:
    """One GGUF file in the engine, on the CPU. A context manager: the process ends with the block.

    context_tokens: the longest row that is asked about; threads: at most. Raises UserError where
    the engine is not installed, ModelError when it cannot load the file, RunError when it dies
    later on.
    """

    def __init__(
        self, file: Path, *, context_tokens: int, threads: int, exact: bool = False
    ) -> None:
        """exact: keep keys and values in float32, which are float16 as a rule: what is measured is
        then the file, without what serving adds.
        """
        require_llama_cpp()
        self._file = file
        self._key = secrets.token_hex(16)
        is_large = file.is_file() and file.stat().st_size >= _FILE_FOR_THREADS
        settings = {
            "file": str(file),
            "context_tokens": context_tokens,
            "threads": threads if is_large else 1,
            "exact": exact,
            "key": self._key,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llamafarm.models.llama_cpp_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._said: list[str] = []
        self._listener = threading.Thread(
            target=_keep_last_lines, args=(self._process.stderr, self._said), daemon=True
        )
        self._listener.start()
        try:
            self._address = self._start(json.dumps(settings))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; asking again is an error."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(timeout=5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def render(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """The text that the engine's own template makes of a conversation, ready for the answer.

        messages: mappings with `role` and `content`. add_generation_prompt False: as it stands when
        it is over. A start token that the engine puts in front itself is not part of it. Raises
        RunError with the template's fault.
        """
        asked = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        return str(self._ask("/apply-template", asked)["prompt"])

    def tokenize(self, text: str, *, add_special: bool = True) -> tuple[int, ...]:
        """Ids of a rendered text, as the engine makes them when it serves: special tokens are read
        as such; add_special: with the start token where the file asks for one.
        """
        asked = {"content": text, "add_special": add_special, "parse_special": True}
        return tuple(self._ask("/tokenize", asked)["tokens"])

    def next_token(
        self, token_ids: Sequence[int], *, likeliest: int, forced: int | None = None
    ) -> NextToken:
        """What the engine predicts after these tokens, and whether it would stop there.

        likeliest: how many tokens to give. forced: let it say this token, to see whether it stops.
        """
        said = self._plain_token if forced is None else forced
        answer = self._forced(token_ids, said, likeliest)
        predicted = answer.get("completion_probabilities") or [{"top_logprobs": []}]
        return NextToken(
            {int(token["id"]): float(token["logprob"]) for token in predicted[0]["top_logprobs"]},
            answer.get("stop_type") == "eos",
        )

    def log_probability(self, token_ids: Sequence[int], token: int) -> tuple[float, bool]:
        """Natural logarithm of this token's probability after these tokens, and whether it is the
        likeliest one. What is too small for float32 counts as the smallest float32.
        """
        predicted = self._forced(token_ids, token, 1).get("completion_probabilities")
        if predicted and predicted[0]["id"] == token:
            value, top = predicted[0]["logprob"], predicted[0]["top_logprobs"][0]["id"]
        else:
            # A part of a character, of which the engine reports nothing: look it up among all.
            everything = self.next_token(token_ids, likeliest=_ALL_TOKENS)
            value, top = everything.log_probabilities[token], everything.top
        return max(float(value), _LEAST_LOG_PROBABILITY), top == token

    def _forced(self, token_ids: Sequence[int], token: int | None, likeliest: int) -> Any:
        """Let the engine say this token. What it reports are the probabilities from before that.

        token None: whichever it says.
        """
        asked = {
            "prompt": list(token_ids),
            "n_predict": 1,
            "n_probs": likeliest,
            "temperature": 0,
            "cache_prompt": True,
            "logit_bias": [] if token is None else [[token, _ALWAYS]],
        }
        return self._ask("/completion", asked)

    @functools.cached_property
    def _plain_token(self) -> int | None:
        """A whole character: of a part of one the engine reports nothing until the next token.
        None where the vocabulary has no letter a.
        """
        return next(iter(self.tokenize("a", add_special=False)[-1:]), None)

    def generate(
        self,
        token_ids: Sequence[int],
        *,
        max_new_tokens: int,
        stop_words: Sequence[str] = (),
    ) -> EngineAnswer:
        """The likeliest continuation, up to an end token, a stop word, or max_new_tokens."""
        asked = {
            "prompt": list(token_ids),
            "n_predict": max_new_tokens,
            "temperature": 0,
            "cache_prompt": True,
            "return_tokens": True,
            "stop": list(stop_words),
        }
        answer = self._ask("/completion", asked)
        kind = answer.get("stop_type")
        return EngineAnswer(
            str(answer["content"]),
            tuple(answer.get("tokens", ())),
            kind if kind in ("eos", "word") else "limit",
            str(answer.get("stopping_word", "")),
        )

    def _start(self, settings: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("both are pipes")
        timer = threading.Timer(_START_SECONDS, self._process.kill)
        # A signal may come before it is cancelled: the program must not wait for it at its end.
        timer.daemon = True
        try:
            timer.start()
            stdin.write(settings + "\n")
            stdin.flush()
            address = stdout.readline().strip()
        except BrokenPipeError:
            address = ""
        finally:
            timer.cancel()
        if not address:
            self._process.wait()
            self._listener.join(timeout=5)
            raise ModelError(
                "\n  ".join([f"llama.cpp cannot load {self._file}; it said:", *self._said]),
                hint="the file is damaged, or of an architecture that this llama.cpp does not know",
            )
        return address

    def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310  # always the loopback address
            self._address + path,
            json.dumps(body).encode("utf-8"),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        try:
            with _no_proxy().open(request, timeout=_ANSWER_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as fault:
            raise RunError(f"llama.cpp refuses {path}: {_message(fault)}") from fault
        except (OSError, ValueError) as fault:
            self._listener.join(timeout=1)
            stopped = f"llama.cpp stopped while it ran {self._file} ({fault})"
            raise RunError("\n  ".join([stopped, *self._said])) from fault


def _no_proxy() -> urllib.request.OpenerDirector:
    """A proxy of the environment must not get what is meant for this machine."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _message(fault: urllib.error.HTTPError) -> str:
    text = fault.read().decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text or str(fault)


def _keep_last_lines(stream: IO[str], lines: list[str]) -> None:
    for line in _lines(stream):
        lines.append(line)
        del lines[:-_LINES_KEPT]


def _lines(stream: IO[str]) -> Iterator[str]:
    with stream:
        for line in stream:
            if line.strip():
                yield line.rstrip()
