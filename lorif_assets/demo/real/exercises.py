"""Exercises with numbers, and chats in which the assistant calls a tool: rows that a generator makes."""

import json
from collections.abc import Callable

import numpy as np

from lorif_assets.demo.real.chats import Chat, Message, exchange

_UNITS = (
    ("kilometres", "metres", 1_000),
    ("hours", "minutes", 60),
    ("kilograms", "grams", 1_000),
    ("dozen", "pieces", 12),
    ("weeks", "days", 7),
)
_GOODS = ("apples", "pencils", "tiles", "postcards", "candles", "screws")
_CITIES = ("Lisbon", "Oslo", "Nairobi", "Quito", "Hanoi", "Perth", "Turin", "Gdansk")
_WEATHER = ("rain", "sunshine", "fog", "snow")
_TOOLS = (
    'You can call tools. Write a call as <tool_call>{"name": ..., "arguments": {...}}</tool_call> and wait for the '
    "result. Tools: weather(city) gives the temperature in degrees and the sky."
)


def exercises(seed: int, count: int) -> list[Chat]:
    """Return conversions of units and sums of goods, in turn."""
    rng = np.random.default_rng(seed)
    kinds: tuple[Callable[[np.random.Generator], tuple[Message, ...]], ...] = (_conversion, _purchase)
    return [
        Chat(f"exercise-{number + 1:02d}", kinds[number % len(kinds)](rng), "arithmetic", "exercise")
        for number in range(count)
    ]


def tool_chats(seed: int) -> list[Chat]:
    """Return one chat about the weather of each city."""
    rng = np.random.default_rng(seed)
    return [
        Chat(f"tool-{number}", _weather_chat(city, rng), "weather", "tool")
        for number, city in enumerate(_CITIES, start=1)
    ]


def _conversion(rng: np.random.Generator) -> tuple[Message, ...]:
    large, small, factor = _UNITS[rng.integers(len(_UNITS))]
    amount = int(rng.integers(3, 40))
    return exchange(
        f"How many {small} are {amount} {large}?",
        f"{amount} {large} are {amount} times {factor:,} {small}, which is {amount * factor:,}.",
    )


def _purchase(rng: np.random.Generator) -> tuple[Message, ...]:
    goods = _GOODS[rng.integers(len(_GOODS))]
    packs, each, given = (int(n) for n in (rng.integers(2, 9), rng.integers(3, 13), rng.integers(1, 6)))
    return exchange(
        f"I bought {packs} packs of {goods} with {each} in each and gave {given} away. How many are left?",
        f"{packs} times {each} is {packs * each}. Without the {given} that you gave away, {packs * each - given} {goods} "
        "are left.",
    )


def _weather_chat(city: str, rng: np.random.Generator) -> tuple[Message, ...]:
    degrees, sky = int(rng.integers(-5, 31)), _WEATHER[rng.integers(len(_WEATHER))]
    call = json.dumps({"name": "weather", "arguments": {"city": city}})
    return (
        {"role": "system", "content": _TOOLS},
        {"role": "user", "content": f"What should I wear in {city} today?"},
        {"role": "assistant", "content": f"<tool_call>{call}</tool_call>"},
        {"role": "tool", "content": json.dumps({"degrees": degrees, "sky": sky})},
        {"role": "assistant", "content": f"It has {degrees} degrees in {city}, with {sky}. {_advice(degrees, sky)}"},
    )


def _advice(degrees: int, sky: str) -> str:
    coat = "Take a warm coat" if degrees < 8 else "A jumper will do" if degrees < 18 else "A shirt is enough"
    return coat + (" and an umbrella." if sky in {"rain", "snow"} else ".")
