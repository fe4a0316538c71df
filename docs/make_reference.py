"""Writes reference.md beside this file from the docstrings of the public names."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import atldiff

PAGE = Path(__file__).with_name("reference.md")
_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?([\w]+)`")
_SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:", "Yields:")


def reference() -> str:
    """The whole page."""
    parts = [
        "# Reference",
        "Made from the docstrings by `python docs/make_reference.py`; `import atldiff` has these names.",
    ]
    for name in sorted(atldiff.__all__, key=str.lower):
        if not name.startswith("__"):
            parts.extend(_entry(name, getattr(atldiff, name)))
    return "\n\n".join(parts) + "\n"


def _entry(name: str, thing: object) -> Iterator[str]:
    yield f"## {name}"
    is_error = inspect.isclass(thing) and issubclass(thing, Exception)
    if not is_error:
        yield f"```python\n{_signature(name, thing)}\n```"
    yield _text(thing)
    if inspect.isclass(thing) and not is_error:
        for member, content in sorted(_members(thing).items()):
            called = getattr(content, "__func__", content)
            if member == "__call__" or (not member.startswith("_") and inspect.isfunction(called)):
                yield f"### {name}.{member}"
                yield f"```python\n{_signature(member, called)}\n```"
                yield _text(called)


def _members(thing: type) -> dict[str, object]:
    """What a class has of its own, and of those of this package that it is derived from."""
    own = [base for base in reversed(thing.__mro__) if base.__module__.startswith("atldiff.")]
    return {name: content for base in own for name, content in vars(base).items()}


def _signature(name: str, thing: object) -> str:
    try:
        signature = inspect.signature(thing)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return name
    own = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    own = [each for each in own if not each.name.startswith("_")]
    text = str(signature.replace(parameters=own)).replace("~", "")
    text = re.sub(r"\b(?:collections\.abc|pathlib|typing|numpy|atldiff(?:\.\w+)+)\.(?=\w)", "", text)
    text = re.sub(r"\*<class '(\w+)'>", r"Unpack[\1]", text)
    return "\n".join(textwrap.wrap(f"{name}{text}", 100, subsequent_indent="    ", break_long_words=False))


def _text(thing: object) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if line in _SECTIONS:
            lines += [f"*{line[:-1]}*", ""]
        elif line.startswith("        "):
            lines[-1] += f" {line.strip()}"
        elif line.startswith("    ") and ": " in line:
            first, _, rest = line.strip().partition(": ")
            lines.append(f"- `{first}`: {rest}")
        elif line.startswith("    "):
            lines.append(f"- {line.strip()}")
        else:
            lines.append(line)
    return _ROLE.sub(r"`\1`", "\n".join(lines)).replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(reference())
