# SPDX-License-Identifier: GPL-2.0-only
"""Puts what its cells print into docs/notebook.ipynb: `python -m iorec.documentation.notebook`.

What runs them, nbclient, comes with the development tools.
"""

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

_NOTEBOOK = Path("docs/notebook.ipynb")


def main() -> None:
    """Puts today's outputs in place of those that are there, but no picture: they are large."""
    notebook = run_notebook(_NOTEBOOK)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/png", None)
    _NOTEBOOK.write_text(f"{nbformat.writes(notebook)}\n")


def run_notebook(path: Path) -> Any:
    """The notebook with the outputs of all its cells; the first error in one is raised."""
    notebook = nbformat.reads(path.read_text(), as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, resources=folder, record_timing=False).execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


if __name__ == "__main__":
    main()
