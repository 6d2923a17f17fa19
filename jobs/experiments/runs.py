"""Running unroll from an experiment: one call, its time, its memory, and the run file it wrote."""

import json
import os
import subprocess
import sys
import time

try:
    import h5py
    import matplotlib
    import numpy as np
except ImportError as missing:
    sys.exit(
        f"{missing}: the experiments need h5py, matplotlib and NumPy; on Debian\n"
        "  apt-get install python3-h5py python3-matplotlib python3-numpy\n"
        "and /usr/bin/python3 where another python3 stands before the system's."
    )

matplotlib.use("Agg")  # to files only: no display is needed


class Call:
    """`unroll COMMAND...`: exit status, seconds, peak memory in bytes, standard output and the last error line."""

    def __init__(self, program, *words):
        begin = time.perf_counter()
        with open(os.devnull) as nothing:
            process = subprocess.Popen(
                [program, *map(str, words)],
                stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            self.output, errors = read_both(process)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = self.status = os.waitstatus_to_exitcode(status)
        self.seconds = time.perf_counter() - begin
        self.peak_memory = usage.ru_maxrss * 1024
        said = [line for line in errors.splitlines() if line.startswith("unroll: ")]
        self.error = said[-1] if said else ""

    def or_stop(self):
        if self.status != 0:
            sys.exit(self.error or f"unroll ended with status {self.status}")
        return self

    def json(self):
        return json.loads(self.output)


def read_both(process):
    """Standard output and error of a process, without waiting for its end: wait4 is to tell its memory."""
    import threading

    errors = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    output = process.stdout.read()
    reader.join()
    return output, errors[0]


def write_scale(group, name, values, units, long_name):
    """A dimension scale, as in the run files of unroll."""
    text = isinstance(values[0], str)
    data = group.create_dataset(
        name, data=np.array(values, dtype=object if text else None),
        dtype=h5py.string_dtype() if text else None,
    )
    data.make_scale(name)
    data.attrs["units"], data.attrs["long_name"] = units, long_name
    return data


def write_table(group, name, scales, values, units, long_name):
    """A dataset over the named scales of its group."""
    data = group.create_dataset(name, data=np.asarray(values))
    for i, scale in enumerate(scales):
        data.dims[i].attach_scale(group[scale])
    data.attrs["units"], data.attrs["long_name"] = units, long_name
