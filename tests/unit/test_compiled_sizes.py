"""A runtime keeps the sizes that it used last."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vault_ml.inference.compiled_sizes import CompiledSizes

SIZES = [(32 * w, 32) for w in range(1, 5)]
FIFTH = (320, 320)


class Compiler:
    """Compiles a size to its name, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.sizes: CompiledSizes[str] = CompiledSizes()

    def get(self, wh: tuple[int, int]) -> str:
        def compile_it() -> str:
            self.asked.append(wh)
            return f"{wh[0]}x{wh[1]}"

        return self.sizes.get(wh, compile_it)


def test_a_size_is_compiled_once() -> None:
    compiler = Compiler()
    for wh in SIZES * 3:
        assert compiler.get(wh) == f"{wh[0]}x{wh[1]}"
    assert compiler.asked == SIZES


def test_the_size_that_was_used_longest_ago_makes_room() -> None:
    compiler = Compiler()
    for wh in [*SIZES, SIZES[0], FIFTH]:
        compiler.get(wh)
    compiler.asked.clear()
    for wh in (SIZES[0], SIZES[2], SIZES[3], FIFTH):
        compiler.get(wh)
    assert compiler.asked == []
    compiler.get(SIZES[1])
    assert compiler.asked == [SIZES[1]]


def test_room_is_made_before_the_next_one_is_compiled() -> None:
    compiler = Compiler()
    for wh in SIZES:
        compiler.get(wh)

    def fails() -> str:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        compiler.sizes.get(FIFTH, fails)
    compiler.get(SIZES[0])
    assert compiler.asked == [*SIZES, SIZES[0]]
    assert compiler.get(FIFTH) == "320x320"


def test_nothing_is_kept_after_it_is_cleared() -> None:
    compiler = Compiler()
    compiler.get(FIFTH)
    compiler.sizes.clear()
    compiler.get(FIFTH)
    assert compiler.asked == [FIFTH, FIFTH]


def test_threads_that_want_one_size_compile_it_once() -> None:
    sizes: CompiledSizes[str] = CompiledSizes()
    asked: list[str] = []
    together = threading.Barrier(4, timeout=60)
    second = threading.Event()

    def compile_it() -> str:
        asked.append("320x320")
        if len(asked) > 1:
            second.set()
        second.wait(0.3)  # time for another one to come in, if it can
        return asked[-1]

    def want(_: int) -> str:
        together.wait()
        return sizes.get(FIFTH, compile_it)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(want, range(4))) == {"320x320"}
    assert asked == ["320x320"]
