"""``atldiff verify``: what a video says of its origin, and whether that still fits its content.

Exit codes besides those of every verb: 0 marked and intact; 3 marked, but the mark or the content was changed since;
4 plain metadata only; 5 no mark of synthetic content; 6 marked and intact, but not signed by one whom ``--trust``
names. The first line is the verdict, in words of this program alone; what the file or its name says stands below it,
between quotation marks.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.cli.words import quoted

if TYPE_CHECKING:
    from atldiff.media.provenance import Provenance


EXAMPLES = """examples:
  atldiff verify out.mp4
  atldiff verify out.mp4 --trust certificate.pem --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add = parser.add_argument
    add("video", metavar="VIDEO", type=Path, help="an mp4, mov, GIF or WebM, or a JPEG of a live session")
    add("--trust", metavar="PEM", type=Path, help="certificates to trust (default: your own)")
    add("--json", action="store_true", help="print the finding as JSON (default: in words)")


def run(arguments: argparse.Namespace) -> int:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    from atldiff.media.provenance import INTACT, read_provenance

    found = read_provenance(arguments.video, arguments.trust)
    code = _exit_code(found, arguments.trust is not None)
    if arguments.json:
        print(json.dumps({"video": str(arguments.video), "exit_code": code, **dataclasses.asdict(found)}, indent=2))
        return code
    print(f"verdict: {_verdict(found)}")
    print(f"  file: {quoted(arguments.video)}")
    if found.state == INTACT:
        print(f"  made by: {quoted(found.software)}, {quoted(found.made_at)}")
    if found.signer is not None:
        vouched = "yes" if found.trusted else "no; anyone can make such a mark under any name"
        print(f"  signed by: {quoted(found.signer)}\n  by one whom you trust: {vouched}")
    if found.source_type is not None and found.state != INTACT:
        print(f"  says that it is: {quoted(found.source_type)}")
    for detail in found.details:
        print(f"  validator: {quoted(detail)}")
    return code


def _exit_code(found: "Provenance", asked_for_trust: bool) -> int:
    from atldiff.media.provenance import DAMAGED, INTACT, METADATA, UNMARKED

    if found.state == INTACT and asked_for_trust and not found.trusted:
        return 6
    return {INTACT: 0, DAMAGED: 3, METADATA: 4, UNMARKED: 5}[found.state]


def _verdict(found: "Provenance") -> str:
    from atldiff.media.provenance import DAMAGED, INTACT, METADATA

    if found.state == INTACT:
        return "marked as synthetic, and unchanged since it was signed"
    if found.state == DAMAGED:
        return f"marked, but changed since it was signed: {' and '.join(found.damaged)}"
    if found.state == METADATA:
        return "plain metadata says that it is synthetic; no signed manifest"
    return "no mark of synthetic content" + ("; it is signed, but says something else" if found.signer else "")
