from __future__ import annotations

import re
from itertools import pairwise

import pytest

from llamafarm.data.quality.personal import first_of_each_kind, hidden_parts
from llamafarm.data.quality.scripts import makeup
from llamafarm.data.rows import Conversation, Message, RowRef, ToolCall
from tests.data.quality.conversations import finding_of, qa, report_of

# Tokens are put together here, so that no scanner of repositories takes them for real ones.
TOKENS = [
    "sk-" + "proj-abcDEF123456ghiJKL7890mn",
    "sk-" + "ant-api03-abcdefghijklmnop0123456789",
    "sk" + "_live_4eC39HqLyjWDarjtT1zdp7dc",
    "hf" + "_aBcDeFgHiJkLmNoPqRsTuVwXyZ012345",
    "gh" + "p_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0iL3oR6",
    "github" + "_pat_11ABCDEFG0aBcDeFgHiJkL_mNoPqRsTuVwXyZ0123456789abcdefgh",
    "gl" + "pat-aB3dE6gH9jK2mN5pQ8sT",
    "AK" + "IAIOSFODNN7ABCDEFG",
    "xo" + "xb-123456789012-abcdefGHIJ",
    "AI" + "zaSyA1234567890abcdefghijklmnopqrstuv",
    "ey" + "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
]
PRIVATE_KEY = (
    "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEAx\nc2Vj\n-----END RSA PRIVATE KEY-----"
)


def found(text: str) -> list[tuple[str, str]]:
    spans = first_of_each_kind(text, makeup(text).digits)
    return [(span.kind, text[span.start : span.end]) for span in spans]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Write to john.doe@example.com.", "john.doe@example.com"),
        ("Kontakt: Maria.Keller+news@praxis-keller.de", "Maria.Keller+news@praxis-keller.de"),
        ("<a href='mailto:info@st-mary.org'>", "info@st-mary.org"),
        ("Écrivez à josé@correo.es, merci", "josé@correo.es"),
        ("联系方式：li.wei@mail.example.cn。", "li.wei@mail.example.cn"),
    ],
)
def test_e_mail_addresses_are_found(text: str, address: str) -> None:
    assert found(text) == [("email", address)]


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:user/repository.git",
        "the image icon@2x.png",
        "@app.route('/x')",
        "x = A@B.T + W@x.shape",
        "user@localhost",
        "follow @nobody. Or not.",
    ],
)
def test_repositories_images_and_matrices_are_no_e_mail_addresses(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "number",
    [
        "+49 30 901820",
        "+1 (415) 555-2671",
        "+14155552671",
        "+44 20 7946 0958",
        "+33 1 42 68 53 00",
        "+91-98765-43210",
        "+420 123 456 789",
        "(415) 555-2671",
        "415-555-2671",
        "415.555.2671",
        "1-800-273-8255",
        "020 7946 0958",
        "07911 123456",
        "01 42 68 53 00",
        "030/1234567",
        "(030) 1234567",
        "044 668 18 00",
        "03-1234-5678",
        "0412 345 678",
    ],
)
def test_phone_numbers_are_found_by_their_form(number: str) -> None:
    assert found(f"It is {number}.") == [("phone", number)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Tel.: 5551234567", "5551234567"),
        ("her phone number is 98765 43210", "98765 43210"),
        ("Телефон: 8 (495) 123-45-67", "8 (495) 123-45-67"),
        ("电话：13800138000", "13800138000"),
        ("Teléfono: 612 345 678", "612 345 678"),
        ("Rufnummer 1234567", "1234567"),
    ],
)
def test_phone_numbers_are_found_by_the_word_before_them(text: str, number: str) -> None:
    assert found(text) == [("phone", number)]


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4, then v10.15.7.21 and release 12.10.33.44",
        "Chrome/120.0.6099.109",
        "2024-03-17 10:45:30 and 17.03.2024, 03/17/2024 10:45",
        "2024-03-17T10:45:30+02:00",
        "01-02-2023 14:30",
        "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, 9780306406157, ISSN 0317-8471",
        "1234567890 and 20240317001 and 12345678901234567",
        "3.14159265358979 and +1.41421356237",
        "$1,234,567.89 for 1,000,000 people, 12.345.678,90",
        "a rise of +10 000 000 000",
        "CAS 7732-18-5, PMID: 12345678, rs123456789",
        "doi:10.1038/s41586-020-2649-2",
        "100 200 300 4000 and 010 020 030 040 and 0101 1010 0110",
        "2019 2020 2021 2022, from 1990-2020 to 2021-2022",
        "Order 555-12-3456 #123456789",
        "10-20 mg 3 times for 14 days, 500-1000 mg",
        "BP 120/80 130/85 140/90 140/95 150/100",
        "Boston, MA 02110-1301",
        "00:00:01,000 --> 00:00:04,000",
        "a phone released on 2023-01-01 10:00",
        "Tel Aviv 1909 1234",
        "<Buffer 66 00 68 00 71 00 77 01 02 03 04 05>, 01 02 03 04 05",
        "@@ -120,7 +1234567,8 @@",
        "3-4-5 6-7-8 9-10-11 12-13-14",
        "https://x.org/a/2024/03/17/1234567",
        "6.02214076e23 0x1F600 1e+10",
    ],
)
def test_other_numbers_are_no_phone_numbers(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "iban",
    [
        "DE89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819",
        "FR14 2004 1010 0505 0001 3M02 606",
        "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
        "NO9386011117947",
    ],
)
def test_bank_accounts_are_found(iban: str) -> None:
    assert ("iban", iban) in found(f"Please pay to {iban}, thank you")


