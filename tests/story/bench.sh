#!/bin/bash
# `unroll bench` as users run it: the table, the JSON object, names, sizes, ranks, mistakes.
#
#   bench.sh SOURCE PROGRAM
. "$(dirname "$0")/lib.sh"

run() { # expected status, arguments...; leaves out and err
  local expected=$1
  shift
  "$@" >out 2>err
  local status=$?
  check "status $status of: $*" [ $status -eq "$expected" ]
}

# ---------------------------------------------------------------- the table
run 0 "$unroll" bench --seconds 0.05 d2l char128
check "a line for each name and table" [ "$(grep -c '^d2l ' out)" -eq 2 ]
check "the header has units" grep -q 'tokens/s .*GFLOP/s .*step ms' out
check "the sizes of d2l" grep -Eq '^d2l +28 +32 +32 +1024 +1 ' out
check "the sizes of char128" grep -Eq '^char128 +65 +128 +50 +50 +1 +rnn ' out
check "the caches" grep -Eq '^caches: L1d [0-9]+ KiB, L2 [0-9]+ KiB, L3 [0-9]+ KiB$' out
widths=$(awk 'NR <= 3 {print length($0)}' out | sort -u | wc -l)
check "lines are aligned" [ "$widths" -eq 1 ]
run 0 "$unroll" bench --seconds 0.01 lstm128 gru128 lstm512 gru512 mingru512
check "the sizes of lstm128" grep -Eq '^lstm128 +65 +128 +50 +50 +1 +lstm ' out
check "the sizes of gru128" grep -Eq '^gru128 +65 +128 +50 +50 +1 +gru ' out
check "the sizes of lstm512" grep -Eq '^lstm512 +65 +512 +64 +64 +1 +lstm ' out
check "the sizes of gru512" grep -Eq '^gru512 +65 +512 +64 +64 +1 +gru ' out
check "the sizes of mingru512" grep -Eq '^mingru512 +65 +512 +64 +64 +1 +mingru ' out
run 0 "$unroll" bench --seconds 0.01 --cell gru --hidden 8
check "a cell is for one configuration" grep -Eq '^custom +65 +8 +64 +64 +1 +gru ' out
run 0 env UNROLL_CACHES=1536,512K,32M "$unroll" bench --seconds 0.01 --hidden 8
check "the caches of the environment" grep -Fxq 'caches: L1d 1.5 KiB, L2 512 KiB, L3 32768 KiB' out
check "and the blocks that follow them" grep -Fxq 'blocks: panel 32 KiB, block 128 KiB, whole 256 KiB' out

# ----------------------------------------------------------------- mistakes
run 2 "$unroll" bench d3l
check "the legal names are told" grep -q 'd2l, char128, .*word650' err
run 2 "$unroll" bench --hidden 32 d2l
check "a name and sizes" grep -q 'legal is one' err
run 2 "$unroll" bench --cell lstm char128
check "a name and a cell" grep -q 'legal is one' err
run 2 env UNROLL_CACHES=32K,512K mpirun -n 2 "$unroll" bench --hidden 8
check "caches that are none" [ "$(grep -c 'UNROLL_CACHES=32K,512K: legal are three sizes' err)" -eq 1 ]
run 2 "$unroll" bench --batch 6 --shards 4
check "shards that do not divide" grep -q -- '--shards 4' err
run 2 "$unroll" bench --seconds 0
run 2 mpirun -n 2 "$unroll" bench --batch 7 --hidden 8
check "ranks that cannot share" grep -q '2 ranks cannot share 1 shards' err

# What nobody asked for by name is left out where it does not fit.
run 0 env OMP_NUM_THREADS=1 mpirun -n 8 "$unroll" bench --seconds 0.01
for name in char128 word200 word650 lstm128 gru128 wordlstm650; do
  check "$name is left out" grep -q "^left out: $name: 8 ranks cannot share" err
  check "$name is in no table" [ "$(grep -c "^$name " out)" -eq 0 ]
done
for name in d2l char512 char1024 lstm512 gru512 mingru512; do
  check "$name is measured" [ "$(grep -c "^$name " out)" -eq 2 ]
done

# --------------------------------------------------------------------- JSON
if ! command -v python3 >/dev/null; then
  echo "not checked: the JSON object (no python3)"
  finish
fi
sizes=(--vocab 50 --hidden 48 --steps 10 --batch 32 --layers 2 --seconds 0.1)
run 0 env OMP_NUM_THREADS=2 "$unroll" bench --json "${sizes[@]}"
mv out one.json
run 0 env OMP_NUM_THREADS=1 mpirun -n 2 "$unroll" bench --json "${sizes[@]}"
mv out two.json
python3 - <<'PYTHON'
import json
import math

