"""Corruption: a damaged checkpoint is never trained on, and never becomes the final model."""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from llamafarm.errors import LlamafarmError
from llamafarm.monitoring.events import BestLostEvent, Event, StepEvent
from llamafarm.planning.plan import Every, TrainingPlan
from llamafarm.training import checkpoint as checkpoints
from llamafarm.training.checkpoint import MANIFEST, list_checkpoints, newest_valid
from tests.faults.campaign.grid import MortalProcess
from tests.faults.campaign.one_at_a_time import one_at_a_time
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.together import chance_of
from tests.training.runs import Killed, run_plan, tiny_plan, write_tiny_model

SHORT_CASES, LONG_CASES = 100, 1_000
# One case of so many is trained on to its end, besides those where only that shows the outcome.
RESUMED_EVERY = 20
_KILLED_AT = 10
_BEST = "checkpoint-4"
_WEIGHTS, _OPTIMIZER, _STATE = (
    "adapter_model.safetensors",
    "optimizer.safetensors",
    "trainer_state.json",
)
_MOVING = (_WEIGHTS, _OPTIMIZER, _STATE)


@dataclass(frozen=True, slots=True)
class Scene:
    """What is damaged, and what it is compared with.

    broken: a run killed at step 10; other: the same run at another seed, whose files have the same
    names; expected: hash of the uninterrupted run's final model; known: hashes of all models that
    these runs ever saved.
    """

    models: Path
    broken: Path
    other: Path
    expected: str
    known: frozenset[str]


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done. what: enough to do it again.

    unusable: checkpoints that must be passed over, each with the words of which its line must hold
    one (none: any reason will do); suspect: those that may be; refusal: what a run that goes on
    must say when it refuses; meanwhile: what is wrong with the disk while it is read.
    """

    what: str
    unusable: dict[str, tuple[str, ...]] = field(default_factory=dict)
    suspect: frozenset[str] = frozenset()
    resumed: bool = False
    refusal: str = ""
    meanwhile: Callable[[], AbstractContextManager[None]] = nullcontext


Damager = Callable[[Path, Scene, random.Random], Damage]


def prepare_scene(workdir: Path) -> Scene:
    """Train the run that is damaged, whole and in part, and another one like it."""
    models = write_tiny_model(workdir / "model")
    whole = run_plan(plan_of(models, workdir / "whole"))
    for name, seed in (("broken", 42), ("other", 43)):
        with MortalProcess() as process:
            try:
                run_plan(plan_of(models, workdir / name, seed), on_event=partial(_die, process))
            except Killed:
                continue
    places = [workdir / name / "checkpoints" for name in ("whole", "broken")]
    saved = [checkpoint.path for place in places for checkpoint in list_checkpoints(place)]
    known = frozenset(_model_hash(path) for path in saved)
    expected = _model_hash(whole.directory.final_model)
    return Scene(models, workdir / "broken", workdir / "other", expected, known)


def _model_hash(directory: Path) -> str:
    """SHA-256 over what makes a model, without what only a resume needs, and without its card."""
    left_out = {_OPTIMIZER, _STATE, MANIFEST, "README.md"}
    files = sorted(file for file in directory.iterdir() if file.name not in left_out)
    return hashlib.sha256(
        b"".join(hashlib.sha256(f.name.encode() + b"|" + f.read_bytes()).digest() for f in files)
    ).hexdigest()


def _die(process: MortalProcess, event: Event) -> None:
    if isinstance(event, StepEvent) and event.step == _KILLED_AT:
        process.die()


def plan_of(models: Path, output: Path, seed: int = 42) -> TrainingPlan:
    """Checkpoints 3, 4, 6 and 9 when it is killed. The best is 4: the loss falls, and the highest
    is asked for.
    """
    return tiny_plan(
        models,
        output,
        seed=seed,
        optimizer={"warmup_steps": 0},
        evaluation={"every": Every(4), "greater_is_better": True},
        saving={"every": Every(3), "total_limit": 4},
    )


# What is done to a file: each returns in words what it did.


def _flip(file: Path, rng: random.Random) -> str:
    data = bytearray(file.read_bytes())
    place, bit = rng.randrange(len(data)), rng.randrange(8)
    data[place] ^= 1 << bit
    file.write_bytes(data)
    return f"bit {bit} of byte {place} flipped in"


def _truncate(file: Path, rng: random.Random) -> str:
    length = rng.randrange(1, file.stat().st_size)
    os.truncate(file, length)
    return f"truncated to {length} bytes:"


def _empty(file: Path, rng: random.Random) -> str:
    os.truncate(file, 0)
    return "emptied:"


def _delete(file: Path, rng: random.Random) -> str:
    file.unlink()
    return "deleted:"


def _zero(file: Path, rng: random.Random) -> str:
    """What a power cut leaves of a file that was not fsynced."""
    data = file.read_bytes()
    start = rng.choice((0, rng.randrange(len(data))))
    file.write_bytes(data[:start] + b"\0" * (len(data) - start))
    return f"zeros from byte {start}:"


def _append(file: Path, rng: random.Random) -> str:
    extra = rng.randbytes(rng.randrange(1, 600))
    file.write_bytes(file.read_bytes() + extra)
    return f"{len(extra)} bytes added to"


def _directory_instead(file: Path, rng: random.Random) -> str:
    file.unlink()
    file.mkdir()
    return "a directory in place of"


def _broken_link(file: Path, rng: random.Random) -> str:
    file.unlink()
    file.symlink_to(rng.choice(("nowhere", file.name, "/dev/null", "/dev/zero")))
    return f"a link to {file.readlink()} in place of"


def _pipe_instead(file: Path, rng: random.Random) -> str:
    """Whoever opens it without thought waits for a writer for ever."""
    file.unlink()
    os.mkfifo(file)
    return "a pipe in place of"


_FILE_DAMAGES = (
    _flip,
    _truncate,
    _empty,
    _delete,
    _zero,
    _append,
    _directory_instead,
    _broken_link,
    _pipe_instead,
)


def _damage_file(
    checkpoint: Path, name: str, rng: random.Random, how: Callable[[Path, random.Random], str]
) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Damage one file: what was done, and the checkpoint that cannot be used any more."""
    words = f"{how(checkpoint / name, rng)} {checkpoint.name}/{name}"
    # A manifest that is JSON still makes its files look changed, or lists other ones.
    return words, {checkpoint.name: () if name == MANIFEST else (name,)}


