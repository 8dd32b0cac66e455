from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import pytest

from vault_ml import json_text


def test_an_empty_object_has_no_members() -> None:
    assert json_text.members("{}") == []
    assert json_text.members(" {\n} ") == []
    assert json_text.join([]) == "{}"


def test_members_keep_their_text() -> None:
    parts = json_text.members(' { "a" : 1.10 ,"\\u0061":[ 1,  2 ] , "b\\"":{"x" : null}}')
    assert [part.name for part in parts] == ["a", "a", 'b"']
    assert [part.value_text for part in parts] == ["1.10", "[ 1,  2 ]", '{"x" : null}']
    assert json_text.join(parts) == '{"a": 1.10, "\\u0061": [ 1,  2 ], "b\\"": {"x" : null}}'


@pytest.mark.parametrize("text", ["", " ", "{", "{} x", "NaN", "[Infinity]", "{'a': 1}", "01"])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        json_text.decode(text)


@pytest.mark.parametrize(
    ("text", "depth"),
    [("", 0), ("5", 0), ("{}", 1), ('{"a": [[]]}', 3), ('"[[["', 0), ('["\\"[", [1], [2]]', 2)],
)
def test_depth_counts_what_is_open_at_once(text: str, depth: int) -> None:
    assert json_text.depth(text) == depth


@pytest.mark.parametrize("text", ['"' + '\\"' * 500_000, '"' * 1_000_001, '{"' + "a" * 1_000_000])
def test_depth_is_linear_for_texts_that_never_end(text: str) -> None:
    started = time.perf_counter()
    json_text.depth(text)
    assert time.perf_counter() - started < 5  # quadratic would be hours


def test_a_member_of_our_own_is_valid_json() -> None:
    part = json_text.member('a"', {"é": [1.5, None]})
    assert json_text.join([part]) == '{"a\\"": {"é": [1.5, null]}}'
    with pytest.raises(ValueError):
        json_text.member("a", float("nan"))


@dataclass(frozen=True, slots=True)
class _Inner:
    number: int


@dataclass(frozen=True, slots=True)
class _Outer(_Inner):
    parts: list[_Inner]


def test_a_dataclass_becomes_an_object_as_asdict_makes_it() -> None:
    value = _Outer(1, [_Inner(2), _Inner(3)])
    assert json_text.member("a", [value]).value_text == json.dumps([asdict(value)])
    assert json_text.fields_of(value) == {"number": 1, "parts": value.parts}
    with pytest.raises(TypeError, match="complex has no form in JSON"):
        json_text.member("a", 1j)


def test_only_what_is_named_is_removed() -> None:
    text = '{"a": {"b": 1.10, "C": 2}, "c": 3, "d": [{"c": 4}]}'
    assert json_text.without(text, []) == text
    assert json_text.without(text, [("x",), ("a", "x"), ("c", "a"), ("d", "c")]) == text
    assert json_text.without(text, [("a", "c")]) == '{"a": {"b": 1.10}, "c": 3, "d": [{"c": 4}]}'
    assert json_text.without(text, [("a",), ("d",)]) == '{"c": 3}'
    assert json_text.without('{"a": 1, "a": 2, "b": 3}', [("A",)]) == '{"b": 3}'
