#!/usr/bin/env bash
# From a fresh clone to a trained model in about two minutes: install what is missing, build, train a
# character model on this project's own source code, score text it has not seen, and let it write.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

say() { printf '\n== %s\n' "$*"; }
show() {
  printf '\n$'
  printf ' %q' "$@"
  printf '\n'
  "$@"
}

say "build"
install_missing "$needs_of_build"
build "$root/build" unroll_program -DUNROLL_BUILD_TESTS=OFF

# Two ranks share the cores.
threads=$(($(nproc) / 2))
export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
export PATH=$root/build:$PATH
run=build/quickstart.h5
cd "$root"

say "train on src and include, one to two minutes on two cores"
show mpirun -n 2 --bind-to none unroll train src include \
  --epochs 10 --batch 32 --hidden 256 --log-every 1k --overwrite -o $run

say "score text that it has not seen: the code of the tests"
show unroll eval $run tests/unit

say "let it write"
show unroll sample $run --prime 'static ' --length 400 --temperature 0.7

say "what there is now"
cat <<EOT
$run is the run: weights, curves, settings, vocabulary, where it was made.
${run%.h5}.best.h5 is the same at its best validation, ${run%.h5}.jsonl the curves as JSON lines.

  build/unroll info $run        what it holds, in a page
  h5dump -n $run                what it holds, as HDF5 (package hdf5-tools)

  python3                       (packages python3-h5py, python3-numpy)
  >>> import h5py
  >>> run = h5py.File("$run")
  >>> run["weights/layer0/W_hh"][:].shape
  >>> run["metrics/valid/perplexity"][:]
EOT
