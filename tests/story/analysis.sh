# jobs/analysis: run files in NumPy, PyTorch, xarray and pandas, Octave and R say what unroll says. What is not installed is
# left out, and named at the end.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no python3 with h5py and NumPy"
analysis=$source_dir/jobs/analysis
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1

# with MODULE...: to $other the first python3 that has them
with() {
  local modules=$*
  for other in python3 /usr/bin/python3; do
    if "$other" -c "import ${modules// /, }" 2>/dev/null; then return 0; fi
  done
  echo "not installed: $*" >>missing
  return 1
}

make_text 9000 | sed 's/stone/Straße/g; s/river/語り/g' >text
train() { quiet 0 "$unroll" train text -o "$1.h5" --batch 6 --steps 16 --lr 1e-2 --log-every 20 "${@:2}"; }
check "training" train rnn --hidden 20 --epochs 3 --activation relu
check "training" train lstm --hidden 16 --epochs 2 --cell lstm --level word --layers 2
check "training" train gru --hidden 16 --epochs 2 --cell gru --level byte
check "training" train mingru --hidden 16 --epochs 2 --cell mingru --layers 2
check "training" train embedding --hidden 16 --epochs 2 --cell gru --embedding 9 --average ema --level bpe --vocab-size 290
check "training" train tied --hidden 16 --epochs 2 --cell lstm --embedding 16 --tied --average asgd
check "training" train skip --hidden 16 --epochs 2 --cell gru --layers 3 --skip

# The likeliest text. Before a word there is a space, at the beginning of a line too.
same_text() {
  "$unroll" sample "$1.h5" --temperature 0 --length 50 --prime "$2" >expected
  "$python" "$analysis/load_numpy.py" "$1.h5" --length 50 --prime "$2" >got
  if [ "$1" = lstm ]; then sed -i 's/^ //; s/  / /g' got expected; fi
  cmp expected got
}
for run in rnn lstm gru mingru embedding tied skip; do
  check "load_numpy.py, $run" same_text $run ""
  check "load_numpy.py, $run, a prime" same_text $run "the gate
turns "
done
check "load_numpy.py, drawn" quiet 0 "$python" "$analysis/load_numpy.py" rnn.h5 --temperature 1 --length 30
check "some text" [ "$(wc -m <out)" = 31 ]

loss_of() { "$unroll" eval --json "$1.h5" "$2" | sed -n 's/.*"loss": \([0-9.]*\),/\1/p'; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > 0 && a - b < 2e-6 && b - a < 2e-6) }'; }
head -n 40 text >few
for run in rnn lstm gru mingru embedding tied; do
  got=$(PYTHONPATH=$analysis "$python" - $run.h5 <<'PY'
import sys
import numpy as np
from load_numpy import Model
model = Model(sys.argv[1])
tokens = model.encode(open("few", encoding="utf-8", newline="").read())
state, nats = model.start(), 0.0
for token, following in zip(tokens, tokens[1:]):
    o, state = model.step(token, state)
    nats += np.log(np.exp(o.astype(float)).sum()) - o[following]
print(f"{nats / (len(tokens) - 1):.7f}")
PY
)
  check "load_numpy.py, $run: loss $got" near "$got" "$(loss_of $run few)"
done
if with h5py torch; then
  for run in rnn lstm gru mingru embedding tied; do
    got=$("$other" "$analysis/load_torch.py" "$run.h5" text | sed -n 's/.*loss \([0-9.]*\) .*/\1/p')
    check "load_torch.py, $run: loss $got" near "$got" "$(loss_of $run text)"
  done
fi

# The tables: the best first, with its validation loss, as unroll compare has it.
"$unroll" compare --json rnn.h5 gru.h5 mingru.h5 >compared
"$python" - >expected <<'PY'
import json
runs = json.load(open("compared"))["runs"]
for run in sorted(runs, key=lambda run: run["best_loss"]):
    print(run["file"], f"{run['best_loss']:.5f}", run["best_step"])
