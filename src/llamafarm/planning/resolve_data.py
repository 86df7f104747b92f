"""Which data a strategy means, and how they become tokens: all that reading them needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamafarm.data.collections import Collection, expand
from llamafarm.data.request import (
    DataLocation,
    DataRequest,
    HubDataset,
    Mixture,
    TrainLocation,
    WeightedFile,
)
from llamafarm.decision import Decision
from llamafarm.errors import DataError, Problem, StrategyError, count_of
from llamafarm.planning import tables
from llamafarm.planning.explain import (
    asked,
    is_written,
    notice,
    problem,
    settled,
    shown,
    warning,
    whereabouts,
)
from llamafarm.planning.llamafactory import learns_from_pairs
from llamafarm.planning.locations import (
    find_data_file,
    missing_file,
    search_directories,
    shown_path,
)
from llamafarm.planning.templates import choose_template
from llamafarm.strategy.model import DataFormat, Strategy
from llamafarm.strategy.shares import (
    AUTO,
    STANDARD_SHARE,
    VERY_SMALL_DATASET,
    VERY_SMALL_SHARE,
)

_TRAIN = ("dataset.train_file", "dataset.path", "dataset.mix", "dataset.dataset_name")
_EVAL_FILE, _EVAL_SPLIT = "dataset.eval_file", "dataset.eval_split"
_EVAL_ROWS, _STABLE = "dataset.eval_rows", "dataset.stable_split"
_BUNDLED = "bundled demo data"


@dataclass(slots=True)
class _Findings:
    """What one call of resolve_data has found so far."""

    decisions: list[Decision] = field(default_factory=list)
    strategy_problems: list[Problem] = field(default_factory=list)
    data_problems: list[Problem] = field(default_factory=list)

    def raise_problems(self, strategy: Strategy) -> None:
        """Raise all problems as one error."""
        problems = (*self.strategy_problems, *self.data_problems)
        if problems:
            kind = StrategyError if self.strategy_problems else DataError
            count = count_of(len(problems), "problem")
            raise kind(f"the data of {strategy.id} have {count}", problems)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where files are looked for."""

    strategy: Strategy
    working_directory: Path
    bundled_data: Path | None

    def find(self, path: str, found: _Findings) -> Path | None:
        """The file named at a dotted path of the strategy, with its decision; or a problem."""
        name = str(_value(self.strategy, path))
        directories = search_directories(self.strategy, path, self.working_directory)
        file = self.look(name, path)
        if file is None:
            found.data_problems.append(missing_file(self.strategy, path, name, directories))
            return None
        note = "" if find_data_file(name, directories, None, collections=True) else _BUNDLED
        shown_name = shown_path(file, self.working_directory)
        found.decisions.append(asked(self.strategy, path, shown_name, note))
        return file

    def look(self, name: str, path: str) -> Path | None:
        """A file or a directory of this name, where the key at `path` means it to be."""
        directories = search_directories(self.strategy, path, self.working_directory)
        return find_data_file(name, directories, self.bundled_data, collections=True)

    def collection(self, path: str, found: _Findings) -> tuple[Path | None, Collection | None]:
        """The file named at a dotted path, or what a directory or an index of datasets holds;
        `index.json#name` chooses one of its datasets.
        """
        text = str(_value(self.strategy, path))
        name, mark, entry = text.rpartition("#")
        if not mark or self.look(text, path) is not None:
            name, entry = text, ""
        file = self.look(name, path) if entry else self.find(path, found)
        if file is None:
            if entry:
                self.find(path, found)
            return None, None
        if entry:
            shown_name = f"{shown_path(file, self.working_directory)}#{entry}"
            found.decisions.append(asked(self.strategy, path, shown_name))
        try:
            return file, expand(file, name=entry or None)
        except DataError as error:
            found.data_problems += error.problems or (
                problem(self.strategy, path, error.summary, error.hint),
            )
            return None, None


