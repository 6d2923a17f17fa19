"""Mutants of the run files in the folder seeds, each given to `info` and to another command.

    mutate.py UNROLL COUNT SEED

Number k of them depends on SEED + k alone. It is damaged in its bytes or, with h5py, in its values; the digest at its end
stays (and is wrong), is removed (the file is then read in a child process first), or is made anew, so that HDF5 reads it
right away. What may come of it:

    refused   status 2 and one line
    failed    status 1 and one line
    result    status 0; never where the digest is wrong

Failures are all else: a signal, a report of a sanitizer, a second line, half a minute, a gigabyte. HDF5 itself crashes on some
files: in the child process that is one more clear line. Where bytes are damaged *and* the digest is right, which no
accident does, a crash in HDF5, and what it says at its end, is its own and is counted as `forged`.
"""

import concurrent.futures
import glob
import hashlib
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter

import h5py
import numpy as np

SECONDS = 90  # the child process has 60
MEMORY = 1 << 20  # [KiB]
COMMANDS = ("eval", "sample", "export", "resume")
TAIL = 117  # [bytes] of the digest's line, src/runfile/digest.h


def digest(data):
    return b"\nunroll-digest sha256 %s of %020d bytes\n" % (hashlib.sha256(data).hexdigest().encode(), len(data))


# ------------------------------------------------------------------ of bytes


