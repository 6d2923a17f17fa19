"""Relative links in Markdown lead to files, and to headings where they name one.

    links.py FILE...
"""

import os
import re
import sys


def slug(heading):
    """The anchor that forges make of a heading."""
    heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def text_of(name):
    """A document without its code."""
    with open(name, encoding="utf-8") as f:
        return re.sub(r"^```.*?^```", "", f.read(), flags=re.MULTILINE | re.DOTALL)


links = dead = 0
for document in sys.argv[1:]:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text_of(document))):
        if re.match(r"[a-z]+:", link):
            continue
        links += 1
        path, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
        if not os.path.exists(target):
            why = "no such file"
        elif anchor and anchor not in [slug(h) for h in re.findall(r"^#+ (.*)$", text_of(target), re.MULTILINE)]:
            why = "no such heading"
        else:
            continue
        dead += 1
        print(f"{document}: {link}: {why}")

if links == 0:
    print("no links at all")
sys.exit(dead > 0 or links == 0)
