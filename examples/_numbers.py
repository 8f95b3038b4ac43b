"""Names of numbers, such as "nine hundred and four": ragged in letters and in digits."""

import numpy as np

ONES = (
    *("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
LETTERS = " abcdefghijklmnopqrstuvwxyz"
LONGEST_NAME, MOST_DIGITS = 72, 6


def spell(number: int) -> str:
    """The name of a number from 1 to 999,999."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return f"{TENS[number // 10 - 2]} {ONES[number % 10]}".strip()
    if number < 1000:
        rest = f" and {spell(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    rest = f" {spell(number % 1000)}" if number % 1000 else ""
    return f"{spell(number // 1000)} thousand{rest}"


def letters(number: int) -> list[int]:
    """Ids from 1 on of the letters of its name."""
    return [1 + LETTERS.index(letter) for letter in spell(number)]


def draw_numbers(draw: np.random.Generator, count: int) -> list[int]:
    """Numbers of one digit are as frequent as numbers of six."""
    return [int(n) for n in np.exp(draw.uniform(0, np.log(10**MOST_DIGITS), count))]
