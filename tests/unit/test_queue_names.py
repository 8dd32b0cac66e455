from __future__ import annotations

import pytest

from vault_ml.brokers.queue_names import is_fifo, is_url, sqs_name, sqs_problem

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/"


@pytest.mark.parametrize(
    ("queue", "name", "url", "fifo"),
    [
        pytest.param("ml-queue", "ml-queue", False, False, id="name"),
        pytest.param("ml.fifo", "ml.fifo", False, True, id="fifo name"),
        pytest.param(URL + "ml-queue", "ml-queue", True, False, id="url"),
        pytest.param(URL + "ml.fifo/", "ml.fifo", True, True, id="fifo url with a slash"),
        pytest.param("HTTP://sqs/q", "q", True, False, id="url in capitals"),
    ],
)
def test_a_queue_is_known_by_its_name(queue: str, name: str, url: bool, fifo: bool) -> None:
    assert (sqs_name(queue), is_url(queue), is_fifo(queue)) == (name, url, fifo)


@pytest.mark.parametrize("queue", ["a", "A_b-9", "x" * 80, "x" * 75 + ".fifo", URL + "q"])
def test_what_aws_takes_is_no_problem(queue: str) -> None:
    assert sqs_problem(queue) is None


@pytest.mark.parametrize(
    ("queue", "part"),
    [
        ("", "letters"),
        (".fifo", "letters"),
        ("a.b", "letters"),
        ("é", "letters"),
        ("x" * 81, "at most 80"),
        ("x" * 76 + ".fifo", "at most 80"),
        ("https://sqs.eu-west-1.amazonaws.com/", "letters"),
        ("https://me:canary@sqs/1/q", "plain URL"),
        (URL + "q?Action=canary", "plain URL"),
        (URL + "q#canary", "plain URL"),
    ],
)
def test_what_aws_refuses_is_told(queue: str, part: str) -> None:
    problem = sqs_problem(queue)
    assert problem is not None
    assert part in problem
    assert "canary" not in problem
