# Other tools open what training writes: h5py, h5dump and, where they are installed, ncdump, xarray,
# netCDF4 and h5wasm. One small run for each optimizer and level, one of them with two layers on two ranks.
. "$(dirname "$0")/lib.sh"
python=$(find_python) || skip "no python3 with h5py and NumPy"

make_text 20000 >text
opens() { # NAME LAUNCHER... : train with the rest, then hold the file against the schema
  local name=$1
  shift
  "$@" -o "$name.h5" >log 2>&1 || fail "$name: training: $(tail -3 log)"
  checks=$((checks + 1))
  timeout 300 "$python" "$source_dir/tests/story/open_with_tools.py" "$name.h5" >log 2>&1 ||
    fail "$name: $(tail -20 log)"
  grep 'not installed' log >>missing
}
train=("$unroll" train text "${tiny[@]}" --log-every 20)
opens adam "${train[@]}"
opens sgd "${train[@]}" --optimizer sgd --level word --valid-fraction 0
opens momentum mpirun -n 2 "${train[@]}" --optimizer momentum --level byte --layers 2 --diagnose-every 50
opens random "${train[@]}" --partition random --letters
opens lstm mpirun -n 2 "${train[@]}" --cell lstm --layers 2
opens gru "${train[@]}" --cell gru --optimizer momentum --layers 2
opens mingru "${train[@]}" --cell mingru --optimizer sgd --layers 2

# The log beside the file says the same as the file, and is JSON.
"$python" - <<'PY' || fail "run.jsonl and /metrics differ"
import h5py, json
rows = [json.loads(line) for line in open("adam.jsonl")]
with h5py.File("adam.h5") as file:
    for kind in ("train", "valid"):
        group = file["metrics"][kind]
        mine = [row for row in rows if row["kind"] == kind]
        assert len(mine) == len(group["step"]) > 0
        for name in group:
            assert [row[name] for row in mine] == list(group[name][...]), name
PY
sort -u missing # what was left out
finish
