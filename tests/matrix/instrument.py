#!/usr/bin/env python3
"""Copies a source of the engine so that the statements which code_mutants.list names for it can be left out.

  instrument.py LIST SOURCE OUTPUT

A row's statement must occur exactly once, so a list that is out of date does not build. White space does not matter.
"""
import re
import sys


def rows(path):
    for line in open(path, encoding="utf-8"):
        if line.strip() and not line.startswith("#"):
            name, source, statement, *reason = (part.strip() for part in line.split(" | "))
            yield name, source, statement


def main():
    listing, source, output = sys.argv[1:]
    text = open(source, encoding="utf-8").read()
    for name, file, statement in rows(listing):
        if not source.endswith("/" + file):
            continue
        pattern = r"\s+".join(re.escape(word) for word in statement.split())
        found = list(re.finditer(r"(?<=\n)([ ]+)(" + pattern + r")(?=\n)", text))
        if len(found) != 1 or not statement.endswith(";"):
            sys.exit(f"{listing}: {name}: found {len(found)} times in {file}, or no statement: {statement}")
        kept = f'if (!::nestor::matrix::left_out("{name}")) {{ {found[0].group(2)} }}'
        text = text[:found[0].start(2)] + kept + text[found[0].end(2):]
    with open(output, "w", encoding="utf-8") as out:
        out.write(f'#include "tests/matrix/left_out.hpp"\n#line 1 "{source}"\n{text}')


if __name__ == "__main__":
    main()
