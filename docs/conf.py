"""Sphinx's configuration: `make docs` builds these pages into docs/_build, a warning fails it."""

import inspect

project = "anogan_tf"
copyright = "the authors of anogan_tf"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "anogan_tf"
myst_heading_anchors = 3  # so that pages may link to each other's headings
smartquotes = False  # of two hyphens before an option it would make a dash
default_role = "code"  # docstrings write names as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
HELP = "<!-- help of every command -->"


def commands():
    """`(name, what it does, [(option, what it means)])` of every command."""
    import typer

    from anogan_tf.cli.app import app

    def walk(group, path):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, (*path, name))
            else:
                context = typer.Context(command, info_name=name)
                records = (param.get_help_record(context) for param in command.params if not getattr(param, "hidden", False))
                yield " ".join((*path, name)), command.help, [record for record in records if record]

    return walk(typer.main.get_command(app), ())


def table(records):
    """A Markdown table of options."""
    cells = ([cell.replace("|", "\\|") for cell in record] for record in records)
    return "\n".join(["| | |", "|---|---|", *(f"| `{option}` | {meaning} |" for option, meaning in cells)])


def fill_in_help(app, name, source):
    """What `cli.md` leaves open."""
    if HELP in source[0]:
        sections = (f"## anogan {name}\n\n{what}\n\n{table(records)}\n" for name, what, records in commands())
        source[0] = source[0].replace(HELP, "\n".join(sections))


def signature_of_init(app, what, name, obj, options, signature, returns):
    """Keras's models have a `__new__` that takes anything; what they take is `__init__`'s."""
    if what == "class" and "__init__" in vars(obj):
        parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
        return str(inspect.Signature(parameters)), None
    return None


def setup(app):
    app.connect("autodoc-process-signature", signature_of_init)
    app.connect("source-read", fill_in_help)
