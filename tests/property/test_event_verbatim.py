"""Whatever JSON an event carries, its text reaches the result unchanged."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vault_ml import json_text
from vault_ml.errors import MalformedEvent
from vault_ml.event import parse

# Number literals that do not survive `json.loads` and `json.dumps`.
NUMBERS = st.one_of(
    st.sampled_from(["1.10", "1e2", "1E+2", "-0", "-0.0", "1e400", "12345678901234567890", "0.1"]),
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)
BLANKS = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])


@st.composite
def strings(draw: st.DrawFn) -> str:
    """A JSON string as written: with and without needless escapes."""
    text = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
    return json.dumps(text, ensure_ascii=draw(st.booleans()))


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    parts = draw(st.lists(st.tuples(strings(), values, BLANKS, BLANKS), max_size=4))
    return "{" + ",".join(f"{b}{n}{a}:{b}{v}{a}" for n, v, b, a in parts) + "}"


@st.composite
def lists(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    blank = draw(BLANKS)
    return "[" + f",{blank}".join(draw(st.lists(values, max_size=4))) + "]"


VALUES: st.SearchStrategy[str] = st.recursive(
    st.one_of(NUMBERS, strings(), st.sampled_from(["true", "false", "null"])),
    lambda inner: st.one_of(objects(inner), lists(inner)),
    max_leaves=12,
)


def pairs(text: str) -> Any:
    """Everything JSON can say, numbers as written, equal names kept."""
    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=list)


@given(objects(VALUES))
def test_cutting_and_joining_loses_nothing(text: str) -> None:
    parts = json_text.members(text)
    assert pairs(json_text.join(parts)) == pairs(text)
    for part in parts:
        assert part.value_text in text
        assert part.name_text in text


@given(st.lists(st.tuples(strings(), VALUES), max_size=4))
def test_an_event_without_credentials_keeps_every_other_value_verbatim(
    extra: list[tuple[str, str]],
) -> None:
    extra = [(name, value) for name, value in extra if json.loads(name) not in RESERVED]
    unknown = "".join(f", {name}: {value}" for name, value in extra)
    body = f'{{"source": "s", "payload": {{"key": "k", "signedUrl": "u"}}{unknown}}}'
    clean = parse(body.encode()).without_credentials()
    assert json_text.members(clean)[2:] == json_text.members(body)[2:]
    assert pairs(clean)[1] == ("payload", [("key", "k")])


RESERVED = {"source", "payload", "data", "monitorStage", "storage", "signedUrl"}


@given(st.one_of(st.binary(max_size=200), VALUES.map(str.encode), st.text().map(
    lambda text: text.encode("utf-8", "surrogatepass"))))  # fmt: skip
def test_any_bytes_are_an_event_or_malformed(body: bytes) -> None:
    try:
        event = parse(body)
    except MalformedEvent as error:
        assert str(error)  # noqa: PT017  # both outcomes are fine, a third is not
    else:
        assert event.key


@given(st.text(alphabet='{}[]",:\\a1 ', max_size=60))
def test_depth_never_underestimates_valid_json(text: str) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        return
    assert json_text.depth(text) == nesting(value)


def nesting(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((nesting(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((nesting(item) for item in value), default=0)
    return 0