def damage(rng, data):
    """What disks, transfers and bad memory do."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data))
        n = min(rng.choice((1, 2, 4, 8, 64, 512, 4096)), len(data) - at)
        what = rng.randrange(8)
        if what <= 2:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 3:
            data[at : at + n] = rng.randbytes(n)
        elif what == 4:
            data[at : at + n] = bytes([rng.choice((0, 255))]) * n
        elif what == 5:
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice((0, 1, -1, 1 << 8 * size - 1, (1 << 8 * size - 1) - 1, at, len(data))) % (1 << 8 * size)
            data[at : at + size] = struct.pack("<Q", value)[:size]
        elif what == 6:
            other = rng.randrange(len(data))
            data[at : at + n] = data[other : other + n]
        elif rng.random() < 0.5:
            del data[at : at + n]
        else:
            data[at:at] = rng.randbytes(n)
        if not data:
            data = bytearray(b"\0")
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


# ------------------------------------------------------------------ of values


def strange(rng, value, another=0.15):
    """A value of the same kind that is hardly legal, or of another kind with that probability."""
    numbers = (0, 1, -1, 2, 3, 255, 65536, 65537, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63))
    texts = (b"", b"x", b"rnn", b"lstm", b"\xff\xfe", b"\x1b[2J", b"0", b"1e400", b"-1", b"nan", b"\xed\xa0\x80", b"y" * 5000, b"yes", b"500q")
    kind = np.asarray(value).dtype.kind
    if rng.random() < another:
        kind = rng.choice("ifS")
    if kind in "iu":
        number = rng.choice(numbers)
        return np.int64(number) if rng.random() < 0.5 else np.array(number & 0xFFFFFFFF, np.uint32).astype(rng.choice((np.int32, np.uint32)))[()]
    if kind == "f":
        return np.float64(rng.choice((np.nan, np.inf, -np.inf, 0, -0.0, -1, 1e-320, 1e308, 0.5, 2)))
    return np.bytes_(rng.choice(texts) or b" ")


def visit(file):
    found = []
    file.visit(found.append)
    return found


def change(rng, path):
    """What other tools do, or whoever wishes ill."""
    with h5py.File(path, "r+") as file:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            name = rng.choice(visit(file) + ["/"] * 4 + ["/config"] * 12 + ["/state"] * 4)
            if name not in file:
                continue
            node = file[name]
            if isinstance(node, h5py.Group) or rng.random() < 0.2:
                names = list(node.attrs)
                if not names:
                    continue
                attribute = rng.choice(names)
                try:
                    old = node.attrs[attribute]
                    del node.attrs[attribute]
                    if rng.random() < 0.85:
                        node.attrs[attribute] = strange(rng, old)
                except (OSError, TypeError, KeyError, RuntimeError):
                    pass
                continue
            change_dataset(rng, file, name, node)


def change_dataset(rng, file, name, node):
    value = node[...]
    what = rng.randrange(9)
    if what <= 2 and value.size > 0 and node.dtype.kind in "iuf":
        flat = value.reshape(-1)
        for _ in range(rng.choice((1, 1, 3, flat.size))):
            with np.errstate(all="ignore"):
                flat[rng.randrange(flat.size)] = strange(rng, flat, 0).astype(flat.dtype)
        node[...] = value
        return
    if what <= 2 and value.size > 0:
        flat = value.reshape(-1)
        flat[rng.randrange(flat.size)] = rng.choice((b"", b"a", b"\\x", b"\\xZZ", b"\xff", b"\\x00", b"<unk>", b"<eos>", flat[0], b"y" * 100000))
        node[...] = value
        return
    attributes = {}
    for attribute in list(node.attrs):
        if attribute not in ("DIMENSION_LIST", "REFERENCE_LIST"):
            attributes[attribute] = node.attrs[attribute]
    try:
        del file[name]
    except KeyError:
        return
    shape = list(value.shape)
    if what == 3:
        return
    if what == 4 and shape:
        i = rng.randrange(len(shape))
        shape[i] = max(0, shape[i] + rng.choice((-1, 1, -shape[i], 1000)))
        made = file.create_dataset(name, shape, node_type(value))
    elif what == 5:
        made = file.create_dataset(name, (7,) * rng.randrange(5), rng.choice(("f4", "f8", "i1", "i8", "S3", "V5", "f2")))
    elif what == 6 and shape:
        made = file.create_dataset(name, shape, node_type(value), chunks=tuple(max(1, n) for n in shape), compression="gzip")
        made[...] = value
    elif what == 7:
        file[name] = rng.choice((h5py.SoftLink("/" + name), h5py.SoftLink("/"), h5py.SoftLink("/nothing"), h5py.ExternalLink("x.h5", "/")))
        return
    elif what == 8 and shape and value.dtype.kind in "iuf":
        made = file.create_dataset(name, [n * 1000003 for n in shape], value.dtype, chunks=(1,) * len(shape))
    else:
        file.create_group(name)
        return
    for attribute, old in attributes.items():
        try:
            made.attrs[attribute] = old
        except (OSError, TypeError, RuntimeError):
            pass


def node_type(value):
    return h5py.string_dtype() if value.dtype == object else value.dtype


# ------------------------------------------------------------------- mutants


def make(seed, seeds, path):
    """A mutant; its kind, `bytes` or `values` and what became of the digest."""
    rng = random.Random(seed)
    parent = rng.choice(seeds)
    with open(parent, "rb") as f:
        data = f.read()
    if rng.random() < 0.4:
        shutil.copy(parent, path)
        change(rng, path)
        kind = "values"
        with open(path, "rb") as f:
            data = f.read()
        if data[-TAIL:].startswith(b"\nunroll-digest "):
            data = data[:-TAIL]
        fate = rng.choice(("removed", "anew"))
    else:
        kind = "bytes"
        fate = rng.choice(("wrong", "removed", "removed", "removed", "anew"))
        whole = data if fate == "wrong" else data[:-TAIL]
        data = whole
        while data == whole:
            data = damage(rng, whole)
        if b"\nunroll-digest " not in data[-2 * TAIL :] and fate == "wrong":
            fate = "removed"
    if fate == "anew":
        data += digest(data)
    with open(path, "wb") as f:
        f.write(data)
    return f"{kind}, digest {fate}", rng.choice(COMMANDS), os.path.basename(parent)


def command(unroll, what, path):
    text = "../small"
    return {
        "info": [unroll, "info", path],
        "eval": [unroll, "eval", path, text],
        "sample": [unroll, "sample", path, "--length", "5"],
        "export": [unroll, "export", path, "--safetensors", "s", "--csv", "c", "--overwrite"],
        "resume": [unroll, "train", text, "--resume", "-o", path, "--max-steps", "11"],
    }[what]


# -------------------------------------------------------------------- verdict


def reports(folder):
    """Of sanitizers: where each comes from, the first frame that is not the sanitizer's own."""
    found = []
    for name in glob.glob(os.path.join(folder, "report.*")):
        with open(name, errors="replace") as f:
            text = f.read()
        os.remove(name)
        frames = re.findall(r"^ *#\d+ 0x[0-9a-f]+ (.*)$", text, re.M)
        frames = [frame for frame in frames if not re.search(r"lib[aulct]+san|sanitizer_common|libc\.so", frame)]
        found.append((int(name.rsplit(".", 1)[-1]), frames[0] if frames else text[:300]))
    return found


