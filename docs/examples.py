"""Shows the examples of docstrings as code.

The docstrings have Keras's form: `Example:`, an empty line, and lines that begin with `>>>`. Markdown would take these
for quotations.
"""

import griffe


class Examples(griffe.Extension):
    """Puts every example of a docstring, with its output, into a block of code."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = as_code(obj.docstring.value)


def as_code(text):
    """Returns a docstring in which each example, up to the next empty line, is a fenced block."""
    lines, inside = [], False
    for line in [*text.splitlines(), ""]:
        begins, ends = not inside and line.lstrip().startswith(">>>"), inside and not line.strip()
        if begins or ends:
            lines.append("```python" if begins else "```")
            inside = begins
        lines.append(line.strip() if inside else line)
    return "\n".join(lines)