# Damages.


def _one_file(how: Callable[[Path, random.Random], str], only: tuple[str, ...] = ()) -> Damager:
    """Mostly in the newest checkpoint, sometimes in one or two others."""

    def damage(place: Path, scene: Scene, rng: random.Random) -> Damage:
        *older, newest = _paths(place)
        chosen = rng.choice(
            [[newest]] * 6 + [[rng.choice(older)], [newest, older[-1]], [newest, *older[1:]]]
        )
        unusable: dict[str, tuple[str, ...]] = {}
        words = []
        for checkpoint in chosen:
            name = rng.choice(only or _names(checkpoint))
            said, hit = _damage_file(checkpoint, name, rng, how)
            words.append(said)
            unusable |= hit
        return Damage("; ".join(words), unusable)

    return damage


def _swapped_inside(place: Path, scene: Scene, rng: random.Random) -> Damage:
    newest = _paths(place)[-1]
    one, other = rng.sample(_names(newest), 2)
    _swap(newest / one, newest / other)
    words = (one, other, MANIFEST)
    return Damage(f"{newest.name}: {one} and {other} swapped", {newest.name: words})


def _swapped_between(place: Path, scene: Scene, rng: random.Random) -> Damage:
    one, other = rng.sample(_paths(place), 2)
    name = rng.choice((*_MOVING, MANIFEST))
    _swap(one / name, other / name)
    words = () if name == MANIFEST else (name,)
    what = f"{name} swapped between {one.name} and {other.name}"
    return Damage(what, {one.name: words, other.name: words})


def _of_another_run(place: Path, scene: Scene, rng: random.Random) -> Damage:
    newest = _paths(place)[-1]
    name = rng.choice(_MOVING)
    shutil.copy(scene.other / "checkpoints" / newest.name / name, newest / name)
    return Damage(f"{newest.name}/{name} of another run", {newest.name: (name,)})


def _whole_of_another_run(place: Path, scene: Scene, rng: random.Random) -> Damage:
    newest = _paths(place)[-1]
    shutil.rmtree(newest)
    shutil.copytree(scene.other / "checkpoints" / newest.name, newest)
    what = f"{newest.name} of another run, whole"
    return Damage(what, resumed=True, refusal="seed: was 43")


