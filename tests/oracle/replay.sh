#!/bin/bash
# 50 updates behind a checkpoint, over the end of an epoch, in NumPy and, where there is one, in PyTorch, from the words of
# src/runfile/README.md: losses agree with those of `unroll train` to 1e-4.
#
#   replay.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
replay=$source_dir/tests/oracle/replay.py
export OMP_NUM_THREADS=1
torch=
for other in python3 /usr/bin/python3; do
  "$other" -c 'import h5py, torch' 2>/dev/null && torch=$other && break
done
[ -n "$torch" ] || echo "no PyTorch (on Debian: apt-get install python3-torch): in NumPy alone"

# goes_on OPTION...: to update 30, kept as from.h5, and to update 80, an epoch being 63 or 72 of them
goes_on() {
  rm -f run.h5 run.jsonl run.best.h5
  quiet 0 "$unroll" train text -o run.h5 --hidden 20 --batch 5 --epochs 3 --max-steps 30 --log-every 1 "$@" &&
    cp run.h5 from.h5 && quiet 0 "$unroll" train --resume -o run.h5 --max-steps 80
}

# goes_on_elsewhere NAME OPTION...: NumPy and PyTorch, from the run file alone, have the losses of the run itself
goes_on_elsewhere() {
  local name=$1
  shift
  check "training, $name" goes_on "$@"
  "$python" "$replay" numpy from.h5 text 50 >rows
  check "in NumPy, $name" "$python" "$replay" compare rows run.h5 50
  [ -n "$torch" ] || return 0
  case $name in # to start PyTorch takes seconds, and optimizers are the same for all cells
  rnn*momentum* | lstm*momentum* | mingru*sgd* | mingru*momentum*) return 0 ;;
  esac
  "$torch" "$source_dir/jobs/analysis/continue_torch.py" from.h5 text --updates 50 >rows
  check "in PyTorch, $name" "$python" "$replay" compare rows run.h5 50
}

for cell in rnn lstm gru mingru; do
  for options in "--steps 16 --optimizer sgd --lr 0.5 --clip 0.3" "--steps 16 --optimizer adam --lr 1e-2 --layers 2 --warmup 35 --weight-decay 0.5" \
    "--steps 20 --stride 18 --optimizer momentum --lr 0.05 --schedule constant --weight-decay 0.1"; do
    read -r -a words <<<"$options"
    goes_on_elsewhere "$cell, $options" --cell "$cell" "${words[@]}"
  done
done
for embedding in "--embedding 9" "--embedding 20 --tied"; do
  read -r -a words <<<"$embedding --steps 16 --optimizer adam --lr 1e-2 --layers 2"
  goes_on_elsewhere "$embedding" "${words[@]}"
done
if [ -n "$torch" ]; then
  check "training with masks" goes_on --dropout 0.2
  check "masks are not drawn elsewhere" quiet 1 "$torch" "$source_dir/jobs/analysis/continue_torch.py" from.h5 text
  check "that is said" grep -q 'dropout is on' err
fi
finish
