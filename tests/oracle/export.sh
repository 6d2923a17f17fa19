#!/bin/bash
# What `unroll export` writes, read by others: safetensors by NumPy and PyTorch, ONNX by its checker, by its operators in
# NumPy and by onnxruntime-node where npm has it (NODE_PATH), the table by Python. What is not there is not checked.
#
#   export.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
for other in "$python" /usr/bin/python3; do # one with PyTorch and ONNX, if there is any
  "$other" -c 'import h5py, numpy, onnx, torch' 2>/dev/null && python=$other && break
done
export OMP_NUM_THREADS=1

# shellcheck disable=SC2317 # called by check
export_py() { "$python" "$source_dir/tests/oracle/export.py" "$@"; }

onnx=yes
"$unroll" export run.h5 --onnx none.onnx 2>&1 | grep -q 'built without' && onnx=
for model in "--layers 1" "--activation relu --layers 2" "--cell lstm --layers 2" "--cell gru --layers 2" "--cell mingru --layers 2" \
  "--embedding 9 --cell gru" "--embedding 30 --layers 2" "--embedding 9 --cell mingru" \
  "--embedding 20 --tied --cell lstm"; do
  # shellcheck disable=SC2086 # options and their values
  check "training, $model" train text $model --hidden 20 --batch 8 --steps 9 --epochs 4 --lr 5e-3 --log-every 50
  check "export, $model" quiet 0 "$unroll" export run.h5 --overwrite --safetensors a.safetensors --csv a.csv
  check "safetensors, $model" export_py safetensors a.safetensors other "$(loss_of other 1)"
  check "csv, $model" export_py csv a.csv
  [ -n "$onnx" ] || continue
  "$unroll" sample run.h5 --temperature 0 --length 60 >sampled
  truncate -s -1 sampled # the line end behind it
  check "onnx, $model" quiet 0 "$unroll" export run.h5 --overwrite --onnx a.onnx
  export_py onnx a.onnx other sampled >said
  status=$?
  cat said
  [ $status = 77 ] || check "onnx, $model" [ $status = 0 ]
done
[ -n "$onnx" ] || echo "built without protobuf-c: no ONNX was written"
finish