def resolve_data(
    strategy: Strategy,
    *,
    model_context: int,
    tokenizer_template: str | None,
    working_directory: Path,
    bundled_data: Path | None,
    skip_bad_rows: bool,
    tokenizer_adds_bos: bool = False,
) -> tuple[DataRequest, tuple[Decision, ...]]:
    """What to read and how to make tokens of it, with the decisions.

    model_context: tokens; tokenizer_template: the model's own chat template, if it has one;
    tokenizer_adds_bos: whether its tokenizer begins plain text with a start token.
    Raises DataError or StrategyError with every problem at once.
    """
    found = _Findings()
    places = _Places(strategy, working_directory, bundled_data)
    training = _train(places, found)
    train, collection = training.location, training.collection
    wanted = strategy.training_args.eval_strategy != "no"
    evaluation = _eval(places, training, wanted, found)
    fraction, automatic = _eval_share(strategy, training, evaluation, wanted, found)
    test = _test(places, collection, found)
    template = _template(strategy, tokenizer_template, tokenizer_adds_bos, found)
    max_length = _max_length(strategy, model_context, found)
    _hub_settings(strategy, train, found)
    found.decisions += _other_decisions(strategy)
    found.raise_problems(strategy)
    if train is None:
        raise AssertionError("a missing training set is a problem that was raised")
    dataset, preprocessing = strategy.dataset, strategy.data_preprocessing
    rows = _row_shape(strategy, collection, found)
    request = DataRequest(
        train_location=train,
        eval_location=evaluation,
        test_location=test,
        eval_wanted=wanted,
        eval_fraction=fraction,
        chat_template=template,
        max_length=max_length,
        seed=strategy.training_args.seed,
        data_format=rows.data_format,
        columns=rows.columns,
        roles=rows.roles,
        mask_history=rows.mask_history,
        eval_auto=automatic,
        eval_rows=dataset.eval_rows,
        stable_split=dataset.stable_split,
        system_prompt=strategy.prompt_template.system,
        max_samples=dataset.max_samples,
        shuffle=dataset.shuffle,
        skip_bad_rows=skip_bad_rows,
        remove_duplicates=preprocessing.remove_duplicates,
        filter_empty=preprocessing.filter_empty,
        remove_patterns=preprocessing.remove_patterns,
        max_input_length=preprocessing.max_input_length,
        max_output_length=preprocessing.max_output_length,
        group_by=dataset.group_by,
        stratify_by=dataset.stratify_by,
        num_workers=dataset.preprocessing_num_workers,
        answers="paired" if learns_from_pairs(strategy) else "chosen",
    )
    return request, tuple(found.decisions)


def _value(strategy: Strategy, path: str) -> object:
    section, leaf = path.split(".")
    return getattr(getattr(strategy, section), leaf)


@dataclass(frozen=True, slots=True)
class _Training:
    """What is trained on. key: of the strategy, that says so; collection: what its directory or
    index of datasets says besides.
    """

    key: str
    location: TrainLocation | None
    collection: Collection | None = None


def _train(places: _Places, found: _Findings) -> _Training:
    """Files, or a dataset of the Hub, in the order of _TRAIN."""
    strategy = places.strategy
    given = [path for path in _TRAIN if _value(strategy, path)]
    if not given:
        found.data_problems.append(
            Problem(
                "nothing says what to train on",
                path="dataset",
                hint="give --dataset FILE, or write `dataset.path` or `dataset.train_file`",
            )
        )
        return _Training("", None)
    key, *others = given
    for other in others:
        text = f"{whereabouts(strategy, other)} is not used: {whereabouts(strategy, key)} is"
        found.decisions.append(warning(other, _value(strategy, other), text))
    if key == "dataset.mix":
        return _Training(key, _mixture(places, found))
    if key != "dataset.dataset_name":
        file, collection = places.collection(key, found)
        if collection is not None:
            return _Training(key, _collected(collection), collection)
        return _Training(key, file)
    dataset = strategy.dataset
    found.decisions.append(asked(strategy, key, f"{dataset.dataset_name} ({dataset.train_split})"))
    hub = HubDataset(str(dataset.dataset_name), dataset.dataset_config_name, dataset.train_split)
    return _Training(key, hub)


def _collected(collection: Collection) -> TrainLocation:
    if len(collection.train) == 1:
        return collection.train[0]
    return Mixture(tuple(WeightedFile(path) for path in collection.train))


def _mixture(places: _Places, found: _Findings) -> Mixture | None:
    """The files of `dataset.mix`; every one that is missing is a problem."""
    strategy, path = places.strategy, "dataset.mix"
    files = []
    for name, weight in strategy.dataset.mix.items():
        file = places.look(name, path)
        if file is None:
            directories = search_directories(strategy, path, places.working_directory)
            found.data_problems.append(missing_file(strategy, path, name, directories))
        else:
            files.append(WeightedFile(file, weight))
    listed = ", ".join(f"{name} x {weight:g}" for name, weight in strategy.dataset.mix.items())
    found.decisions.append(asked(strategy, path, listed))
    return Mixture(tuple(files)) if files else None


@dataclass(frozen=True, slots=True)
class _RowShape:
    """How rows are read."""

    data_format: DataFormat
    columns: Mapping[str, str]
    roles: Mapping[str, str]
    mask_history: bool


def _row_shape(strategy: Strategy, collection: Collection | None, found: _Findings) -> _RowShape:
    """What the strategy says of the rows; where it is silent, what their collection says."""
    dataset = strategy.dataset
    if collection is None:
        return _RowShape(
            dataset.format, dict(dataset.columns), dict(dataset.roles), dataset.mask_history
        )
    found.decisions += [notice("dataset", "", text) for text in collection.notices]
    written = is_written(strategy, "dataset.format")
    return _RowShape(
        dataset.format if written else collection.data_format,
        {**collection.columns, **dataset.columns},
        {**collection.roles, **dataset.roles},
        dataset.mask_history,
    )