PY
check "a ranking" [ "$(wc -l <expected)" = 3 ]
# table: the rows of `out` in that form; the columns of run, loss and step are given
table() { awk -v r="$1" -v l="$2" -v s="$3" '$r ~ /[.]h5$/ { printf "%s %.5f %d\n", $r, $l, $s }' out | diff expected -; }

if with xarray pandas matplotlib; then
  check "curves.py" quiet 0 "$other" "$analysis/curves.py" rnn.h5 gru.h5 mingru.h5 --csv all.csv
  check "its table" table 1 2 3
  check "its picture" [ -s curves.png ]
  check "its rows" "$python" - <<'PY'
import csv
import h5py
rows = list(csv.DictReader(open("all.csv")))
for name in ("rnn.h5", "gru.h5", "mingru.h5"):
    with h5py.File(name) as run:
        for kind in ("train", "valid"):
            mine = [row for row in rows if (row["run"], row["kind"]) == (name, kind)]
            assert [float(row["loss"]) for row in mine] == list(run["metrics"][kind]["loss"]), (name, kind)
            assert [int(row["step"]) for row in mine] == list(run["metrics"][kind]["step"]), (name, kind)
            assert {row["cell"] for row in mine} == {run["config"].attrs["cell"].decode()}
            assert {int(row["hidden"]) for row in mine} == {run["config"].attrs["hidden"]}
PY
fi

if Rscript -e 'library(rhdf5)' >/dev/null 2>&1; then
  check "curves.R" quiet 0 Rscript "$analysis/curves.R" rnn.h5 gru.h5 mingru.h5
  check "its table" table 1 2 3
  check "its picture" [ -s curves.pdf ]
else
  echo "not installed: R with rhdf5" >>missing
fi

if octave-cli --eval 'pkg load netcdf' >/dev/null 2>&1; then
  check "curves.m" quiet 0 octave-cli "$analysis/curves.m" rnn.h5 gru.h5 mingru.h5
  check "its table" table 1 4 7
  quiet 0 "$unroll" export lstm.h5 --safetensors lstm.safetensors
  cat >read.m <<'M'
1; # a script
function show (run)
  printf ("%s|", run.vocab.token{:});
  printf ("\n%s %d %s\n", run.config.cell, run.config.hidden, run.provenance.version);
  printf ("%.9g ", run.weights.layer0.W_xh(2, :), run.metrics.train.loss, run.state.step);
  printf ("\n");
endfunction
show (read_run ("rnn.h5"));
show (read_run ("gru.h5"));
show (read_run ("lstm.h5", "lstm.safetensors"));
M
  check "read_run.m" quiet 0 octave-cli --path "$analysis" read.m
  check "reads what h5py reads" "$python" - out <<'PY'
import sys
import h5py
import numpy as np
with open(sys.argv[1], "rb") as f:
    text = f.read()
for name in ("rnn.h5", "gru.h5", "lstm.h5"):
    with h5py.File(name) as run:
        level, code, token = run["config"].attrs["level"], run["vocab/code"][:], run["vocab/token"].asstr()[:]
        spelt = [bytes([c]) if level == b"byte" else chr(c).encode() if c >= 0 else t.encode() for c, t in zip(code, token)]
        head = b"".join(s + b"|" for s in spelt) + b"\n"
        assert text.startswith(head), (name, text[:300], head[:300])
        line, numbers, text = text[len(head):].split(b"\n", 2)
        config = run["config"].attrs
        expected = [config["cell"].decode(), str(config["hidden"]), run["provenance"].attrs["version"].decode()]
        assert line.decode().split() == expected, line
        values = [*run["weights/layer0/W_xh"][1], *run["metrics/train/loss"], run["state"].attrs["step"]]
        assert np.allclose(np.array(numbers.split(), float), values, rtol=1e-7), name
PY
else
  echo "not installed: Octave with octave-netcdf" >>missing
fi

if [ -f missing ]; then cat missing; fi
finish
