"""`anogan ...`: the commands together."""

import typer

from anogan_tf.cli.demo import demo
from anogan_tf.cli.evaluate import evaluate
from anogan_tf.cli.export import export
from anogan_tf.cli.page import serve_page
from anogan_tf.cli.prepare import prepare
from anogan_tf.cli.score import score
from anogan_tf.cli.train import train

app = typer.Typer(
    help="Train on normal images; then say of a new image how anomalous it is, and where.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (demo, train, score, evaluate, prepare, export):
    app.command()(command)
app.command("app")(serve_page)
