"""The report: a notebook that reads tables and shows figures, run and put on one page that needs nothing else.

build        notebook and study -> report.html and the executed notebook
execute      run a notebook of text, its parameter filled in
page         an executed notebook as one HTML page
provenance   what the numbers came from: code, packages, machine

Torch-free. The notebook (report/report.py, jupytext's percent format) has one parameter, CONFIG: the study as JSON.
"""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from mechunlearn.artifacts import atomic
from mechunlearn.config import Study
from mechunlearn.errors import UserError

PACKAGES = ["mechunlearn", "torch", "transformers", "peft", "safetensors", "scikit-learn", "numpy", "pandas"]
PACKAGES += ["matplotlib", "snakemake", "dvc"]
HEADING = re.compile(r"<h2\b[^>]*>(.*?)</h2>")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
<script>
{script}</script>
</body>
</html>
"""


def build(notebook: Path, study: Study, out: Path, executed: Path) -> None:
    """Run the notebook for a study and write the page and the executed notebook.

    Raises UserError with the cell's own error where a cell fails; what stood at `out` before stays then.
    """
    import nbformat

    done = execute(notebook, study.model_dump_json())
    html = page(done, f"mechunlearn: {study.study}", notebook.parent)
    with atomic(executed) as temporary:
        temporary.write_text(nbformat.writes(done) + "\n", encoding="utf-8")
    with atomic(out) as temporary:
        temporary.write_text(html, encoding="utf-8")


def execute(notebook: Path, config: str) -> Any:
    """Run a percent-format notebook in the current folder, CONFIG set to `config`. Raises UserError."""
    import jupytext
    import nbformat
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    try:
        cells = jupytext.read(notebook, fmt="py:percent")
    except OSError as error:
        raise UserError(f"{notebook} cannot be read: {error.strerror}.") from error
    marked = [index for index, cell in enumerate(cells.cells) if "parameters" in cell.metadata.get("tags", [])]
    if not marked:
        raise UserError(f"{notebook} has no cell tagged `parameters`.")
    given = nbformat.v4.new_code_cell(f"CONFIG = {config!r}", metadata={"tags": ["injected-parameters"]})
    cells.cells.insert(marked[0] + 1, given)
    for index, cell in enumerate(cells.cells):
        cell.id = f"cell-{index}"  # ids are random otherwise
    client = NotebookClient(
        cells, timeout=600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": "."}}
    )
    client.create_kernel_manager().transport = "ipc"  # a socket file, no open port
    try:
        client.execute()
    except CellExecutionError as error:
        raise UserError(f"{notebook} failed: {error.ename}: {error.evalue}") from error
    except (NoSuchKernel, DeadKernelError) as error:
        raise UserError(f"{notebook} could not be run: {error}; is ipykernel installed?") from error
    return cells


def page(notebook: Any, title: str, folder: Path) -> str:
    """An executed notebook as one HTML page: no code of the notebook, nothing loaded from anywhere.

    folder   holds style.css and sort.js, which become part of the page
    """
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "sort.js"))
    return PAGE.format(title=title, style=style, body=_with_contents(body), script=script)


def _with_contents(body: str) -> str:
    """The page's body with a list of its sections, which links to each, before the first of them."""
    titles = [title.strip() for title in HEADING.findall(body)]
    places = [re.sub(r"[^a-z]+", "-", title.lower()).strip("-") for title in titles]
    links = "".join(f'<li><a href="#{place}">{title}</a></li>' for place, title in zip(places, titles, strict=True))
    found = iter(places)
    marked = HEADING.sub(lambda heading: f'<h2 id="{next(found)}">{heading[1]}</h2>', body)
    start = marked.find("<h2 ")
    return f'{marked[:start]}<nav aria-label="Contents"><ol>{links}</ol></nav>\n{marked[start:]}'


def provenance() -> dict[str, str]:
    """Code version, machine and package versions, as text by name."""
    found = {
        "Code": _commit(),
        "Processor": _processor(),
        "Memory": _memory(),
        "System": f"{platform.system()} on {platform.machine()}",
    }
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return {**found, "Packages": ", ".join(versions)}


def _commit() -> str:
    """The git commit, and whether anything but results differs from it."""
    try:
        commit = _git("rev-parse", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", ".", ":!results")
    except (OSError, subprocess.CalledProcessError):
        return "not under git"
    return f"commit {commit}" + (", with uncommitted changes" if changed.strip() else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def _processor() -> str:
    """The processor's name and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or platform.machine()}, {cores} cores"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError):
        return "unknown"
