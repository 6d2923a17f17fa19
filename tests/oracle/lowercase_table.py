"""The table of src/data/lowercase.c, from Unicode's own.

    lowercase_table.py UnicodeData.txt

Prints the rows: first code point, last, their distance from each other (1, or 2 where capital and small letters
alternate), lower case of the first. Field 13 of UnicodeData.txt is the simple lower-case mapping.
"""

import sys


def rows(lower):
    """Code point -> its lower case, as [first, last, step, lower case of first]."""
    table = []
    for code, small in sorted(lower.items()):
        if table:
            first, last, step, small_first = row = table[-1]
            if small - code == small_first - first and (code - last == step or (first == last and code - last == 2)):
                row[1:3] = code, code - last
                continue
        table.append([code, code, 1, small])
    return table


def main():
    lower = {}
    with open(sys.argv[1], encoding="ascii") as file:
        for line in file:
            fields = line.split(";")
            if fields[13]:
                lower[int(fields[0], 16)] = int(fields[13], 16)
    print(",\n".join("{0x%x, 0x%x, %d, 0x%x}" % tuple(row) for row in rows(lower)))


if __name__ == "__main__":
    main()