def _test(places: _Places, collection: Collection | None, found: _Findings) -> DataLocation | None:
    if places.strategy.dataset.test_file:
        return places.find("dataset.test_file", found)
    return collection.test if collection is not None else None


def _eval(
    places: _Places, training: _Training, wanted: bool, found: _Findings
) -> DataLocation | None:
    """A file, or a named split of the Hub; None: split off the training rows, or not wanted."""
    strategy, dataset = places.strategy, places.strategy.dataset
    if not wanted:
        found.decisions.append(_no_evaluation(strategy))
        if dataset.eval_file is not None:
            text = f'{whereabouts(strategy, _EVAL_FILE)} is not read: eval_strategy is "no"'
            found.decisions.append(warning(_EVAL_FILE, dataset.eval_file, text))
        return None
    if dataset.eval_file is not None:
        return places.find(_EVAL_FILE, found)
    if training.collection is not None and training.collection.eval is not None:
        name = shown_path(training.collection.eval, places.working_directory)
        found.decisions.append(Decision(_EVAL_FILE, name, "detected", "beside the training rows"))
        return training.collection.eval
    split = dataset.eval_split
    if training.key == "dataset.dataset_name" and _names_a_split(split):
        found.decisions.append(asked(strategy, _EVAL_SPLIT, split, "a split of the Hub dataset"))
        return HubDataset(str(dataset.dataset_name), dataset.dataset_config_name, str(split))
    return None


def _names_a_split(split: str | float | None) -> bool:
    return isinstance(split, str) and split != AUTO and _number(split) is None


def _no_evaluation(strategy: Strategy) -> Decision:
    path = "training_args.eval_strategy"
    text = (
        f'{whereabouts(strategy, path)} is "no": every row is trained on, and no number tells '
        "learning from memorising"
    )
    return warning(path, "no", text)


def _eval_share(
    strategy: Strategy,
    training: _Training,
    evaluation: DataLocation | None,
    wanted: bool,
    found: _Findings,
) -> tuple[float, bool]:
    """The share of the training rows that is kept for evaluation, 0 where none is split off; and
    whether it follows from their number.
    """
    written = strategy.dataset.eval_split
    by_table = written == AUTO and _is_left_to_the_table(strategy)
    if not wanted or evaluation is not None:
        why = "evaluation is off" if not wanted else "the evaluation rows have their own file"
        unused = [_EVAL_ROWS] if strategy.dataset.eval_rows is not None else []
        unused += [_STABLE] if strategy.dataset.stable_split else []
        if written is not None and not by_table and not isinstance(evaluation, HubDataset):
            unused.append(_EVAL_SPLIT)
        for path in unused:
            text = f"{whereabouts(strategy, path)} has no effect: {why}"
            found.decisions.append(warning(path, _value(strategy, path), text))
        return 0.0, False
    if strategy.dataset.eval_rows is not None and strategy.dataset.stable_split:
        message = "a stable split cannot hold an exact number of rows"
        hint = "write a fraction, e.g. `eval_split: 0.1`"
        found.strategy_problems.append(problem(strategy, _EVAL_ROWS, message, hint))
    if strategy.dataset.eval_rows is not None:
        found.decisions.append(asked(strategy, _EVAL_ROWS, strategy.dataset.eval_rows))
        if written is not None:
            text = (
                f"{whereabouts(strategy, _EVAL_SPLIT)} is not used: "
                f"{whereabouts(strategy, _EVAL_ROWS)} is"
            )
            found.decisions.append(warning(_EVAL_SPLIT, written, text))
        return STANDARD_SHARE, False
    if written == AUTO and strategy.dataset.stable_split:
        message = "auto follows from the number of rows: old rows would move as rows are added"
        hint = "write a fraction, e.g. `eval_split: 0.1`"
        found.strategy_problems.append(problem(strategy, _EVAL_SPLIT, message, hint))
    of_collection = training.collection.eval_fraction if training.collection else None
    if written == AUTO and not (by_table and of_collection is not None):
        note = (
            f"{VERY_SMALL_SHARE:.0%} of fewer than {VERY_SMALL_DATASET} rows, "
            f"else {STANDARD_SHARE:.0%}"
        )
        found.decisions.append(
            Decision(_EVAL_SPLIT, AUTO, "table", note)
            if by_table
            else asked(strategy, _EVAL_SPLIT, AUTO, note)
        )
        return STANDARD_SHARE, True
    if of_collection is not None and (written is None or by_table):
        reason = "as the collection of the rows says"
        found.decisions.append(Decision(_EVAL_SPLIT, shown(of_collection), "detected", reason))
        return of_collection, False
    if written is None:
        reason = f"{STANDARD_SHARE:.0%} of the rows are kept for evaluation{_split_row()}"
        value = shown(STANDARD_SHARE)
        found.decisions.append(Decision(_EVAL_SPLIT, value, "table", reason))
        return STANDARD_SHARE, False
    number = _number(written)
    if number is None:
        message = f"{written} names a split of the Hub, and the data are a local file"
        fault = problem(strategy, _EVAL_SPLIT, message, "write a fraction, e.g. `eval_split: 0.1`")
        found.strategy_problems.append(fault)
        return 0.0, False
    if not 0 < number < 1:
        hint = 'for no evaluation at all write `eval_strategy: "no"`'
        if 1 <= number < 100:
            hint = f"for {number:g} percent write `eval_split: {number / 100:g}`"
        message = f"expected a fraction between 0 and 1 (got {number:g})"
        found.strategy_problems.append(problem(strategy, _EVAL_SPLIT, message, hint))
    note = f"{number:.3g} of the rows are kept for evaluation{_split_row(number)}"
    found.decisions.append(asked(strategy, _EVAL_SPLIT, number, note))
    return number, False


