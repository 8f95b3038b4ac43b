"""Row functions by family: each is what a user would write for one unpadded sequence."""

import importlib
import pkgutil

# Every module of this package is a family.
FAMILIES = tuple(
    importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
)
PROGRAMS = {
    f"{family.__name__.rpartition('.')[2]}.{name}": row
    for family in FAMILIES
    for name, row in family.PROGRAMS.items()
}