def run(arguments, folder):
    """Status, lines on standard error, KiB, seconds, process."""
    environment = dict(os.environ, TMPDIR=os.path.abspath(folder))  # or two MPI that start at once may meet
    with open(os.path.join(folder, "err"), "wb") as err:
        begin = time.monotonic()
        process = subprocess.Popen(arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err, start_new_session=True)
        stop = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        stop.start()
        _, status, usage = os.wait4(process.pid, 0)
        stop.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    with open(os.path.join(folder, "err"), "rb") as f:
        lines = f.read().decode(errors="replace").splitlines()
    return process.returncode, lines, usage.ru_maxrss, time.monotonic() - begin, process.pid


def judge(kind, what, status, lines, kib, seconds, pid, found):
    """Outcome, and what is wrong with it, if anything."""
    errors = [line for line in lines if line.startswith("unroll: error: ")]
    others = [line for line in lines if not line.startswith(("unroll: error: ", "unroll: warning: "))]
    in_hdf5 = [frame for _, frame in found if "libhdf5" in frame]
    forged = kind == "bytes, digest anew"
    if len(in_hdf5) < len(found):
        return "fault", f"a report: {found}"
    if seconds >= SECONDS:
        return ("forged", None) if forged else ("fault", "it hangs")
    if status < 0 or any(process == pid for process, _ in found) or "HDF5: infinite loop closing library" in lines:
        return ("forged", None) if forged else ("fault", f"status {status}, {found}, {lines[-5:]}")
    if kib > MEMORY:
        return ("forged", None) if forged else ("fault", f"{kib} KiB of memory")
    if status == 0 and not errors and (what == "resume" or not others):
        return "result", "in spite of a wrong digest" if "wrong" in kind else None
    if status in (1, 2) and len(errors) == 1 and errors[0].strip() != "unroll: error:" and (what == "resume" or not others):
        died = "HDF5 crashes on it" in errors[0]
        return "crash of HDF5 told" if died else "refused" if status == 2 else "failed", None
    return "fault", f"status {status}: {lines[-5:]}"


def work(unroll, seed, seeds, folder):
    os.makedirs(folder, exist_ok=True)
    path = "run.h5"
    kind, another, parent = make(seed, seeds, os.path.join(folder, path))
    shutil.copy(os.path.join(folder, path), os.path.join(folder, "kept"))
    outcomes = []
    for what in ("info", another):
        shutil.copy(os.path.join(folder, "kept"), os.path.join(folder, path))
        for name in ("run.jsonl", "run.best.h5", ".run.claim"):
            if os.path.exists(os.path.join(folder, name)):
                os.remove(os.path.join(folder, name))
        status, lines, kib, seconds, pid = run(command(unroll, what, path), folder)
        outcome, wrong = judge(kind, what, status, lines, kib, seconds, pid, reports(folder))
        outcomes.append((kind, what, outcome, wrong and f"seed {seed}: {parent}, {kind}, {what}: {wrong}"))
    return outcomes


def main():
    unroll, count, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    seeds = sorted(os.path.abspath(path) for path in glob.glob("seeds/*.h5"))
    options = "log_path=report:abort_on_error=1:halt_on_error=1:print_stacktrace=1:allocator_may_return_null=1:detect_leaks=0"
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
        os.environ[name] = ":".join(filter(None, (os.environ.get(name), options)))
    counts, commands, wrong = Counter(), Counter(), []
    free = [f"mutants{k}" for k in range(2)]

    def one(seed):
        folder = free.pop()
        try:
            return work(unroll, seed, seeds, folder)
        finally:
            free.append(folder)

    with concurrent.futures.ThreadPoolExecutor(len(free)) as pool:
        for outcomes in pool.map(one, range(first, first + count)):
            for kind, what, outcome, problem in outcomes:
                counts[kind, outcome] += 1
                commands[what] += 1
                wrong += [problem] if problem else []
    for (kind, outcome), n in sorted(counts.items()):
        print(f"{kind}: {outcome} {n}")
    print(f"{count} mutants; runs of {', '.join(f'{what} {n}' for what, n in sorted(commands.items()))}; {len(wrong)} faults")
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
