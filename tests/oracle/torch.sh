#!/bin/bash
# The program against PyTorch, which has the weights of the run file by the snippet of jobs/guides/analyse.md.
#
#   torch.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
"$python" -c 'import torch' 2>/dev/null || skip "no PyTorch for $python (on Debian: apt-get install python3-torch)"

# torch COMMAND ARGUMENT...
# shellcheck disable=SC2317 # called by check
torch() {
  local command=$1
  shift
  OMP_NUM_THREADS=1 "$python" "$source_dir/tests/oracle/torch_snippet.py" "$command" "$source_dir/jobs/guides/analyse.md" "$@"
}

check "the oracle in NumPy agrees with PyTorch" torch self

for option in "--activation tanh" "--activation relu" "--cell lstm" "--cell gru"; do
  for layers in 1 3; do
    model="$option --layers $layers" cell=rnn
    case $option in --cell*) cell=${option#* } ;; esac
    # shellcheck disable=SC2086 # options and their values
    check "training, $model" train text $model --hidden 40 --batch 8 --steps 9 --epochs 4 --lr 5e-3
    for streams in 1 5; do
      check "loss, $model, $streams streams" torch eval "$cell" other $streams "$(loss_of other $streams)"
    done
  done
done

finish
