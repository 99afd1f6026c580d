"""Execute every notebook in a fresh kernel and print its time; ``--write`` keeps the outputs in the file.

python notebooks/run.py [--write] [NAME ...]
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent


def run(path: Path, *, is_kept: bool) -> tuple[float, float]:
    """Seconds on the clock and of processor time that one notebook took; CellExecutionError where a cell fails."""
    book = nbformat.read(path, as_version=4)
    started, used = time.monotonic(), sum(os.times()[2:4])
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}})
        client.execute()
    if is_kept:
        for cell in book.cells:
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":
                cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
                for output in cell.outputs:
                    shrink(output.get("data", {}))
        nbformat.write(book, path)
    return time.monotonic() - started, sum(os.times()[2:4]) - used


def shrink(data: dict[str, str]) -> None:
    """Write a picture again with 256 colours: charts need no more, and they come hardly compressed."""
    if "image/png" in data:
        from PIL import Image

        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
        small = io.BytesIO()
        picture.convert("RGB").quantize(256).save(small, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(small.getvalue()).decode()


def main() -> int:
    """Run them all; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="such as 01_quickstart (default: all)")
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebooks")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    os.environ["PLOOMBER_STATS_ENABLED"] = "false"  # JupySQL reports its use otherwise
    failed = []
    for path in sorted(HERE.glob("*.ipynb")):
        if arguments.names and path.stem not in arguments.names:
            continue
        try:
            clock, processor = run(path, is_kept=arguments.write)
            print(f"{path.stem:24} {clock:6.1f} s, processor {processor:6.1f} s", flush=True)
        except CellExecutionError as error:
            failed.append(path.stem)
            print(f"{path.stem:24} failed\n{error}", flush=True)
    total = len(failed)
    print(f"{total} notebooks failed" if total else "every notebook ran")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
