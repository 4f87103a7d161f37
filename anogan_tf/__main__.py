"""`python -m anogan_tf` is `anogan`."""

from anogan_tf.cli import app

app(prog_name="anogan")
