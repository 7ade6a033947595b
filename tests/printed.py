"""What a benchmark printed, taken apart."""

import re

NUMBER = r"-?\d[\d,]*(?:\.\d+)?"


def table(text: str) -> list[list[str]]:
    """The cells of all rows of Markdown tables, heads included."""
    rows = (line[1:].removesuffix("|").split("|") for line in text.splitlines() if line[:1] == "|" and line[:4] != "|---")
    return [[cell.strip(" *") for cell in row] for row in rows]


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(NUMBER, text)]
