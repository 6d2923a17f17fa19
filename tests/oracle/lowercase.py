"""Lower case of single characters by Python, for lowercase.sh.

    lowercase.py write TEXT     a word for each character: its number, then the character
    lowercase.py compare RUN    the vocabulary has these words in lower case

The characters are those of Unicode 3.2 that are neither ideographs nor Hangul: Python has that version beside its own, so that
every Python compares the same ones, and Unicode has not changed their lower case since.
"""

import sys
import unicodedata

import h5py


def characters():
    """Assigned, and no separator or control, of which some separate words."""
    for code in range(0x110000):
        category = unicodedata.ucd_3_2_0.category(chr(code))
        if category[0] in "LMNPS" and not 0x3400 <= code <= 0x9FFF and not 0xAC00 <= code <= 0xFAFF and code < 0x20000:
            yield code


def lower(code):
    """Python's is the full mapping; it is longer than one character for I with a dot alone, which becomes i with a dot."""
    return chr(code).lower()[0]


def main():
    if sys.argv[1] == "write":
        with open(sys.argv[2], "w", encoding="utf-8") as file:
            file.writelines(f"{code}{chr(code)}\n" for code in characters())
        return
    with h5py.File(sys.argv[2], "r") as run:
        found = set(run["vocab/token"].asstr()[:])
    expected = {f"{code}{lower(code)}" for code in characters()}
    capitals = sum(lower(code) != chr(code) for code in characters())
    missing = sorted(expected - found)
    print(f"{len(expected)} characters, {capitals} of them capital, {len(missing)} otherwise: {missing[:5]}")
    sys.exit(bool(missing) or capitals < 800)


if __name__ == "__main__":
    main()