KEYS = """name vocab hidden steps batch layers cell ranks threads shards updates tokens_per_second gflops
    peak_gflops fraction_of_peak step_seconds forward_seconds output_seconds backward_seconds
    exchange_seconds wait_seconds norm_seconds update_seconds other_seconds exchange_bytes
    exchange_bandwidth exchange_hidden peak_memory loss""".split()
for name, ranks, threads in (("one", 1, 2), ("two", 2, 1)):
    with open(f"{name}.json", encoding="utf-8") as f:
        report = json.load(f)
    assert list(report) == ["version", "revision", "cpu", "kernels", "caches", "blocks", "configurations"], list(report)
    assert list(report["blocks"]) == ["panel", "block", "whole"] and min(report["blocks"].values()) > 0, report["blocks"]
    assert list(report["caches"]) == ["l1d", "l2", "l3"] and min(report["caches"].values()) > 0, report["caches"]
    (r,) = report["configurations"]
    assert list(r) == KEYS, list(r)
    assert (r["name"], r["vocab"], r["hidden"], r["steps"], r["batch"], r["layers"], r["cell"]) == ("custom", 50, 48, 10, 32, 2, "rnn")
    assert (r["ranks"], r["threads"], r["shards"]) == (ranks, threads, 16)
    work = 6 * 48**2 + 6 * 48 * 50 + 12 * 48**2
    assert math.isclose(r["gflops"], r["tokens_per_second"] * work / 1e9, rel_tol=1e-9)
    assert math.isclose(r["fraction_of_peak"], r["gflops"] / r["peak_gflops"], rel_tol=1e-9)
    phases = sum(v for k, v in r.items() if k.endswith("_seconds") and k != "step_seconds")
    assert math.isclose(phases, r["step_seconds"], rel_tol=1e-9)
    assert (r["exchange_bandwidth"] is None) == (ranks == 1)
    assert (r["exchange_hidden"] is None) == (ranks == 1)
    assert ranks == 1 or 0 <= r["exchange_hidden"] <= 1
    assert abs(r["loss"] - math.log(50)) < 0.2
PYTHON
check "the JSON object" [ $? -eq 0 ]

# Two layers of four gates each: forward 4 x 650 x 650 weights below (the token's are gathered) and twice as many above,
# and 650 x 10000 of the output, 11,570,000 multiply-adds in all; twice that backward; two operations each.
run 0 "$unroll" bench --json --seconds 1e-6 wordlstm650
python3 - <<'PYTHON'
import json
import math

with open("out", encoding="utf-8") as f:
    (r,) = json.load(f)["configurations"]
sizes = [r[key] for key in ("vocab", "hidden", "steps", "batch", "layers", "cell")]
assert sizes == [10000, 650, 35, 20, 2, "lstm"], sizes
work = r["gflops"] * 1e9 / r["tokens_per_second"]
assert math.isclose(work, 69_420_000, rel_tol=1e-9), work
PYTHON
check "sizes and operations of wordlstm650" [ $? -eq 0 ]

# Of a large vocabulary the rows of at most 4 x 16 tokens travel, not all 5000: of as many reals as there are rows of 48.
run 0 env OMP_NUM_THREADS=1 mpirun -n 2 "$unroll" bench --json --vocab 5000 --hidden 48 --steps 4 --batch 16 --seconds 0.1
python3 - <<'PYTHON'
import json

with open("out", encoding="utf-8") as f:
    (r,) = json.load(f)["configurations"]
dense = 5000 * 48 + 5000 + 48 * 48 + 48  # W_qh, b_q, W_hh, b_h; rows are padded to 16, b_q to 5008
assert dense < r["exchange_bytes"] / 4 <= (dense + 64 * 48) * 1.01, r["exchange_bytes"]
PYTHON
check "bytes of the exchange: rows of the tokens seen" [ $? -eq 0 ]

# ----------------------------------------------------------- the sum alone
run 2 "$unroll" bench --exchange char128
check "no names with --exchange" grep -q 'legal is no NAME' err
run 0 env OMP_NUM_THREADS=1 UNROLL_TEAM=1 mpirun -n 2 "$unroll" bench --exchange --json --seconds 0.01
python3 - <<'PYTHON'
import json

with open("out", encoding="utf-8") as f:
    rows = json.load(f)["exchange"]
assert [r["bytes"] for r in rows] == [4**k for k in range(1, 15)], rows
for r in rows:
    assert r["seconds"] > 0 and r["mpi_seconds"] > 0 and abs(r["bandwidth"] * r["seconds"] / r["bytes"] - 1) < 1e-9
    assert r["sent_bytes"] == r["bytes"], r  # 2 n (P - 1) / P
PYTHON
check "the exchange, from 4 bytes to 256 MiB" [ $? -eq 0 ]

finish
