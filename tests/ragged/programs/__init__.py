"""Row functions by family: each is what a user would write for one unpadded sequence."""

from tests.ragged.programs import (
    calls,
    contractions,
    control,
    cumulative,
    elementwise,
    indexing,
    joining,
    reductions,
    shapes,
    sorting,
    twenty_seven,
    windows,
)

FAMILIES = (
    calls,
    contractions,
    control,
    cumulative,
    elementwise,
    indexing,
    joining,
    reductions,
    shapes,
    sorting,
    twenty_seven,
    windows,
)
PROGRAMS = {
    f"{family.__name__.rpartition('.')[2]}.{name}": row
    for family in FAMILIES
    for name, row in family.PROGRAMS.items()
}
