"""The node of one coordinate."""

from __future__ import annotations

from functools import cache, cached_property

from scenerl.answers.grammar import DIGITS_OF_NORM1
from scenerl.decoding.nodes import SPACES, Node


class Numbers:
    """The numbers of one side of the frame, as answers spell them.

    Args:
        largest: in units of the frame (of 0.0001 in ``norm1``).
        step: numbers are multiples of so many units.
        is_norm1: spelt as decimals from 0 to 1.

    Attributes:
        value: the number that some digits are, or None where they are none yet.
        reach: the largest number that begins with some digits, or None where none does.
        is_done: whether some digits are a number that no more can follow.
    """

    def __init__(self, largest: int, step: int, is_norm1: bool):
        self.largest, self.step, self.is_norm1 = largest, step, is_norm1
        # each byte of a number comes through here
        self.value, self.reach, self.is_done = cache(self._value), cache(self._reach), cache(self._is_done)

    def spell(self, value: int) -> bytes:
        return str(round(value * 10.0**-DIGITS_OF_NORM1, DIGITS_OF_NORM1) if self.is_norm1 else value).encode()

    def _is_done(self, digits: bytes) -> bool:
        return self.value(digits) is not None and all(
            self.reach(digits + bytes((byte,))) is None for byte in b"0123456789."
        )

    def _value(self, digits: bytes) -> int | None:
        if self.is_norm1:
            if len(digits) < 3 or self.reach(digits) is None:
                return None
            value = int(digits[:1] + digits[2:].ljust(DIGITS_OF_NORM1, b"0"))
        else:
            if not digits or self.reach(digits) is None:
                return None
            value = int(digits)
        return value if value % self.step == 0 and value <= self.largest else None

    def _reach(self, digits: bytes) -> int | None:
        """By trying every number of digits that may still follow."""
        if self.is_norm1:
            whole, dot, decimals = digits.partition(b".")
            if whole not in (b"0", b"1") or len(decimals) > DIGITS_OF_NORM1 or not (decimals.isdigit() or not decimals):
                return None
            low = int(whole + decimals.ljust(DIGITS_OF_NORM1, b"0"))
            high = int(whole + decimals.ljust(DIGITS_OF_NORM1, b"9"))
            return self._multiple(low, high)
        if not digits.isdigit() or (digits[:1] == b"0" and digits != b"0"):
            return None
        found = None
        for extra in range(1 if digits == b"0" else len(str(self.largest)) - len(digits) + 1):
            scale = 10**extra
            candidate = self._multiple(int(digits) * scale, int(digits) * scale + scale - 1)
            found = candidate if candidate is not None else found
        return found

    def _multiple(self, low: int, high: int) -> int | None:
        """The largest multiple of the grid from ``low`` to ``high`` in the frame."""
        candidate = min(high, self.largest) // self.step * self.step
        return candidate if candidate >= low else None

    @cached_property
    def below_largest(self) -> Numbers:
        """The numbers that leave room for a larger one."""
        return Numbers(self.largest - self.step, self.step, self.is_norm1)


class Number(Node):
    """Number ``axis`` (x1, y1, x2, y2) of a box; ``numbers`` are those of its side, ``next`` must not take digits."""

    start = (0, b"")
    _DONE = (0, b"!")
    """Stands for every number to which no digit can be added."""

    def __init__(self, axis: int, numbers: Numbers, next: Node, space: int, lead: bytes = b""):
        self.axis, self.next, self.space, self.lead = axis, next, space, lead
        self.numbers = numbers.below_largest if axis < 2 else numbers

    def enter(self, memory):
        return self, self.start, memory if self.axis else memory.boxed()

    def step(self, inner, memory, byte):
        spaces, digits = inner
        if byte in SPACES and not digits:
            return (self, (spaces + 1, b""), memory) if spaces < self.space else None
        reach = self.numbers.reach(digits + bytes((byte,)))
        if reach is not None:
            memory = memory.above(self.axis, reach)
            # what stood before the digits makes no difference any more
            return None if memory is None else (self, (0, digits + bytes((byte,))), memory)
        value = None
        if inner != self._DONE:
            value = self.numbers.value(digits)
            memory = memory.above(self.axis, value) if value is not None else None
        return None if memory is None else self.next.step(self.next.start, memory.numbered(self.axis, value), byte)

    def key(self, inner):
        return self._DONE if self.numbers.is_done(inner[1]) else inner

    def context(self, memory):
        after = self.next.context(memory)
        return None if after is None else (memory.box[max(0, self.axis - 2) : 2], after)

    def rest(self, inner, memory):
        spaces, digits = inner
        low = memory.low(self.axis)
        value = self.numbers.value(digits)
        if value is None or value <= low:
            least = max(0, (low // self.numbers.step + 1) * self.numbers.step)
            value = self.numbers.reach(digits) if digits else least
            number = self.numbers.spell(value)[len(digits) :]
            if not digits and not spaces:
                number = self.lead + number
        else:
            number = b""
        after = self.next.rest(self.next.start, memory.numbered(self.axis, value))
        return [number, *after] if number else after