def _foreign_file(place: Path, scene: Scene, rng: random.Random) -> Damage:
    """To pass over a checkpoint that holds something strange is as right as to use it."""
    newest = _paths(place)[-1]
    directory = rng.choice((place, newest))
    name = rng.choice(("notes.txt", ".DS_Store", "optimizer.pt", "latest", "trainer_state.json~"))
    (directory / name).write_bytes(rng.randbytes(40))
    return Damage(f"{name} added to {directory.name}", suspect=frozenset({directory.name}))


def _foreign_weights(place: Path, scene: Scene, rng: random.Random) -> Damage:
    """Whatever looks for weights by a pattern would load them."""
    newest = _paths(place)[-1]
    name = rng.choice(
        (
            "adapter_model2.safetensors",
            "adapter_model_old.safetensors",
            "adapter_model.safetensors.safetensors",
            "adapter_model-00002-of-00002.safetensors",
            "adapter_model.bin",
        )
    )
    shutil.copy(scene.other / "checkpoints" / newest.name / _WEIGHTS, newest / name)
    what = f"{name} of another run added to {newest.name}"
    return Damage(what, suspect=frozenset({newest.name}), resumed=True)


def _foreign_directory(place: Path, scene: Scene, rng: random.Random) -> Damage:
    newest = _paths(place)[-1]
    directory = rng.choice((place, newest))
    name = rng.choice(("old", "checkpoint-best", "checkpoint-", "checkpoint-9.bak", ".tmp-mine"))
    (directory / name).mkdir()
    (directory / name / _WEIGHTS).write_bytes(rng.randbytes(40))
    return Damage(f"{name}/ added to {directory.name}", suspect=frozenset({directory.name}))


def _link_to_the_same(place: Path, scene: Scene, rng: random.Random) -> Damage:
    """The right bytes, elsewhere: to use them is as right as to refuse them."""
    newest = _paths(place)[-1]
    name = rng.choice(_MOVING)
    elsewhere = place.parent / f"moved-{name}"
    (newest / name).rename(elsewhere)
    (newest / name).symlink_to(elsewhere)
    what = f"a link to a moved {newest.name}/{name}"
    return Damage(what, suspect=frozenset({newest.name}), resumed=True)


def _link_to_another(place: Path, scene: Scene, rng: random.Random) -> Damage:
    *_, older, newest = _paths(place)
    name = rng.choice(_MOVING)
    (newest / name).unlink()
    (newest / name).symlink_to(older / name)
    return Damage(f"a link to {older.name}/{name} in {newest.name}", {newest.name: (name,)})


def _renamed(place: Path, scene: Scene, rng: random.Random) -> Damage:
    """A checkpoint that says that it is of another step than it is."""
    chosen = rng.choice(_paths(place))
    new = place / f"checkpoint-{rng.choice((1, 5, 8, 10, 11, 500, 10**19))}"
    chosen.rename(new)
    return Damage(f"{chosen.name} renamed to {new.name}", {new.name: ()})


def _linked_checkpoint(place: Path, scene: Scene, rng: random.Random) -> Damage:
    chosen, new = rng.choice(_paths(place)), place / "checkpoint-11"
    new.symlink_to(chosen.name)
    return Damage(f"{new.name} a link to {chosen.name}", {new.name: ()})


def _empty_checkpoint(place: Path, scene: Scene, rng: random.Random) -> Damage:
    new = place / f"checkpoint-{rng.choice(('11', '12', '00012', '9' * 30, '9' * 200))}"
    new.mkdir()
    return Damage(f"an empty {new.name}", {new.name: ()})


def _file_as_checkpoint(place: Path, scene: Scene, rng: random.Random) -> Damage:
    new = place / f"checkpoint-{rng.choice(('11', '9' * 30))}"
    new.write_text("not a directory")
    return Damage(f"a file called {new.name}")


