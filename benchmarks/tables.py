"""Rows of a measurement as a Markdown table."""


def markdown_table(rows):
    """Dicts with the same keys as a Markdown table; None is an empty cell."""
    if not rows:
        return "-"
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([row[key] for key in head] for row in rows)]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)
