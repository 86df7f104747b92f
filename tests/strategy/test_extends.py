from __future__ import annotations

from pathlib import Path

from .support import load, messages, refuse

FAMILY = """
base:
  name: The base
  description: Not to be inherited
  components:
    fine_tuner:
      type: llamafactory
      config:
        base_model: {huggingface_id: org/model, revision: v1}
        method: {type: dora, r: 8, dropout: 0.1}
        training_args: {max_steps: 20, learning_rate: 1e-4, run_name: base}
  dataset: {path: data.jsonl, columns: {question: q, answer: a}}
child:
  extends: base
  components:
    fine_tuner:
      config:
        method: {lora_r: 16}
        training_args: {run_name: null}
  dataset: {columns: {answer: reply}}
grandchild:
  extends: child
  name: The last
  components:
    fine_tuner:
      type: pytorch
      config:
        base_model: {huggingface_id: org/other}
        method: lora
        training: {num_epochs: 2}
  dataset: {train_file: train.jsonl}
"""


def test_mappings_are_merged_key_by_key(tmp_path: Path) -> None:
    child = load(tmp_path, FAMILY, name="child")
    assert child.backend == "llamafactory"
    assert child.method.r == 16
    assert child.method.dropout == 0.1
    assert child.method.use_dora
    assert child.dataset.columns == {"question": "q", "answer": "reply"}


def test_an_alias_in_the_child_wins_over_the_real_name_in_the_base(tmp_path: Path) -> None:
    assert load(tmp_path, FAMILY, name="child").method.r == 16
    assert load(tmp_path, FAMILY, name="base").method.r == 8


def test_null_leaves_out_what_was_inherited(tmp_path: Path) -> None:
    assert load(tmp_path, FAMILY, name="base").training_args.run_name == "base"
    child = load(tmp_path, FAMILY, name="child")
    assert child.training_args.run_name is None
    assert child.origin("training_args.run_name") is None


def test_origins_are_the_lines_where_the_values_stand(tmp_path: Path) -> None:
    child = load(tmp_path, FAMILY, name="child")
    own, inherited = child.origin("method.r"), child.origin("method.dropout")
    assert own is not None and (own.strategy_id, own.line) == ("child", 18)
    assert inherited is not None and (inherited.strategy_id, inherited.line) == ("base", 10)


def test_what_a_strategy_is_called_is_not_inherited(tmp_path: Path) -> None:
    child = load(tmp_path, FAMILY, name="child")
    assert (child.title, child.description) == ("", "")
    assert load(tmp_path, FAMILY, name="grandchild").title == "The last"


def test_a_nearer_value_displaces_what_would_contradict_it(tmp_path: Path) -> None:
    last = load(tmp_path, FAMILY, name="grandchild")
    assert last.base_model.revision is None
    assert last.training_args.max_steps is None
    assert last.training_args.num_train_epochs == 2
    assert last.dataset.path is None
    assert not last.method.use_dora
    displaced = [m for m in messages(last.notices) if "takes the place of" in m]
    assert len(displaced) == 4
    assert (
        "training.num_epochs: 2 (line 30) takes the place of training_args.max_steps: 20 (line 11)"
    ) in displaced


def test_faults_of_the_base_are_shown_at_their_place(tmp_path: Path) -> None:
    text = """
    base: {components: {fine_tuner: {config: {method: {r: x}}}}}
    child: {extends: base, components: {fine_tuner: {config: {method: {r: 8}}}}}
    """
    problem = refuse(tmp_path, text, name="child").problems[0]
    assert problem.path == "base.components.fine_tuner.config.method.r"
    assert problem.where.endswith(":2")


def test_a_circle_is_shown(tmp_path: Path) -> None:
    text = """
    a: {extends: b, components: {fine_tuner: {}}}
    b: {extends: c}
    c: {extends: a}
    """
    problem = refuse(tmp_path, text, name="b").problems[0]
    assert problem.message == "a circle: b -> c -> a -> b"
    assert problem.where.endswith(":2")


def test_an_unknown_base_is_answered_by_the_nearest(tmp_path: Path) -> None:
    text = "base: {}\nchild: {extends: bsae, components: {fine_tuner: {}}}\n"
    assert refuse(tmp_path, text).problems[0].hint == "did you mean `base`?"
    alone = "child: {extends: bsae, components: {fine_tuner: {}}}\n"
    assert "bsae" in refuse(tmp_path, alone).problems[0].message


def test_extends_takes_one_id(tmp_path: Path) -> None:
    text = "child: {extends: [a, b], components: {fine_tuner: {}}}\n"
    assert 'expected the id of a strategy (got ["a", "b"])' in refuse(tmp_path, text).render()


def test_the_fine_tuner_may_be_inherited(tmp_path: Path) -> None:
    text = "base: {components: {fine_tuner: {}}}\nchild: {extends: base, metrics: accuracy}\n"
    assert load(tmp_path, text, name="child").metrics == ("accuracy",)


def test_a_type_that_is_null_is_the_default_also_where_another_is_inherited(tmp_path: Path) -> None:
    base = (
        "base: {components: {fine_tuner: {type: llamafactory, config: {native: {stage: sft}}}}}\n"
    )
    child = "child: {extends: base, components: {fine_tuner: {type: null}}}\n"
    problem = refuse(tmp_path, base + child, name="child").problems[0]
    assert problem.hint == "`native` is a key of `type: llamafactory`"


def test_a_chain_without_end_is_refused(tmp_path: Path) -> None:
    links = [f"s{n}: {{extends: s{n + 1}, components: {{fine_tuner: {{}}}}}}\n" for n in range(20)]
    text = "".join(links) + "s20: {components: {fine_tuner: {}}}\n"
    assert "extends more than 15 others" in refuse(tmp_path, text, name="s0").render()
    assert load(tmp_path, text, name="s10").id == "s10"
