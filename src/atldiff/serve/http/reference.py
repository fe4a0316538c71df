"""The OpenAPI description as a page without scripts: nothing is loaded from elsewhere."""

import re
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { border-top: 1px solid #ccc; padding-top: 1rem; font-size: 1.1rem } code { font-family: ui-monospace, monospace }
table { border-collapse: collapse; width: 100% } td { padding: .2rem .8rem .2rem 0; vertical-align: top }
b.method { background: #224; color: white; padding: .1rem .5rem; border-radius: .2rem }
p, h2, td, code { overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } b.method { background: #446 } }
"""


def reference_page(schema: dict[str, Any]) -> str:
    """An OpenAPI schema → HTML."""
    info = schema["info"]
    parts = [f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>", _paragraphs(info["description"])]
    parts.append('<p>As <a href="openapi.json">OpenAPI</a>.</p>')
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts += _operation(method, path, operation)
    title = escape(info["title"])
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = [
        f"<h2><b class=method>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}</h2>"
    ]
    parts.append(_paragraphs(operation.get("description", "")))
    rows = [(item["name"], item["schema"], item.get("description", "")) for item in operation.get("parameters", ())]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        fields = content["schema"]["properties"].items()
        rows += [(name, field, field.get("description", "")) for name, field in fields]
        parts.append(f"<p>Body: <code>{escape(kind)}</code></p>")
    if rows:
        parts.append(
            _table([(f"<code>{escape(name)}</code>", _kind(field), _words(text)) for name, field, text in rows])
        )
    answers = operation["responses"].items()
    parts.append(_table([(f"<b>{status}</b>", _words(answer["description"])) for status, answer in answers]))
    return parts


def _kind(schema: dict[str, Any]) -> str:
    words = [str(schema.get("format", schema.get("type", "")))]
    if "enum" in schema:
        words = [", ".join(map(str, schema["enum"]))]
    if "minimum" in schema:
        words.append(
            f"{schema['minimum']} to {schema['maximum']}" if "maximum" in schema else f"from {schema['minimum']}"
        )
    if "default" in schema:
        words.append(f"default {schema['default']}")
    return escape("; ".join(words))


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_words(part)}</p>" for part in text.split("\n\n") if part.strip())


def _words(text: str) -> str:
    """Text with its `code` marked as such."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