def _other_manifest(place: Path, scene: Scene, rng: random.Random) -> Damage:
    """JSON, but nothing that a save ever wrote."""
    newest = _paths(place)[-1]
    valid = json.loads((newest / MANIFEST).read_bytes())
    contents = {
        "{}": b"{}",
        "null": b"null",
        "a list": b"[]",
        "no files": json.dumps(valid | {"files": []}).encode(),
        "files as text": json.dumps(valid | {"files": "all"}).encode(),
        "files as numbers": json.dumps(valid | {"files": [1, 2]}).encode(),
        "another schema": json.dumps(valid | {"schema": 99}).encode(),
        "another step": json.dumps(valid | {"step": 6}).encode(),
        "a step of text": json.dumps(valid | {"step": "nine"}).encode(),
        "without weights": json.dumps(
            valid | {"files": [f for f in valid["files"] if f["name"] != _WEIGHTS]}
        ).encode(),
        "without state": json.dumps(
            valid | {"files": [f for f in valid["files"] if f["name"] != _STATE]}
        ).encode(),
        "a path out of it": json.dumps(
            valid | {"files": [*valid["files"], valid["files"][0] | {"name": "../../run.json"}]}
        ).encode(),
        "brackets 200,000 deep": b"[" * 200_000,
        "a number of 5,000 digits": b'{"files": [], "step": ' + b"9" * 5_000 + b"}",
        "UTF-16": json.dumps(valid).encode("utf-16"),
        "not UTF-8": b"\xff\xfe\x00{",
    }
    name = rng.choice(sorted(contents))
    (newest / MANIFEST).write_bytes(contents[name])
    return Damage(f"{newest.name}/{MANIFEST} holds {name}", {newest.name: ()})


def _unreadable(place: Path, scene: Scene, rng: random.Random) -> Damage:
    newest = _paths(place)[-1]
    file = newest / rng.choice((*_MOVING, MANIFEST))
    at_open = rng.random() < 0.5
    what = f"EIO when {newest.name}/{file.name} is {'opened' if at_open else 'read'}"
    meanwhile = partial(unreadable, file, at_open=at_open)
    return Damage(what, {newest.name: (file.name,)}, meanwhile=meanwhile)


def _everything(place: Path, scene: Scene, rng: random.Random) -> Damage:
    words, unusable = [], {}
    for checkpoint in _paths(place):
        name, how = rng.choice(_names(checkpoint)), rng.choice(_FILE_DAMAGES)
        said, hit = _damage_file(checkpoint, name, rng, how)
        words.append(said)
        unusable |= hit
    return Damage("; ".join(words), unusable)


def damage_best(place: Path, scene: Scene, rng: random.Random) -> Damage:
    """The best checkpoint is older than the newest: nobody reads it until it is the final model."""
    best = place / _BEST
    how = rng.choice((*_FILE_DAMAGES, None))
    if how is None:
        shutil.rmtree(best)
        return Damage(f"{best.name} (the best) deleted", resumed=True)
    words, unusable = _damage_file(best, rng.choice((_WEIGHTS, "adapter_config.json")), rng, how)
    return Damage(f"the best: {words}", unusable, resumed=True)


