"""Hold the figures of jobs/plot against what a reader needs: no panel without data, words as labels, lines in their
bands, a colour for each of several runs.

    plot.py PLOT FILE...           one figure of all files
"""

import importlib.machinery
import importlib.util
import re
import sys

import h5py
import numpy as np

sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("plot", sys.argv[1])
plot = importlib.util.module_from_spec(importlib.util.spec_from_loader("plot", loader))
loader.exec_module(plot)
from matplotlib.colors import to_hex  # noqa: E402 (after the choice of the back end)

names = sys.argv[2:]
figure = plot.draw([h5py.File(name, "r") for name in names], names)
bad = []


def check(good, what):
    if not good:
        bad.append(what)


def is_data(line):
    """A curve, not a line across the panel or the unit circle."""
    return len(line.get_xdata()) > 0 and line.get_color() != "gray"


check(len(figure.axes) > 0, "a figure has panels")
for k, axes in enumerate(figure.axes):
    lines = [line for line in axes.lines if is_data(line)]
    check(lines, f"panel {k} has curves")
    for line in lines:
        drawn = np.asarray(line.get_ydata(), float)
        check(np.isfinite(drawn).any(), f"panel {k}: {line.get_label()} has values")
        check(len(drawn) > 1 or line.get_marker() != "None", f"panel {k}: {line.get_label()} can be seen")
    texts = [axes.get_xlabel(), axes.get_ylabel()]
    check(all(texts), f"panel {k} has labels")
    legend = axes.get_legend()
    shown = [text.get_text() for text in legend.get_texts()] if legend else []
    for text in texts + shown:
        words = text.replace("W_hh", "").replace("\n", " ")
        check(not re.search(r"[_{}|\\$]", words), f"panel {k}: {text!r} is words")
    check(len(shown) == len(set(shown)), f"panel {k}: each entry of the legend once: {shown}")

    # a band belongs to the line of its colour, which is solid
    for band in axes.collections:
        colour = to_hex(band.get_facecolor()[0])
        (line,) = [line for line in lines if to_hex(line.get_color()) == colour and line.get_linestyle() == "-"]
        corners = band.get_paths()[0].vertices
        for x, y in zip(*line.get_data()):
            of_lag = corners[np.isclose(corners[:, 0], x), 1]
            if np.isfinite(y) and len(of_lag) > 0:
                check(of_lag.min() * 0.999 <= y <= of_lag.max() * 1.001, f"panel {k}: {line.get_label()} at {x} is in its band")

if len(names) > 1:
    for k, name in enumerate(plot.run_names(names)):
        own = {to_hex(line.get_color()) for axes in figure.axes for line in axes.lines if str(line.get_label()).split(",")[0] == name}
        check(own <= {to_hex(f"C{k}")}, f"{name} has one colour in all panels: {own}")

print(len(figure.axes), "panels")
sys.exit("\n".join(bad) or 0)
