"""unroll watch on a terminal, while the logs change: watch.py UNROLL LOG, of a run that has finished."""
import atexit
import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

unroll, log = sys.argv[1:]
lines = open(log, "rb").readlines()
trains = [i for i, line in enumerate(lines) if b'"train"' in line]
bad_name = "a\x1b[31m\x07\u009b5m.h5"


running = set()


@atexit.register
def end_all():
    for process in running:
        os.kill(process, signal.SIGKILL)


class Terminal:
    """What stands on the screen, of the sequences that unroll uses; any other is an error."""

    def __init__(self, words, height, width):
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.resize(height, width)
        self.process = os.fork()
        if self.process == 0:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for fd in range(3):
                os.dup2(slave, fd)
            os.execve(words[0], words, {**os.environ, "TERM": "xterm"})
        running.add(self.process)
        self.slave, self.alternate, self.modes, self.rest = slave, False, {"25": True, "7": True}, ""
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def resize(self, height, width):
        self.height, self.width = height, width
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.clear()

    def clear(self):
        self.cells, self.x, self.y = [[" "] * self.width for _ in range(self.height)], 0, 0

    def obey(self, code):
        mode = re.fullmatch(r"\?(\d+)([hl])", code)
        place = re.fullmatch(r"(\d+);1H", code)
        if code == "2J":
            self.cells = [[" "] * self.width for _ in range(self.height)]
        elif code == "K":
            self.cells[self.y][self.x :] = [" "] * (self.width - self.x)
        elif place:
            self.x, self.y = 0, min(int(place[1]), self.height) - 1  # a page of the size before
        elif mode and mode[1] == "1049":
            self.alternate = mode[2] == "h"
        elif mode and mode[1] in self.modes:
            self.modes[mode[1]] = mode[2] == "h"
        else:
            raise AssertionError(f"a sequence of its own: {code!r}")

    def write(self, text):
        for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|.", text, re.S):
            if piece[0] == "\x1b" and len(piece) > 1:
                self.obey(piece[2:])
            elif not self.alternate:
                assert piece in "\r\n" or piece >= " ", repr(piece)
            else:
                assert " " <= piece < "\x7f" or piece >= "\xa0", repr(piece)
                self.cells[self.y][min(self.x, self.width - 1)] = piece
                assert self.modes["7"] is False
                self.x = min(self.x + 1, self.width)

    def read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return
        self.rest += self.decoder.decode(os.read(self.master, 65536))
        begun = re.search(r"\x1b(\[[?0-9;]*)?$", self.rest)
        whole = begun.start() if begun else len(self.rest)
        self.write(self.rest[:whole])
        self.rest = self.rest[whole:]

    def shown(self):
        return "\n".join("".join(row).rstrip() for row in self.cells)

    def until(self, what, pattern, seconds=60):
        """Wait until a page has it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.1)
            if re.search(pattern, self.shown(), re.M):
                return
        raise AssertionError(f"{what}: no {pattern!r} in\n{self.shown()}")

    def gone(self, what, read):
        """The status with which it ends."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            read(0.05)
            pid, status = os.waitpid(self.process, os.WNOHANG)
            if pid:
                running.remove(pid)
                return status
        raise AssertionError(f"{what}: it does not end")

    def ends(self, what):
        status = self.gone(what, self.read)
        assert status == 0, (what, status)
        while select.select([self.master], [], [], 0.1)[0]:
            self.read(0)
        assert self.rest == "", self.rest
        assert not self.alternate and self.modes == {"25": True, "7": True}, (what, self.alternate, self.modes)
        assert termios.tcgetattr(self.slave) == self.before, f"{what}: the terminal is not as it was"


def put(name, content, mode="wb"):
    with open(name, mode) as f:
        f.write(content)


def step(i):
    return re.search(rb'"step": (\d+)', lines[trains[i]])[1].decode()


steps = re.search(rb'"steps": (\d+)', lines[trains[0]])[1].decode()

# ------------------------------------------------------- a log that changes
t = Terminal([unroll, "watch", "grows.h5", bad_name], 30, 100)
t.until("before it begins", r"^grows\.h5 +no log yet  a\?\[31m\?\?5m\.h5 +no log yet$")
put("grows.jsonl", b"")
t.until("it begins", r"^grows\.h5 +no report yet")
first = b"".join(lines[: trains[9] + 1])
put("grows.jsonl", first, "ab")
t.until("reports", rf"^step {step(9)}/{steps}  \S+ tok/s  left \d+s")
assert re.search(r"^grows\.h5 +running  ", t.shown(), re.M), t.shown()
line = lines[trains[10]]
between = b"".join(lines[trains[9] + 1 : trains[10]])
put("grows.jsonl", between + line[:-20], "ab")
put(bad_name[:-3] + ".jsonl", lines[trains[0]])
t.until("another one", rf"step {step(0)}/{steps}")  # and so the half line was seen
assert re.search(rf"^step {step(9)}/", t.shown(), re.M), f"half a line is none yet\n{t.shown()}"
put("grows.jsonl", line[-20:], "ab")
t.until("the other half", rf"^step {step(10)}/")
put("grows.jsonl", b"".join(lines[: trains[4] + 1]))
t.until("cut back", rf"^step {step(4)}/")
other = b'{"kind": "valid", "step": 1, "loss": 0.5}\n' + b"".join(lines[: trains[15] + 1]).replace(b'"tokens_per_second": ', b'"tokens_per_second": 9')
put("grows.jsonl", other)
t.until("cut back and gone on further than before", rf"^step {step(15)}/.* 9")
assert "best 0.5000" in t.shown(), f"it is read from its beginning\n{t.shown()}"
assert t.shown().count("│") > 2 * 10 - 2, t.shown()
os.remove("grows.jsonl")
t.until("removed", r"^grows\.h5 +its log is gone")
put("grows.jsonl", b"".join(lines))
t.until("the end", r"^grows\.h5 +finished")
t.resize(12, 30)
t.until("a small window", r"^grows\.h5 .*finished")
assert not re.search("│", t.shown()), "two panels do not fit"
for height, width, what in (40, 7, "grows.h"), (1, 1, "a"), (2, 300, "run  .*left\nand 2 more"):
    t.resize(height, width)
    t.until("an odd one", f"^{what}$")
t.resize(20, 44)
t.until("a larger one", r"│.*[\u2801-\u28ff]")
os.write(t.master, b"q")
t.ends("q")

# --------------------------------------------------- other ways to end
for what, end in (("^C", lambda t: os.write(t.master, b"\x03")), ("SIGTERM", lambda t: os.kill(t.process, signal.SIGTERM))):
    t = Terminal([unroll, "watch", log], 24, 80)
    t.until(what, "finished")
    assert not termios.tcgetattr(t.slave)[3] & termios.ECHO, "keys are not shown"
    end(t)
    t.ends(what)

t = Terminal([unroll, "watch", log], 24, 80)
t.until("a terminal", "finished")
os.close(t.slave)
os.close(t.master)
t.gone("a terminal that goes away", time.sleep)
