"""Which style each source gets (``--style-by``): all of the run's, or one by its key, its folder or its list.

The choice is frozen in the plan, so a run that is resumed, on any number of workers, gives each source the same style.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from stylemill.errors import ConfigError
from stylemill.storage.store import ObjectStat

KEY, FOLDER, COLUMN = "key", "folder", "column:"
"""``key``: a seeded hash of the source's key decides; ``folder``: its first folder has the style's name;
``column:NAME``: a column of the list of sources has its name."""


@dataclass(frozen=True, kw_only=True)
class StyleRule:
    """How the style of a source is chosen.

    Raises:
        ConfigError: ``by`` is not a rule.
    """

    by: str | None = None
    """FOLDER, KEY, COLUMN and a name, or None: every source is painted in all styles."""
    seed: int = 0
    """Of KEY."""

    def __post_init__(self) -> None:
        if self.by not in (None, FOLDER, KEY) and not (self.by or "").removeprefix(COLUMN).strip():
            raise ConfigError("style_by", self.by, "names no column", "write for example column:look")
        if self.by not in (None, FOLDER, KEY) and not str(self.by).startswith(COLUMN):
            raise ConfigError("style_by", self.by, "is not a rule", f"write {FOLDER}, {KEY} or {COLUMN}NAME")

    @property
    def column(self) -> str | None:
        """Name of the list's column, if that decides."""
        return self.by.removeprefix(COLUMN).strip() if self.by and self.by.startswith(COLUMN) else None

    def choose(self, found: ObjectStat, styles: Sequence[str]) -> tuple[str | None, str | None]:
        """Return the style of a source, None for all, and why it cannot be painted in one that the run has.

        Args:
            found: the source.
            styles: names of the run's styles. A source that has none of them gets the first, for its row.
        """
        if self.by is None:
            return None, None
        if self.by == KEY:
            digest = hashlib.sha256(f"{self.seed}\0{found.key}".encode()).digest()
            return styles[int.from_bytes(digest[:8], "big") % len(styles)], None
        if self.by == FOLDER:
            folder, mark, _ = found.key.partition("/")
            asked, where = (folder if mark else ""), "its first folder"
        else:
            asked, where = found.label or "", f"the column {self.column}"
        if asked in styles:
            return asked, None
        said = f"says {asked!r}" if asked else "says nothing"
        return styles[0], f"{where} {said}, which is none of the styles {', '.join(styles)}"
