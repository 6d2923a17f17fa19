"""Seeds of the fuzzers, and their dictionaries: folders and files of a new folder.

    seeds.py UNROLL FOLDER      FOLDER/{options,text,runfile}/*, FOLDER/{options,text,runfile}.dict
"""

import os
import re
import struct
import subprocess
import sys


def options(unroll):
    """A command line for each option, with a default, a choice or a number; and some that people write."""
    text = subprocess.run([unroll, "train", "--help"], check=True, capture_output=True, text=True).stdout
    rows = re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)(?: (\S+))?", text, re.M)
    for name, value in rows:
        if not value:
            yield [name]
        for v in value.split("|") if "|" in value and "[" not in value else [""] if not value else ["1", "2k", "0.5", "x.h5"]:
            yield [name + "=" + v]
            yield [name, v, "text"]
    for line in (
        "text --cell lstm --layers 2 --hidden 64 --optimizer momentum --momentum 0.9 --clip 5",
        "text --level word --min-count 2 --max-vocab 10k --schedule plateau --lr-decay 0.5 --patience 2 --valid-fraction 0.1",
        "-o run.h5 text --resume --change --epochs 5 --lr 1e-3 --checkpoint-every 30m --keep 3",
        "--sequences line --bptt full --letters -- -text --",
        "--hiden 5",
        "--lr nan",
        "--lr 1e400 --seed 18446744073709551615 --seed 1",
        "--checkpoint-every 18446744073709551615h",
        "-h",
    ):
        yield line.split(" ")


def names(unroll):
    text = subprocess.run([unroll, "train", "--help"], check=True, capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"--[a-z0-9-]+", text)))


TEXTS = (
    b"",
    b"a",
    b"the old tree\nand the gate\n\nthe river\n",
    "Äpfel und Éclairs, \u8a9e\u8a9e \U0001f600x \u023a\u212a\n".encode(),
    b"\xef\xbb\xbfwith a mark\r\nand CRLF\r\n \r\n\r\nend",
    b"\xef\xbb\xbf",
    b"lines\rthat end\rin CR",
    b"<unk> <eos> <unk>\n<eos>\n",
    b"nul \0 bytes\0\0\n",
    b"\xed\xa0\x80 surrogate",
    b"\xc0\x80 \xe0\x80\x80 \xf0\x80\x80\x80 overlong",
    b"\xf4\x90\x80\x80 beyond",
    b"cut \xe8\xaa",
    b"\x80 lone",
    "wide text in sixteen bits\n".encode("utf-16"),
    "and without a mark of it\n".encode("utf-16-be"),
    b"\x1f\x8b\x08\0\0\0\0\0",
    b"%PDF-1.4\n",
    b" \t\v\f\r\n" * 9,
    b"x" * 300,
    b"\n" * 40,
    "\u00a0\u2028\u0085\x7f\x1b[2J\n".encode(),
)


def text():
    for k, t in enumerate(TEXTS):
        for rules in range(16):
            yield bytes([rules, (k * 7 + rules) % 40, 32 if k % 2 else 127, k * 5 + rules, 60 * (rules % 3)]) + t


def runfile():
    """For each base: nothing; each kind of edit on each of the first objects."""
    numbers = [struct.pack("<q", n) for n in (0, 1, -1, 2**31, 2**63 - 1)]
    reals = [struct.pack("<d", x) for x in (0.0, -1.0, float("nan"), float("inf"), 1e308)]
    for base in range(3):
        yield bytes([base])
        yield bytes([3 + base])
        base += 6
        for k in range(60):
            yield bytes([base, 1, k, k % 40]) + numbers[k % 5] + bytes([2, k, k + 1]) + reals[k % 5]
            if k % 3 == base % 3:
                yield bytes([base, 3, k, k, 4]) + b"lstm" + bytes([0, k, k])
                yield bytes([base, 5, k, k % 3, k % 2]) + reals[k % 5] + bytes([9, k + 1])
                yield bytes([base, 8, k, k, 2, k, k % 7, 253 if k % 4 else 5, 10, k, k + 1, 0])
    yield bytes.fromhex("630805050205 05fd 0505fd0a")  # a dataset of 2^32 chunks, and a value of it


def word(data):
    return '"' + "".join(f"\\x{b:02x}" for b in data) + '"\n'


def main():
    unroll, folder = sys.argv[1:]
    seeds = {
        "options": [b"".join(w.encode() + b"\0" for w in line) for line in options(unroll)],
        "text": list(text()),
        "runfile": list(runfile()),
    }
    words = {
        "options": [n.encode() for n in names(unroll)] + [b"\0", b"=", b"1e6", b"90s", b"nan", b"0x1p-3", b"no", b"yes"],
        "text": [b"\xef\xbb\xbf", b"<unk>", b"<eos>", b"\r\n", b"\n\n", b"\xed\xa0\x80", "Ä".encode(), "\u8a9e".encode()],
        "runfile": [b"lstm", b"gru", b"mingru", b"adam", b"word", b"byte", b"\\x00", b"\\xZZ", b"<unk>", b"\x00\x00\x00\x00\x00\x00\xf8\x7f"],
    }
    for name, all_of_it in seeds.items():
        os.makedirs(os.path.join(folder, name))
        for k, data in enumerate(all_of_it):
            with open(os.path.join(folder, name, f"{k:04}"), "wb") as f:
                f.write(data)
        with open(os.path.join(folder, name + ".dict"), "w", encoding="ascii") as f:
            f.writelines(word(data) for data in words[name])


if __name__ == "__main__":
    main()
