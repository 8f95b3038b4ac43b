"""docs/functions.md: every public masked function here and in Keras, Flax and PyTorch.

`python -m tests.parity.table` writes the page, and its count into the README; `--check` says
whether the page is up to date.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

from tests.parity.rivals import RIVALS, VERDICTS, VERSIONS, Facts
from tests.registry import NOT_MASKED_FUNCTIONS, REGISTRY, Entry

PAGE = Path(__file__).parents[2] / "docs" / "functions.md"
README = Path(__file__).parents[2] / "README.md"
HOW_TO_WRITE = "regenerate it: python -m tests.parity.table"
HEAD = """\
# The functions, and what padding does to them elsewhere

Generated from the tests' registry and a table of facts: do not edit it.
Each row is one public function or module that takes a mask.
*jaxmask* says where padding may lie: `contiguous` (left or right), `any` (holes too), or `right`
(where masks differ, pairs meet at the columns of the array, so both must begin at the first).
It says what a hole, padding between real steps, means. `compacted`: the function acts on the real
steps alone, as if they stood side by side. `physical`: a missing step keeps its place and
contributes nothing, as in data of a sensor that failed; `jm.ops.compact` closes holes first.
*segments*: a packed batch (`Segments`) can replace the mask, and its sequences stay apart.
*rows*: takes a mask of whole rows too. *streams*: chunks give what one call gives.
*linear*: takes complex inputs, part by part. Two words of one kind (`any, right`):
an option decides which.
Every law that applies is tested on every function; its exemptions `[n]` are listed at the end.
The other columns judge one task: a padded batch of rows of unequal length.
They were filled by running these versions or reading their source; *as* points to the full note.
The verdicts mean:
"""


def base_name(entry: Entry) -> str:
    return entry.name.split(":")[0]


def entries_by_name() -> dict[str, list[Entry]]:
    names: dict[str, list[Entry]] = {}
    for entry in REGISTRY:
        names.setdefault(base_name(entry), []).append(entry)
    return names


def facts_by_name() -> dict[str, Facts]:
    return {name: facts for facts in RIVALS for name in facts.functions.split()}


def verdict(cell: str) -> str:
    return cell.split(": ")[0]


def _exemptions() -> dict[str, tuple[list[str], list[str]]]:
    """For each reason, the laws and the functions."""
    found = {}
    for entry in REGISTRY:
        for law, reason in entry.exempt.items():
            laws, functions = found.setdefault(reason, ([], []))
            laws += [law] * (law not in laws)
            functions += [base_name(entry)] * (base_name(entry) not in functions)
    return dict(sorted(found.items()))


def _here(entries: list[Entry], reasons: list[str]) -> str:
    words = sorted({entry.mask_class for entry in entries})
    words += sorted({entry.holes for entry in entries})
    words += ["segments"] * any("segments" not in entry.exempt for entry in entries)
    words += ["rows"] * any(entry.of_rows for entry in entries)
    words += ["streams"] * any(entry.stream is not None for entry in entries)
    words += ["linear"] * any(entry.linear for entry in entries)
    numbers = {reasons.index(reason) + 1 for entry in entries for reason in entry.exempt.values()}
    return ", ".join(words) + "".join(f" [{number}]" for number in sorted(numbers))


def _there(name: str, facts: Facts, rival: str) -> str:
    cell, first = getattr(facts, rival), facts.functions.split()[0]
    stands_here = name == first or cell == verdict(cell)
    return cell if stands_here else f"{verdict(cell)}: as `{first}`"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _count(names: list[str]) -> str:
    facts = facts_by_name()
    counts = {r: Counter(verdict(getattr(facts[name], r)) for name in names) for r in VERSIONS}
    rows = [[word, *(str(counts[rival][word]) for rival in VERSIONS)] for word in VERDICTS]
    return f"## Count\n\nOf {len(names)} functions:\n\n" + _table(["", *VERSIONS.values()], rows)


def page() -> str:
    registered, facts, exemptions = entries_by_name(), facts_by_name(), _exemptions()
    reasons, tables = list(exemptions), {}
    names = sorted({*registered, *(set(facts) & set(NOT_MASKED_FUNCTIONS))})
    for name in names:
        here = NOT_MASKED_FUNCTIONS.get(name) or _here(registered[name], reasons)
        row = [f"`{name}`", here, *(_there(name, facts[name], rival) for rival in VERSIONS)]
        tables.setdefault(name.split(".")[0], []).append(row)
    verdicts = "".join(f"- **{word}**: {meaning}\n" for word, meaning in VERDICTS.items())
    parts = [HEAD, verdicts, _count(names)]
    for module, rows in tables.items():
        parts += [f"## {module}\n", _table(["function", "jaxmask", *VERSIONS.values()], rows)]
    parts.append("## Exemptions\n")
    for number, (reason, (laws, functions)) in enumerate(exemptions.items(), 1):
        of = ", ".join(f"`{name}`" for name in sorted(functions))
        parts.append(f"{number}. {', '.join(sorted(laws))}: {reason}. Of {of}\n")
    return "\n".join(parts)


def with_counts(readme: str, page: str) -> str:
    """The README with the count of the page in its table."""
    total = re.search(r"Of (\d+) functions", page)[1]
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    keras, flax, torch = (
        " / ".join(row[column] for row in rows if row[0] != "not") for column in (1, 2, 3)
    )
    readme = re.sub(r"of \d+ functions on a padded", f"of {total} functions on a padded", readme)
    cells = f"| {flax} | {keras} | {torch} |"
    return re.sub(r"\| (\d+ / ){4}\d+ \| .*\|$", cells, readme, flags=re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
        readme = README.read_text(encoding="utf-8")
        README.write_text(with_counts(readme, page()), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE.name} is not what the registry gives; {HOW_TO_WRITE}")


if __name__ == "__main__":
    main()
