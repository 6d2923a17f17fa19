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
  timeout 300 "$python" "$source_dir/tests/story/open_with_tools.py" "$name.h5" >log2 2>&1 ||
    fail "$name: $(tail -20 log2)"
  grep 'not installed' log2 >>missing
  # The hash of the weights is what h5py finds, wherever it is said.
  hash=$("$python" - "$name.h5" <<'PY'
import hashlib, h5py, sys
with h5py.File(sys.argv[1]) as file:
    weights = {}
    file["weights"].visititems(lambda name, node: weights.update({name: node[:].tobytes()} if "/" in name else {}))
    print(hashlib.sha256(b"".join(weights[name] for name in sorted(weights))).hexdigest())
PY
  )
  check "$name: the hash at the end" grep -q "^weights: SHA-256 $hash\$" log
  check "$name: in the log" grep -q "^{\"kind\": \"end\", .*\"finished\": true, \"weights_sha256\": \"$hash\"}\$" <(tail -1 "$name.jsonl")
  check "$name: of info" grep -q "^weights: SHA-256 $hash\$" <("$unroll" info "$name.h5")
  check "$name: of --verify" grep -q "^weights: SHA-256 $hash\$" <("$unroll" info --verify "$name.h5")
  check "$name: of --json" grep -q "\"weights_sha256\": \"$hash\"" <("$unroll" info --json "$name.h5")
}
train=("$unroll" train text "${tiny[@]}" --log-every 20)
opens adam "${train[@]}"
opens sgd "${train[@]}" --optimizer sgd --level word --valid-fraction 0
opens momentum mpirun -n 2 "${train[@]}" --optimizer momentum --level byte --layers 2 --diagnose-every 50
opens random "${train[@]}" --partition random --letters
opens lstm mpirun -n 2 "${train[@]}" --cell lstm --layers 2
opens gru "${train[@]}" --cell gru --optimizer momentum --layers 2
opens mingru "${train[@]}" --cell mingru --optimizer sgd --layers 2
opens embedding "${train[@]}" --embedding 7 --cell gru --layers 2 --average ema
opens tied "${train[@]}" --embedding 8 --tied --optimizer sgd --average asgd --average-from 1

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
