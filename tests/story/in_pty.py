"""Run a command as on a terminal, copy what it prints to standard output, byte for byte, and end with its status.

in_pty.py [--out-to FILE] COMMAND...    only standard error is the terminal then
"""
import os
import pty
import subprocess
import sys
import tty

words = sys.argv[1:]
output = None
if words[0] == "--out-to":
    output = open(words[1], "wb")
    words = words[2:]
master, slave = pty.openpty()
tty.setraw(slave)  # else a newline comes out as two characters
process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output or slave, stderr=slave)
os.close(slave)
while True:
    try:
        piece = os.read(master, 65536)
    except OSError:  # Linux: nobody has the other end any more
        break
    if not piece:
        break
    sys.stdout.buffer.write(piece)
sys.stdout.flush()
sys.exit(process.wait())
