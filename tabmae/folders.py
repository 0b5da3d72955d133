"""Folders of saved models: what they hold, and which may be written.

Contract: what passes is not refused by a save later; torch is not loaded, so that this can be asked before a fit.
"""

import os
from pathlib import Path

from tabmae.errors import SavedModelError, listed

RECORD, WEIGHTS = "tabmae.json", "weights.safetensors"


def check_target(target: Path) -> None:
    """Refuse what could not be made, and to replace anything but an empty folder or a saved model."""
    above = next((folder for folder in target.parents if folder.exists()), target)
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise SavedModelError(
            f"`folder` must lie in a folder that can be written to; {str(above)!r} is not one. Pass another folder."
        )
    if not target.exists():
        return
    names = set(os.listdir(target)) if target.is_dir() else {target.name}
    if names and (names - {RECORD, WEIGHTS} or RECORD not in names):
        held = listed(sorted(names - {RECORD, WEIGHTS}) or sorted(names))
        raise SavedModelError(
            f"`folder` must be new, empty or a saved model; {str(target)!r} is or holds {held}. Pass another folder."
        )