_SMALL = ("adapter_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
DAMAGES: tuple[Damager, ...] = (
    _one_file(_flip, (_WEIGHTS,)),
    _one_file(_flip, (_OPTIMIZER,)),
    _one_file(_flip, (_STATE,)),
    _one_file(_flip, (MANIFEST,)),
    _one_file(_flip, _SMALL),
    _one_file(_flip),
    _one_file(_truncate),
    _one_file(_empty),
    _one_file(_delete),
    _one_file(_zero),
    _one_file(_append),
    _one_file(_directory_instead),
    _one_file(_broken_link),
    _one_file(_pipe_instead),
    _swapped_inside,
    _swapped_between,
    _of_another_run,
    _whole_of_another_run,
    _foreign_file,
    _foreign_weights,
    _foreign_directory,
    _link_to_the_same,
    _link_to_another,
    _renamed,
    _linked_checkpoint,
    _empty_checkpoint,
    _file_as_checkpoint,
    _other_manifest,
    _other_manifest,
    _unreadable,
    _everything,
    damage_best,
)


def _paths(place: Path) -> list[Path]:
    """The checkpoint directories, oldest first."""
    found = (path for path in place.iterdir() if _number(path.name) >= 0)
    return sorted(found, key=lambda path: _number(path.name))


def _names(checkpoint: Path) -> list[str]:
    return sorted(file.name for file in checkpoint.iterdir())


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


@contextmanager
def unreadable(file: Path, *, at_open: bool) -> Iterator[None]:
    """A disk that answers EIO when this file is opened, or when it is read."""
    # Reading the first page of one's own memory is an EIO that needs no broken disk.
    bad_sector = Path("/proc/self/mem")
    real_open, real_os_open = io.open, os.open

    def refuse(path: Any) -> Any:
        if not isinstance(path, str | os.PathLike) or Path(path) != file:
            return path
        if at_open or not bad_sector.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return bad_sector

    def open_stream(path: Any, *given: Any, **named: Any) -> Any:
        return real_open(refuse(path), *given, **named)

    def open_descriptor(path: Any, *given: Any, **named: Any) -> int:
        return real_os_open(refuse(path), *given, **named)

    with (
        patch.object(io, "open", open_stream),
        patch.object(builtins, "open", open_stream),
        patch.object(os, "open", open_descriptor),
    ):
        yield


# A case.


def run_case(number: int, scene: Scene, directory: Path) -> Case:
    """One damage, to a copy in a directory of its own."""
    shutil.copytree(scene.broken, directory)
    rng = chance_of("corruption", number)
    damage = DAMAGES[number % len(DAMAGES)](directory / "checkpoints", scene, rng)
    facts = {"detected": float(bool(damage.unusable))}
    with damage.meanwhile():
        found = _choice_faults(damage, directory, scene)
        if not found and (damage.resumed or number % RESUMED_EVERY == 0):
            found = _resume_faults(damage, directory, scene)
            facts["resumed"] = 1
    shutil.rmtree(directory)
    return Case(f"{number}: {damage.what[:300]}", not found, "; ".join(found), facts)


def _choice_faults(damage: Damage, directory: Path, scene: Scene) -> list[str]:
    """What is wrong with the checkpoint that would be resumed from, and with what is said of the
    others.
    """
    place = directory / "checkpoints"
    try:
        chosen, lines = newest_valid(place)
    except Exception as error:
        return [f"newest_valid raised {error!r}"[:200]]
    directories = [path.name for path in _paths(place) if path.is_dir()]
    usable = [name for name in directories if name not in damage.unusable]
    best = _newest(usable)
    allowed = {best, _newest([name for name in usable if name not in damage.suspect])}
    name = "" if chosen is None else chosen.path.name
    if name not in allowed:
        return [f"chose {name or 'none'} instead of {best or 'none'}"]
    found = []
    for bad, words in damage.unusable.items():
        if _number(bad) < _number(name):
            fault = checkpoints.verify_checkpoint(place / bad)
            found += [] if fault else [f"{bad}, which is older, is said to be valid"]
            continue
        line = next((line for line in lines if bad in line), "")
        if not line or (words and not any(word in line for word in words)):
            found.append(f"of {bad} is said {line!r}, without any of {words}")
    if chosen is not None and not damage.refusal:
        original = scene.broken / "checkpoints" / name
        found += [
            f"{name}/{file.name} is not what was saved"
            for file in original.iterdir()
            if (chosen.path / file.name).read_bytes() != file.read_bytes()
        ]
    return found


def _newest(names: list[str]) -> str:
    """Of directories only; the empty text for none."""
    return max(names, key=_number, default="")


def _number(name: str) -> int:
    digits = name.removeprefix("checkpoint-")
    return int(digits) if digits.isdigit() else -1


def _resume_faults(damage: Damage, directory: Path, scene: Scene) -> list[str]:
    """What is wrong with the run that goes on from the damaged directory.

    Where the best checkpoint is lost, another may be taken, or the run may refuse: but not without
    a word.
    """
    best_lost = _BEST in damage.unusable or not (directory / "checkpoints" / _BEST).is_dir()
    wanted = damage.refusal or (_BEST if best_lost else "")
    said: list[Event] = []
    try:
        ran = run_plan(plan_of(scene.models, directory), resume=True, on_event=said.append)
    except LlamafarmError as error:
        text = error.render()
        return [] if wanted and wanted in text else [f"refused: {text}"]
    except Exception as error:
        return [f"raised {error!r}"[:200]]
    if damage.refusal:
        return ["the run went on"]
    final = _model_hash(ran.directory.final_model)
    if final == scene.expected:
        return []
    if not best_lost or final not in scene.known:
        return ["the final model is not that of the uninterrupted run"]
    told = any(isinstance(e, BestLostEvent) for e in said)
    return [] if told else ["another step became the final model, and nothing is said of it"]


def corruption_cases(workdir: Path, form: Form) -> Iterator[Case]:
    """Every kind of damage in turn, each time somewhere else."""
    scene = prepare_scene(workdir)
    numbers = range(SHORT_CASES if form == "short" else LONG_CASES)
    yield from one_at_a_time(
        partial(run_case, number, scene, workdir / f"case-{number}") for number in numbers
    )


ROW = Row(
    key="corruption",
    fault="checkpoint files flipped, cut, emptied, swapped, replaced, added to or unreadable",
    passes_when="each is found and named, the newest intact checkpoint is used, or nothing is lost",
    cases=corruption_cases,
)
