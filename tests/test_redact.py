from __future__ import annotations

import pytest

from llamafarm.redact import redact, redact_values

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
        "PWD": "/work/dir",
    }
    text = "0123456789abcdef, correct horse, /work/dir"
    assert redact(text, environ) == "***, ***, /work/dir"


def test_a_variable_with_a_value_of_a_few_letters_hides_nothing() -> None:
    environ = {"SORT_KEY": "1", "GROUP_KEY": "training", "SSH_KEY": "/home/me/.ssh/key"}
    text = "1 training with /home/me/.ssh/key"
    assert redact(text, environ) == text


@pytest.mark.parametrize(
    "text",
    [
        "llamafarm train --set hub.token=abcd1234",
        "API_KEY=abcd1234 llamafarm train",
        "password: abcd1234",
        '{"client_secret": "abcd1234"}',
        "https://user:abcd1234@example.org/x",
        "aws_secret_access_key = abcd1234",
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
        "HuggingFaceTB/SmolLM2-135M-Instruct, sha256 5af571cbf074e6d21a03528d2330792e",
        "sk-learn and hf_hub are libraries; token: ${HF_TOKEN}",
        "https://huggingface.co/models",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text, NONE) == text


def test_values_of_json_are_hidden_by_their_text_and_by_their_name() -> None:
    secret = SECRETS["github"]
    value = {"a": [secret, 1, None], "hub_token": "short", "eos_token": "</s>", "tokens": 5}
    hidden = {"a": ["ghp_***", 1, None], "hub_token": "***", "eos_token": "</s>", "tokens": 5}
    assert redact_values(value, NONE) == hidden


def test_a_private_key_is_hidden_whole() -> None:
    text = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
    assert "MIIE" not in redact(f"read: {text}", NONE)
