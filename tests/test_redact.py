from __future__ import annotations

import html
import json
import shlex
from pathlib import Path
from urllib.parse import quote

import pytest

from llamafarm.redact import redact, redact_command, redact_values

NONE: dict[str, str] = {}
SECRETS = {
    "hugging_face": "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
    "openai": "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789",
    "github": "ghp_" + "a1B2" * 9,
    "github_fine": "github_pat_" + "A1b2_" * 12,
    "aws": "AKIA" + "ABCDEFGH01234567",
    "google": "AIza" + "Sy-abcdefghijklmnopqrstuvwxyz012345"[:35],
    "slack": "xoxb-1234567890-abcdefghij",
    "gitlab": "glpat-abcdefghij0123456789",
    "web_token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghijklmnop",
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_token_is_hidden_wherever_it_stands(name: str) -> None:
    secret = SECRETS[name]
    for text in (secret, f"the token {secret} was refused", f"/cache/{secret}/x", f'"{secret}",'):
        assert secret not in redact(text, NONE)
        assert "***" in redact(text, NONE)


def test_what_kind_of_token_it_was_is_still_said() -> None:
    assert redact(f"got {SECRETS['hugging_face']}.", NONE) == "got hf_***."


def test_values_of_secret_variables_are_hidden() -> None:
    environ = {
        "WANDB_API_KEY": "0123456789abcdef",
        "MY_PASSWORD": "correct horse",
        "PWD": "/srv/my-data",
    }
    text = "0123456789abcdef, correct horse, /srv/my-data"
    assert redact(text, environ) == "***, ***, /srv/my-data"


def test_a_variable_with_a_word_or_the_path_of_a_file_hides_nothing(tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    key.touch()
    environ = {"SORT_KEY": "1", "GROUP_KEY": "training", "SSH_KEY": str(key)}
    text = f"1 training with {key}"
    assert redact(text, environ) == text


def test_a_value_is_hidden_though_it_looks_like_a_path_or_a_word() -> None:
    slash = "/wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLE12"
    letters = "abcdefghijklmnopqrstuvwxyzabcdefghijklmn"
    environ = {"AWS_SECRET_ACCESS_KEY": slash, "WANDB_API_KEY": letters}
    assert redact(f"{slash} {letters}", environ) == "*** ***"


@pytest.mark.parametrize("name", ["PGPASSWORD", "OPENAI_APIKEY", "MYSQL_PWD", "GITHUBTOKEN"])
def test_variables_are_known_by_the_end_of_their_name(name: str) -> None:
    assert redact("it is hunter2hunter2", {name: "hunter2hunter2"}) == "it is ***"


@pytest.mark.parametrize(
    "value", ["it's-secret-99x", 'pa"ss\\word-77', "p\u00e4ss & wort-5", "a'b\"c-12345"]
)
def test_a_value_is_hidden_as_python_json_a_shell_and_html_spell_it(value: str) -> None:
    environ = {"DB_PASSWORD": value}
    spelt = [value, repr(value), json.dumps(value), shlex.quote(value), quote(value, safe="")]
    for text in (*spelt, html.escape(value), repr(["x'", value])):
        hidden = redact(f"seen: {text}", environ)
        assert "***" in hidden
        assert not any(part in hidden for part in ("99x", "word-77", "wort-5", "12345"))


@pytest.mark.parametrize(
    "text",
    [
        "llamafarm train --set hub.token=abcd1234",
        "API_KEY=abcd1234 llamafarm train",
        "password: abcd1234",
        '{"client_secret": "abcd1234"}',
        "https://user:abcd1234@example.org/x",
        "aws_secret_access_key = abcd1234",
        '{"api_key":"abcd1234"}',
        '{\\"api_key\\":\\"abcd1234\\"}',
        "password:abcd1234",
        "PGPASSWORD=abcd1234",
        "password='two words abcd1234'",
        "Authorization: Bearer abcd1234efgh",
        "authorization: Basic abcd1234efgh",
        "llamafarm x --api-key abcd1234",
        "https://u:p@abcd1234@example.org/x",
        "https://u:p/abcd1234@example.org/x",
        "https://abcd1234abcd1234abcd1234@example.org/x",
        "https://example.org/x?X-Amz-Signature=abcd1234",
    ],
)
def test_what_is_assigned_to_a_secret_name_is_hidden(text: str) -> None:
    assert "abcd1234" not in redact(text, NONE)


@pytest.mark.parametrize(
    "text",
    [
        "error: data.jsonl:3: expected a text (got 5)",
        "eos_token: <|im_end|>, pad_token=<|endoftext|>",
        "tokens_per_second=1234.5, max_new_tokens: 2560, train_tokens: 12345",
        "the key learning_rate: 0.0002",
        "loss per token: 2.3456, secret: none",
        "the bearer of this, the end-token ids of data.jsonl:31",
        "http://localhost:8080/models/a@main and ssh://git@example.org/x",
        "add --overwrite to start again, or --token",
        "HuggingFaceTB/SmolLM2-135M-Instruct, sha256 5af571cbf074e6d21a03528d2330792e",
        "sk-learn and hf_hub are libraries; token: ${HF_TOKEN}",
        "https://huggingface.co/models",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text, NONE) == text


def test_a_command_line_hides_what_follows_the_name_of_a_secret() -> None:
    environ = {"HF_TOKEN": "it's-secret-99x"}
    typed = ["llamafarm", "--api-key", "abcd1234", "--set=a=it's-secret-99x", "--eos-token", "</s>"]
    assert redact_command(typed, environ) == (
        "llamafarm --api-key '***' '--set=a=***' --eos-token '</s>'"
    )


def test_values_of_json_are_hidden_by_their_text_and_by_their_name() -> None:
    secret = SECRETS["github"]
    value = {"a": [secret, 1, None], "hub_token": "short", "eos_token": "</s>", "tokens": 5}
    hidden = {"a": ["ghp_***", 1, None], "hub_token": "***", "eos_token": "</s>", "tokens": 5}
    assert redact_values(value, NONE) == hidden


def test_a_private_key_is_hidden_whole() -> None:
    text = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
    assert "MIIE" not in redact(f"read: {text}", NONE)