def _is_left_to_the_table(strategy: Strategy) -> bool:
    """`recommend` sets `auto` where nobody says anything: no file, no flag."""
    return strategy.file is None and strategy.origin(_EVAL_SPLIT) is None


def _split_row(share: float = STANDARD_SHARE) -> str:
    row = tables.split_row(share)
    return "" if row is None else f": row {row.use_case}"


def _number(value: str | float) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _template(strategy: Strategy, own: str | None, adds_bos: bool, found: _Findings) -> str:
    """The chat template; a problem instead of an exception, so that it stands beside the others."""
    try:
        template, decisions = choose_template(strategy, own, tokenizer_adds_bos=adds_bos)
    except StrategyError as error:
        found.strategy_problems += error.problems
        return ""
    found.decisions += decisions
    return template


def _max_length(strategy: Strategy, model_context: int, found: _Findings) -> int:
    """Tokens of the longest conversation that is trained on whole."""
    path, other = "training_args.max_seq_length", "data_preprocessing.max_length"
    own, preprocessing = (
        strategy.training_args.max_seq_length,
        strategy.data_preprocessing.max_length,
    )
    if own is not None and preprocessing is not None and own != preprocessing:
        text = (
            f"{whereabouts(strategy, path)} is {own} and wins over "
            f"{whereabouts(strategy, other)}, which is {preprocessing}"
        )
        found.decisions.append(warning(path, own, text))
    if own is None and preprocessing is not None:
        own, path = preprocessing, other
    if own is None:
        length = min(model_context, tables.MAX_LENGTH)
        reason = f"the model's context is {model_context:,}"
        if length < model_context:
            reason += f"; more than {tables.MAX_LENGTH:,} only when it is written"
        found.decisions.append(Decision(path, str(length), "default", reason))
        return length
    if own > model_context:
        message = f"expected at most {model_context}, the model's context (got {own})"
        hint = f"write `{path.rpartition('.')[2]}: {model_context}` or less"
        found.strategy_problems.append(problem(strategy, path, message, hint))
    found.decisions.append(asked(strategy, path, own))
    return own


def _hub_settings(strategy: Strategy, train: TrainLocation | None, found: _Findings) -> None:
    """Settings of a Hub dataset beside a local file."""
    if train is None or isinstance(train, HubDataset):
        return
    for path in ("dataset.train_split", "dataset.dataset_config_name"):
        if is_written(strategy, path):
            text = f"{whereabouts(strategy, path)} has no effect: the data are a local file"
            found.decisions.append(warning(path, _value(strategy, path), text))


def _other_decisions(strategy: Strategy) -> list[Decision]:
    """What decides the tokens besides: listed where somebody wrote it."""
    optional = (
        "dataset.format",
        "dataset.columns",
        "dataset.roles",
        "dataset.mask_history",
        "dataset.stable_split",
        "dataset.allow_leakage",
        "dataset.max_samples",
        "dataset.group_by",
        "dataset.stratify_by",
        "dataset.shuffle",
        "dataset.preprocessing_num_workers",
        "data_preprocessing.remove_duplicates",
        "data_preprocessing.filter_empty",
        "data_preprocessing.remove_patterns",
        "data_preprocessing.max_input_length",
        "data_preprocessing.max_output_length",
        "prompt_template.system",
    )
    lines = [
        asked(strategy, path, _value(strategy, path))
        for path in optional
        if is_written(strategy, path)
    ]
    seed = settled(strategy, "training_args.seed", strategy.training_args.seed)
    return [*lines, seed]
