"""Artifacts that a stranger made, each read by the command that reads such things.

Every case has a directory of its own: what the stranger made, a secret that is none of his
business, and an output directory. The command runs in a child that is watched from inside: code of
an artifact would make the file `ran`, and every connection, every process and every write outside
the output directory, the caches and the places for temporary files is refused and recorded.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.together import each
from tests.faults.campaign.workplace import Workplace, make_workplace
from tests.faults.campaign.zygote import shared_zygote

SECRET = "nobody-else-may-read-this-4711"  # what is looked for
# Where a run may write, in the directory of its case.
_WRITABLE = ("out", "cache", "state", "tmp", "home")
_DEVICES = ("/dev/null", "/dev/tty", "/dev/shm", "/proc/self", "/dev/fd")
_PATIENCE_SECONDS = 60.0
_FEW = ("--max-new-tokens", "2")
_DEFECT = 70


@dataclass(frozen=True)
class Watch:
    """Called in the child before the command: what it does from then on is looked at."""

    root: str
    log: str

    def __call__(self) -> None:
        import huggingface_hub.constants

        # An attempt to reach the Hub is to be seen, not to be kept back.
        os.environ.pop("HF_HUB_OFFLINE", None)
        huggingface_hub.constants.HF_HUB_OFFLINE = False
        tempfile.tempdir = None  # another one than its parent's
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        allowed = tuple(str(Path(self.root, name)) for name in _WRITABLE)

        def hook(event: str, args: tuple[Any, ...]) -> None:
            found = _what_happens(event, args, allowed)
            if found:
                os.write(log, f"{event}: {found}\n".encode("utf-8", "backslashreplace"))
                raise PermissionError(f"the campaign refuses {event}: {found}")

        sys.addaudithook(hook)


# Which argument is the path that changes, and which the directory that it starts in.
_CHANGES = {
    "os.chmod": (0, 2),
    "os.link": (1, 3),
    "os.mkdir": (0, 2),
    "os.remove": (0, 1),
    "os.rename": (1, 3),
    "os.rmdir": (0, 1),
    "os.symlink": (1, 2),
    "os.truncate": (0, 9),
}
_PROCESSES = ("os.system", "os.exec", "os.posix_spawn", "pty.spawn", "os.startfile")
_HARMLESS_PROCESSES = ("lscpu", "ldconfig", "uname", "sysctl", "nvidia-smi")


def _what_happens(event: str, args: tuple[Any, ...], allowed: Sequence[str]) -> str:
    """What is not to happen; empty for all else."""
    if event in ("socket.connect", "socket.sendto"):
        return "" if isinstance(args[1], str | bytes) else repr(args[1])
    if event.startswith("socket.get") and event != "socket.gethostname":
        return repr(args[:1])
    if event in _PROCESSES:
        return repr(args[:1])
    if event == "subprocess.Popen":
        return "" if Path(os.fsdecode(args[0])).name in _HARMLESS_PROCESSES else repr(args[1])
    if event == "open":
        path, _, flags = args
        writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        path = path if writes and isinstance(path, str | bytes) else None
    else:
        place, start = _CHANGES.get(event, (0, 9))
        path = args[place] if event in _CHANGES else None
        if len(args) > start and args[start] not in (None, -1):
            path = f"/proc/self/fd/{args[start]}/{os.fsdecode(path)}"
    if not isinstance(path, str | bytes | os.PathLike):
        return ""
    whole = Path(os.fsdecode(path))
    # A link is followed where it is opened; else it is changed itself.
    real = str(whole.resolve() if event == "open" else whole.parent.resolve() / whole.name)
    return "" if real.startswith((*allowed, *_DEVICES)) else real


@dataclass(frozen=True)
class Place:
    """The directory of one case."""

    root: Path

    @property
    def model(self) -> Path:
        """A model, to be changed."""
        return self.root / "model"

    @property
    def adapter(self) -> Path:
        """An adapter on that model."""
        return self.root / "adapter"

    @property
    def run(self) -> Path:
        """A finished run, where commands that go on from one look for it."""
        return self.root / "out" / "run"

    @property
    def out(self) -> Path:
        """Where the command may write."""
        return self.root / "out"

    @property
    def canary(self) -> Path:
        """What code of the artifact would make."""
        return self.root / "ran"

    @property
    def secret(self) -> Path:
        """A file that the stranger would like to have."""
        return self.root / "secret" / "secret.txt"

    @property
    def code(self) -> str:
        """Python that makes the canary."""
        return f"open({str(self.canary)!r}, 'w').close()\n"

    @property
    def pickle(self) -> bytes:
        """A pickle that makes the canary when it is read."""
        command = f"open({str(self.canary)!r}, 'w').close()"
        return b"cbuiltins\nexec\n(V" + command.encode() + b"\ntR."

    def change(self, file: Path, **values: Any) -> None:
        """Set keys of a JSON file."""
        old = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**old, **values}))

    def strategy(self, **parts: Any) -> None:
        """strategies.yaml with one strategy `s` on the model and the data. JSON is YAML."""
        config = {
            "base_model": str(self.model),
            "method": {"type": "lora", "r": 2},
            "training_args": {"max_steps": 1, "learning_rate": 1e-3, "mixed_precision": "no"},
            **parts.pop("config", {}),
        }
        block = {
            "components": {"fine_tuner": {"type": "pytorch", "config": config}},
            "dataset": {"train_file": "data.jsonl"},
            **parts,
        }
        (self.root / "strategies.yaml").write_text(json.dumps({"s": block}))


Make = Callable[[Place], Sequence[str]]


@dataclass(frozen=True)
class Hostile:
    """One artifact. make: puts it into its place and says what is typed; codes: how that may end;
    reads: what is wrong with what was written, if anything is.
    """

    name: str
    make: Make
    codes: tuple[int, ...] = (2,)
    reads: Callable[[Place], str] = field(default=lambda place: "")


_NOT_READ = (0, 1, 2, 3)


def _generate(place: Place, source: Path | str = "model") -> Sequence[str]:
    return ("generate", str(source), "hello", *_FEW)


def _train(place: Place, *more: str) -> Sequence[str]:
    return ("train", "--strategy", "s", "--output", str(place.out / "new"), *more)


def _pickles() -> Iterator[Hostile]:
    def weights(place: Place, name: str, *, alone: bool) -> Sequence[str]:
        if alone:
            (place.model / "model.safetensors").unlink()
        (place.model / name).write_bytes(place.pickle)
        return _generate(place)

    for name in ("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"):
        yield Hostile(
            f"a pickle as the only weights: {name}", partial(weights, name=name, alone=True)
        )
    beside = partial(weights, name="pytorch_model.bin", alone=False)
    yield Hostile("a pickle beside safetensors", beside, (0,))

    def called_safetensors(place: Place) -> Sequence[str]:
        (place.model / "model.safetensors").write_bytes(place.pickle)
        return _generate(place)

    yield Hostile("a pickle called safetensors", called_safetensors)

    def gguf(place: Place) -> Sequence[str]:
        (place.root / "model.gguf").write_bytes(place.pickle)
        return _generate(place, "model.gguf")

    yield Hostile("a pickle called gguf", gguf)

    def adapter(place: Place, *, alone: bool) -> Sequence[str]:
        (place.adapter / "adapter_model.bin").write_bytes(place.pickle)
        if alone:
            (place.adapter / "adapter_model.safetensors").unlink()
        return _generate(place, "adapter")

    yield Hostile("a pickle as the only adapter", partial(adapter, alone=True))
    yield Hostile("a pickle beside an adapter", partial(adapter, alone=False), (0,))

    def data(place: Place, name: str) -> Sequence[str]:
        (place.root / name).write_bytes(place.pickle)
        return ("inspect", name, "--base-model", str(place.model))

    for name in (
        "d.pkl",
        "d.pickle",
        "d.pt",
        "d.npy",
        "d.joblib",
        "d.jsonl",
        "d.parquet",
        "d.arrow",
    ):
        yield Hostile(f"a pickle as a dataset: {name}", partial(data, name=name))

    def checkpoint(place: Place) -> Sequence[str]:
        newest = sorted((place.run / "checkpoints").glob("checkpoint-*"))[-1]
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (newest / name).write_bytes(place.pickle)
        return ("train", "--strategy", "short", "--output", str(place.run), "--resume")

    yield Hostile("pickles in a checkpoint", checkpoint, _NOT_READ)


def _code() -> Iterator[Hostile]:
    def config(place: Place, file: str = "config.json", **values: Any) -> Sequence[str]:
        for name in (
            "evil.py",
            "modeling_evil.py",
            "tokenization_evil.py",
            "custom_generate/generate.py",
        ):
            path = place.model / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(place.code + "class C: pass\ndef generate(*a, **k): pass\n")
        place.change(place.model / file, **values)
        return _generate(place)

    local = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C", "AutoTokenizer": "evil.C"}
    remote = {name: f"evil/model--{code}" for name, code in local.items()}
    kernel = "evil/kernel"
    changes: Mapping[str, Mapping[str, Any]] = {
        "auto_map": {"auto_map": local},
        "auto_map of the Hub": {"auto_map": remote},
        "auto_map and trust_remote_code": {"auto_map": local, "trust_remote_code": True},
        "auto_map further down": {"text_config": {"auto_map": remote}},
        "an attention kernel of the Hub": {"_attn_implementation_internal": kernel},
        "an attention kernel by another name": {"attn_implementation": kernel},
        "an attention kernel further down": {"text_config": {"_attn_implementation": kernel}},
        "kernels for everything": {"use_kernels": True, "kernel_config": {"RMSNorm": kernel}},
        "custom_pipelines": {"custom_pipelines": {"text-generation": {"impl": "evil.C"}}},
        "another name": {"_name_or_path": "evil/model", "name_or_path": "evil/model"},
        "weights elsewhere": {"transformers_weights": "../secret/secret.txt"},
        "a type that is a function": {"dtype": "load"},
        "methods that are values": {"to_dict": 1, "from_pretrained": "evil", "get_text_config": 2},
    }
    for name, values in changes.items():
        yield Hostile(f"config.json: {name}", partial(config, **values), (0, 2))
    yield Hostile(
        "config.json: an architecture of its own",
        partial(config, model_type="evil", auto_map=local),
    )
    quantised = {"quant_method": "evil", "modules": "evil.C"}
    yield Hostile("config.json: a quantiser", partial(config, quantization_config=quantised))
    nested = {"text_config": {"quantization_config": {"quant_method": "gptq"}}}
    yield Hostile("config.json: a quantiser further down", partial(config, **nested))
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    yield Hostile("config.json: nested deep", partial(config, deep=deep))
    tokenizer = {
        "auto_map": {"auto_map": {"AutoTokenizer": ["evil.C", "evil.C"]}},
        "auto_map of the Hub": {"auto_map": {"AutoTokenizer": ["evil/t--evil.C", None]}},
        "a class of its own": {"tokenizer_class": "evil.C"},
        "a class of Python's": {"tokenizer_class": "os.system"},
        "files elsewhere": {"tokenizer_file": "../secret/secret.txt", "vocab_file": "/etc/passwd"},
        "a GGUF": {"gguf_file": "../secret/secret.txt"},
    }
    for name, values in tokenizer.items():
        made = partial(config, file="tokenizer_config.json", **values)
        yield Hostile(f"tokenizer_config.json: {name}", made, (0, 2))
    for file in (
        "processor_config.json",
        "preprocessor_config.json",
        "video_processor_config.json",
    ):
        yield Hostile(
            f"{file}: auto_map",
            partial(config, file=file, auto_map={"AutoProcessor": "evil.C"}),
            (0,),
        )
    generation = {"custom_generate": "evil/generate", "penalty_alpha": 0.6, "top_k": 4}
    yield Hostile(
        "generation_config.json: another way to generate",
        partial(config, file="generation_config.json", **generation),
        (0,),
    )

    def modules(place: Place) -> Sequence[str]:
        for name in (
            "sitecustomize",
            "usercustomize",
            "conftest",
            "torch",
            "yaml",
            "jinja2",
            "evil",
        ):
            (place.root / f"{name}.py").write_text(place.code)
            (place.model / f"{name}.py").write_text(place.code)
        return _generate(place)

    yield Hostile("modules that Python looks for", modules, (0,))


def _adapters() -> Iterator[Hostile]:
    def adapter(place: Place, **values: Any) -> Sequence[str]:
        (place.root / "evil.py").write_text(place.code)
        place.change(place.adapter / "adapter_config.json", **values)
        return _generate(place, "adapter")

    mapping = {"base_model_class": "C", "parent_library": "evil"}
    yield Hostile(
        "an adapter on a base of the Hub", partial(adapter, base_model_name_or_path="evil/base")
    )
    yield Hostile(
        "an adapter with a class of its own", partial(adapter, auto_mapping=mapping), (0,)
    )
    megatron = {"megatron_config": {"a": 1}, "megatron_core": "evil"}
    yield Hostile("an adapter with a core of its own", partial(adapter, **megatron), (0,))
    yield Hostile("an adapter at run time", partial(adapter, runtime_config={"a": "evil"}), (0,))
    yield Hostile("an adapter of an unknown kind", partial(adapter, peft_type="EVIL"))
    prompt = {"peft_type": "PROMPT_TUNING", "tokenizer_name_or_path": "evil/tokenizer"}
    yield Hostile("an adapter of prompts", partial(adapter, num_virtual_tokens=2, **prompt))
    yield Hostile(
        "an adapter on a file", partial(adapter, base_model_name_or_path="../secret/secret.txt")
    )


def _paths() -> Iterator[Hostile]:
    def link(place: Place, name: str) -> Sequence[str]:
        (place.model / name).unlink(missing_ok=True)
        (place.model / name).symlink_to(place.secret)
        place.strategy()
        return _train(place)

    for name in (
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer_config.json",
        "model.safetensors",
        "config.json",
    ):
        yield Hostile(f"a link to a secret: {name}", partial(link, name=name))

    def adapter_link(place: Place) -> Sequence[str]:
        (place.adapter / "chat_template.jinja").symlink_to(place.secret)
        return ("convert", "adapter", str(place.out / "m"), "--format", "safetensors")

    yield Hostile("a link to a secret in an adapter", adapter_link)

    def index(place: Place, shard: Any) -> Sequence[str]:
        (place.model / "model.safetensors").rename(place.root / "secret" / "w.safetensors")
        content = {"metadata": {}, "weight_map": {"model.norm.weight": shard}}
        (place.model / "model.safetensors.index.json").write_text(json.dumps(content))
        return _generate(place)

    yield Hostile("shards above the model", partial(index, shard="../secret/w.safetensors"))
    yield Hostile("a shard that is a number", partial(index, shard=5))
    yield Hostile("a shard that is a list", partial(index, shard=["../secret/w.safetensors"]))
    yield Hostile("shards with a whole path", partial(index, shard="/etc/passwd"))

    def planted(place: Place, name: str) -> Sequence[str]:
        target = place.out / "new" / name
        target.parent.mkdir(parents=True)
        target.symlink_to(place.root / "secret")
        place.strategy()
        return _train(place, "--overwrite")

    for name in ("checkpoints", "final_model", "logs"):
        yield Hostile(
            f"a link in the output directory: {name}", partial(planted, name=name), _NOT_READ
        )

    def planted_file(place: Place, name: str) -> Sequence[str]:
        target = place.out / "new" / name
        target.parent.mkdir(parents=True)
        target.symlink_to(place.secret)
        place.strategy()
        return _train(place, "--overwrite")

    for name in ("run.json", "strategy.yaml", "metrics.jsonl", "summary.json", ".lock"):
        yield Hostile(
            f"a link in the output directory: {name}", partial(planted_file, name=name), _NOT_READ
        )

    def target(place: Place) -> Sequence[str]:
        (place.out / "m").symlink_to(place.root / "secret")
        return (
            "convert",
            "adapter",
            str(place.out / "m"),
            "--format",
            "safetensors",
            "--overwrite",
        )

    yield Hostile("a target that is a link", target)

    def name(place: Place, given: str) -> Sequence[str]:
        options = ("--format", "gguf", "--no-verify", "--name", given)
        return ("convert", "adapter", str(place.out / "m"), *options)

    yield Hostile("a model's name with a way up", partial(name, given="../../secret/x"))
    yield Hostile("a model's name with a whole path", partial(name, given="/tmp/evil"))

    def identity(place: Place, given: str) -> Sequence[str]:
        block = {"components": {"fine_tuner": {"config": {"base_model": "model"}}}}
        (place.root / "strategies.yaml").write_text(json.dumps({given: block}))
        return ("train", "--strategy", given, "--train-dataset", "data.jsonl")

    yield Hostile("a strategy called ../x", partial(identity, given="../secret/x"))
    yield Hostile("a strategy called ..", partial(identity, given=".."))

    def manifest(place: Place) -> Sequence[str]:
        for file in (place.run / "checkpoints").glob("checkpoint-*/manifest.json"):
            text = file.read_text().replace("trainer_state.json", "../../../../secret/secret.txt")
            file.write_text(text)
        return ("train", "--strategy", "short", "--output", str(place.run), "--resume")

    yield Hostile("a manifest with a way up", manifest, _NOT_READ)

    def collection(place: Place, file_name: str) -> Sequence[str]:
        info = {"d": {"file_name": file_name, "formatting": "alpaca"}}
        (place.root / "dataset_info.json").write_text(json.dumps(info))
        return ("inspect", "dataset_info.json#d", "--base-model", str(place.model))

    yield Hostile(
        "an index that names a secret", partial(collection, file_name="secret/secret.txt")
    )
    yield Hostile("an index that names a script", partial(collection, file_name="evil.py"))

    def script(place: Place, **entry: Any) -> Sequence[str]:
        (place.root / "dataset_info.json").write_text(json.dumps({"d": entry}))
        return ("inspect", "dataset_info.json#d", "--base-model", str(place.model))

    yield Hostile("an index that names a loading script", partial(script, script_url="evil.py"))
    yield Hostile("an index that names the Hub", partial(script, hf_hub_url="evil/data"))


def _templates() -> Iterator[Hostile]:
    from tests.data.test_template_sandbox import BOMBS, ESCAPES

    def template(place: Place, text: str) -> Sequence[str]:
        (place.model / "chat_template.jinja").write_text(
            text.replace("touch ran", f"touch {place.canary}")
        )
        return _generate(place)

    for name in sorted(ESCAPES):
        yield Hostile(
            f"a template that reaches out: {name}", partial(template, text=ESCAPES[name]), (0, 2)
        )
    for name in (
        "a_text_many_times",
        "a_format",
        "a_list_that_holds_itself_twice",
        "a_macro_without_end",
    ):
        yield Hostile(f"a template without end: {name}", partial(template, text=BOMBS[name]))


def _strategies() -> Iterator[Hostile]:
    def text(place: Place, content: str, *more: str) -> Sequence[str]:
        content = content.replace("CANARY", str(place.canary))
        (place.root / "strategies.yaml").write_text(content)
        return ("info", "s", "--strategy-file", "strategies.yaml", *more)

    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    files = {
        "a tag that runs a command": "s: !!python/object/apply:os.system ['touch CANARY']",
        "a tag that makes an object": "s: !!python/object/new:os.system [touch CANARY]",
        "a tag that imports": "s: !!python/module:evil",
        "a tag that names a function": "s: !!python/name:os.system",
        "a tag of its own": "%TAG ! tag:yaml.org,2002:python/\n---\ns: !name:os.system x",
        "an alias bomb": bomb,
        "nested without end": "s: " + "[" * 100_000,
        "keys that name code": "s: {components: {fine_tuner: {config: {_target_: os.system}}}}",
        "a circle": "s: {extends: s, components: {fine_tuner: {}}}",
    }
    for name, content in files.items():
        yield Hostile(f"a strategy with {name}", partial(text, content=content))

    def trust(place: Place, *more: str, **config: Any) -> Sequence[str]:
        place.change(place.model / "config.json", auto_map={"AutoConfig": "evil.C"})
        (place.model / "evil.py").write_text(place.code)
        place.strategy(config=config)
        return ("setup", "strategies.yaml", "--strategy", "s", "--verify-only", *more)

    trusted = {"base_model": {"huggingface_id": "model", "trust_remote_code": True}}
    yield Hostile("trust_remote_code in a strategy", partial(trust, **trusted), (0, 2))

    def flag(place: Place, *more: str) -> Sequence[str]:
        trust(place)
        return _train(place, *more)

    for more in (
        ("--set", "trust_remote_code=true"),
        ("--set", "base_model.trust_remote_code=true"),
        ("--trust-remote-code",),
    ):
        yield Hostile(
            f"trust_remote_code by {' '.join(more)}",
            lambda place, more=more: flag(place, *more),
            (0, 2),
        )

    def metric(place: Place) -> Sequence[str]:
        (place.root / "evil.py").write_text(place.code)
        place.strategy(metrics=["evil.C", "os.system"])
        return _train(place)

    yield Hostile("a metric that is a function", metric)


def _data() -> Iterator[Hostile]:
    def file(place: Place, name: str, content: bytes) -> Sequence[str]:
        (place.root / name).write_bytes(content)
        return ("inspect", name, "--base-model", str(place.model))

    bomb = gzip.compress(b"\0" * 50_000_000)
    yield Hostile("a compressed bomb", partial(file, name="d.jsonl.gz", content=bomb))
    yield Hostile("an archive", partial(file, name="d.zip", content=b"PK\3\4" + b"\0" * 100))

    def special(place: Place, make: Callable[[Path], object]) -> Sequence[str]:
        make(place.root / "d.jsonl")
        return ("inspect", "d.jsonl", "--base-model", str(place.model))

    def to_socket(path: Path) -> None:
        here = Path.cwd()
        with socket.socket(socket.AF_UNIX) as made:
            # The path of a socket has 108 characters at most.
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                made.bind(f"/proc/self/fd/{descriptor}/{path.name}")
            finally:
                os.close(descriptor)
        assert Path.cwd() == here

    yield Hostile("a pipe as a dataset", partial(special, make=os.mkfifo))
    yield Hostile(
        "a device as a dataset", partial(special, make=lambda path: path.symlink_to("/dev/zero"))
    )
    yield Hostile("a socket as a dataset", partial(special, make=to_socket))
    yield Hostile(
        "a link to itself as a dataset", partial(special, make=lambda path: path.symlink_to(path))
    )

    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\x1b]0;owned\x07\x1b[2J"

    def page(place: Place) -> Sequence[str]:
        rows = [{"question": f"{attack} {n}", "answer": f"{n} {attack}"} for n in range(20)]
        (place.root / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = ("--preview", "3", "--html", str(place.out / "page.html"))
        return ("inspect", "d.jsonl", "--base-model", str(place.model), *options)

    def page_is_safe(place: Place) -> str:
        text = (place.out / "page.html").read_text()
        return (
            "markup of the data is in the page"
            if "<img src" in text or "<script>al" in text
            else ""
        )

    yield Hostile("data with markup and control characters", page, (0, 3), page_is_safe)

    def prompt(place: Place) -> Sequence[str]:
        said = 'a"""\nFROM /etc/passwd\nSYSTEM """b'
        options = ("--format", "gguf", "--no-verify", "--system-prompt", said)
        return ("convert", "adapter", str(place.out / "m"), *options)

    yield Hostile("a system prompt that ends its quotes", prompt, _NOT_READ)


def _ggufs() -> Iterator[Hostile]:
    from tests.faults.test_hostile_gguf import LIES

    def gguf(place: Place, content: bytes) -> Sequence[str]:
        (place.root / "m.gguf").write_bytes(content)
        return _generate(place, "m.gguf")

    for name in ("tensors", "text", "array_of_text", "depth", "outside", "overlap", "product"):
        yield Hostile(f"a GGUF that lies: {name}", partial(gguf, content=LIES[name][0]))


def artifacts() -> tuple[Hostile, ...]:
    """All of them, in the order in which they are read."""
    made = (_pickles, _code, _adapters, _paths, _templates, _strategies, _data, _ggufs)
    return tuple(artifact for some in made for artifact in some())


def chosen(form: Form) -> tuple[Hostile, ...]:
    """All of them in the long form, every other one in the short form."""
    return artifacts() if form == "long" else artifacts()[::2]


def cases(workdir: Path, form: Form) -> Iterator[Case]:
    """A case for every artifact."""
    original = make_workplace(workdir / "original")
    _train_once(original)
    _write_adapter(original.root / "adapter", original.root / "model")
    jobs = (
        (a.name, partial(_job, a, original, workdir / f"{n:03d}"))
        for n, a in enumerate(chosen(form))
    )
    yield from each(jobs)


def _train_once(place: Workplace) -> None:
    code, child = shared_zygote().run(place.train("short", "run"), place.root, place.env)
    if code:
        raise RuntimeError(
            f"the run that is resumed from ended with exit code {code}\n{child.stderr}"
        )


def _write_adapter(directory: Path, base: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    hidden = json.loads((base / "config.json").read_text())["hidden_size"]
    directory.mkdir()
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{prefix}.lora_A.weight": np.full((2, hidden), 0.01, np.float32),
        f"{prefix}.lora_B.weight": np.full((hidden, 2), 0.01, np.float32),
    }
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "../model",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
    }
    (directory / "adapter_config.json").write_text(json.dumps(settings))


def _job(artifact: Hostile, original: Workplace, root: Path) -> list[Case]:
    return [_read(artifact, original, root)]


def _read(artifact: Hostile, original: Workplace, root: Path) -> Case:
    place = Place(root)
    for name in (*_WRITABLE, "secret"):
        (root / name).mkdir(parents=True)
    for name in ("model", "adapter"):
        shutil.copytree(original.root / name, root / name)
    for name in ("data.jsonl", "strategies.yaml"):
        text = (original.root / name).read_text()
        (root / name).write_text(text.replace(str(original.root), str(root)))
    shutil.copytree(original.out("run"), place.run)
    place.secret.write_text(f'{{"auth": "{SECRET}"}}\n')
    argv = artifact.make(place)
    before = _contents(root)
    log = root / "tmp" / "seen.log"
    env = {
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(root / "cache" / "hf"),
        "HOME": str(root / "home"),
        "LLAMAFARM_CACHE": str(root / "cache"),
        "LLAMAFARM_STATE": str(root / "state"),
        "TMPDIR": str(root / "tmp"),
    }
    child = shared_zygote().start(argv, root, env, Watch(str(root), str(log)))
    try:
        code = child.wait(_PATIENCE_SECONDS)
    except TimeoutError:
        return Case(
            artifact.name, passed=False, detail=f"still running after {_PATIENCE_SECONDS:g} s"
        )
    said = child.stdout + child.stderr
    fault = _fault(place, code, said, artifact, log, before)
    if not fault:
        shutil.rmtree(root)
    return Case(artifact.name, passed=not fault, detail=fault)


def _fault(
    place: Place, code: int, said: str, artifact: Hostile, log: Path, before: Mapping[str, str]
) -> str:
    """What went wrong, in a line; empty when nothing did."""
    seen = log.read_text().splitlines() if log.exists() else []
    after = _contents(place.root)
    changed = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    if place.canary.exists():
        return "its code was run"
    if seen:
        return f"it was seen to do: {seen[0]}"
    if changed:
        return f"changed outside of the output directory: {', '.join(changed[:3])}"
    if "\x1b" in said or SECRET in said or _holds_secret(place.out):
        return "the secret, or a control character, is in what was written"
    if code == _DEFECT or "Traceback" in said or code not in artifact.codes:
        return f"exit code {code}: {said.strip()[-400:]}"
    return artifact.reads(place)


def _contents(root: Path) -> dict[str, str]:
    """What lies outside of where may be written."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.relative_to(root).parts[0] in _WRITABLE:
            continue
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        else:
            found[name] = sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    return found


def _holds_secret(directory: Path) -> bool:
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return any(SECRET.encode() in path.read_bytes() for path in files)


ROW = Row(
    key="hostile",
    fault="hostile artifacts (pickles, template escapes, `auto_map`, symlinks, `../`, YAML tags, "
    "alias bombs)",
    passes_when="no code of theirs is run, the network is never opened, nothing outside the output "
    "directory is written, no secret is carried along, and the exit code says what it is",
    cases=cases,
)
