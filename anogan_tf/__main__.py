"""`python -m anogan_tf` is `anogan`."""

from anogan_tf.cli.app import app

app(prog_name="anogan")