@pytest.mark.parametrize(
    "text",
    [
        "DE89 3704 0044 0532 0130 01",
        "GB29NWBK6016133192681",
        "US12345678901234567890",
        "ZZ89 3704 0044 0532 0130 00",
        "DE89 3704 0044 0532 0130 00A",
    ],
)
def test_a_wrong_check_digit_length_or_country_is_no_bank_account(text: str) -> None:
    assert "iban" not in dict(found(text))


@pytest.mark.parametrize(
    "card",
    [
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "6011000990139424",
    ],
)
def test_payment_cards_are_found(card: str) -> None:
    assert found(f"Card: {card}.") == [("card", card)]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",
        "1234 5678 9012 3452",
        "411 1111 1111 11111",
        "0.4111111111111111",
        "4111111111111111111111",
    ],
)
def test_a_wrong_luhn_digit_or_an_unused_prefix_is_no_card(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "address",
    [
        "93.184.216.34",
        "185.60.216.35",
        "2606:2800:220:1:248:1893:25c8:1946",
        "2001:4860:4860::8888",
    ],
)
def test_public_ip_addresses_are_found(address: str) -> None:
    assert found(f"from {address} at night") == [("ip_address", address)]


@pytest.mark.parametrize(
    "text",
    [
        "192.168.100.110, 10.20.30.40, 127.0.0.1, 255.255.255.0, 203.0.113.77",
        "fe80::1ff:fe23:4567:890a and 2001:db8::8a2e:370:7334",
        "999.184.216.340",
        "1.2.3.4 and 8.8.8.8",
        "OID 1.3.101.110",
        "section 13.12.10.11",
        "12:30:45, 1:2:3:4:5:6:7:8, 00:1B:44:11:3A:B7, std::vector::iterator",
    ],
)
def test_private_addresses_versions_and_times_are_no_public_addresses(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize("token", TOKENS)
def test_keys_and_tokens_are_found(token: str) -> None:
    assert found(f"use {token} here") == [("secret", token)]


def test_a_private_key_is_found_with_its_body() -> None:
    assert found(f"id_rsa:\n{PRIVATE_KEY}\nEnd.") == [("private_key", PRIVATE_KEY)]


@pytest.mark.parametrize(
    "text",
    [
        "a risk-adjusted-return-on-capital-employed of 12 %",
        "sk-learn-like-package-names-without-meaning 2",
        "sk-" + "x" * 48 + " 1",
        "the task_hf_model_name2 and hf_hub 1",
        "sk-SK, AKIA 12",
    ],
)
def test_words_that_begin_like_tokens_are_none(text: str) -> None:
    assert found(text) == []


def test_passwords_in_urls_are_found_and_the_host_is_no_e_mail_address() -> None:
    text = "postgres://app:s3cr3t!@db.corp.io:5432/x"
    assert found(text) == [("url_password", "app:s3cr3t!")]
    assert found("https://user:password@host.org/ and https://u:${PASS}@host.org/") == []


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "a@", "a@a@a@", "@a.", "1-", "1-1-1-", "1 ", "1", "1.", ".1", "01 ", "(0", "+1 "),
        *("4111 ", "DE44 ", "DE441234 ", "A", "sk-", "hf_a ", "eyJaaaaaaaa.", "://a:", ":a", "::"),
        *("2001:db8:", "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1a ", "-----BEGIN PRIVATE KEY-----a"),
    ],
)
def test_a_megabyte_of_anything_is_searched_in_one_go(unit: str) -> None:
    """An expression that goes back over the text would take hours here."""
    text = unit * (1_000_000 // len(unit))
    kinds = {kind for kind, _ in found(text)}
    assert kinds <= ({"private_key"} if "PRIVATE" in unit else set())


def test_hidden_parts_do_not_overlap_and_hide_more_than_is_reported() -> None:
    text = f"john@example.com, {TOKENS[0]}, {'Zm9vYmFy' * 5}1, 415-555-2671"
    parts = hidden_parts(text)
    assert [shown for _, _, shown in parts] == ["j***@e***.com", "sk-***", "Zm9v***", "415***"]
    assert all(before[1] <= after[0] for before, after in pairwise(parts))


def test_a_row_counts_once_for_each_kind_wherever_it_stands() -> None:
    rows = [
        qa("I am ann@a-b.org or ann@c-d.org, +49 30 901820", "Fine.", 1),
        qa("Who?", "Ask bob@e-f.org.", 2),
        qa("Who?", "Nobody.", 3),
    ]
    report = report_of(rows)
    email, phone = finding_of(report, "email"), finding_of(report, "phone")
    assert email is not None and phone is not None
    assert (email.rows, phone.rows) == (2, 1)
    assert [str(example.source) for example in email.examples] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert email.text == "2 rows hold an e-mail address"
    assert phone.text == "1 row holds a phone number"
    assert "data_preprocessing.remove_patterns" in email.advice and email.level == "warning"


def test_what_the_advice_removes_is_found_no_more() -> None:
    texts = {
        "email": "ann@a-b.org",
        "phone": "+49 30 901820",
        "card": "4111 1111 1111 1111",
        "iban": "DE89 3704 0044 0532 0130 00",
        "ip_address": "93.184.216.34",
    }
    for kind, text in texts.items():
        row = qa("Which?", f"It is {text} now.")
        finding = finding_of(report_of([row]), kind)
        assert finding is not None
        pattern = re.search(r"remove_patterns: \['(.*)'\]$", finding.advice)
        assert pattern is not None
        assert found(re.sub(pattern[1], "", row.messages[1].content)) == []


def test_nothing_is_searched_for_when_it_is_not_wanted_and_the_report_says_so() -> None:
    report = report_of([qa("Who?", "Ask bob@e-f.org about the rest of it.")], pii=False)
    assert finding_of(report, "email") is None
    assert "personal data was not searched for" in report.notes


def test_arguments_of_tool_calls_are_searched_too() -> None:
    call = ToolCall("send", {"to": "ann@a-b.org"})
    messages = (Message("user", "Send it."), Message("assistant", "", tool_calls=(call,)))
    report = report_of([Conversation(RowRef("r", 1), messages)])
    assert finding_of(report, "email") is not None
    assert finding_of(report, "empty_turn") is None
