"""The command line: one command a rule, each also of use on its own; one module a phase.

Every command reads and writes the paths it is given; `--settings` takes the JSON of one block of the configuration,
checked by the same models. Torch is imported only by the commands that run a model.
"""

import logging
import sys

import typer

from mechunlearn import secrets
from mechunlearn.cli import attack, edit, evaluate, fetch, figures, localize, mask, report, sweep, workflow
from mechunlearn.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Localize, edit and attack knowledge in language models.",
)
for phase in (fetch, localize, edit, mask, evaluate, attack, sweep, workflow, figures, report):
    app.add_typer(phase.app)


def main() -> None:
    """Run the command line; a UserError is one sentence on stderr and exit code 1."""
    secrets.hide()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    # transformers imports torchao, which warns of each of its kernels that is made for another machine.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        app()
    except UserError as error:
        print(f"mechunlearn: {error}", file=sys.stderr)
        raise SystemExit(1) from None
