# What the stories share; sourced by bash with the words SOURCE PROGRAM of the story itself.
# A story works in a new folder, which is removed, and ends with `finish`.
set -u

source_dir=$(cd "$1" && pwd)
unroll=$(realpath "$2")
build_dir=$(dirname "$unroll")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
checks=0 failures=0

# `mpirun` is the launcher of this build. Open MPI's is told not to comment on a status of a rank that is not 0.
export PATH=$build_dir/tests/launcher:$PATH
mpirun_quiet=(mpirun)
if mpirun --version | grep -q -e 'Open MPI' -e OpenRTE; then mpirun_quiet+=(-q); fi

# Where jobs/test.sh has npm put the packages that some tests use.
export NODE_PATH=${NODE_PATH:-$build_dir/node_modules}

# Few cores, many ranks, root in a container.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMP_WAIT_POLICY=passive

skip() {
  echo "skipped: $*"
  exit 77 # SKIP_RETURN_CODE of the test
}

fail() {
  failures=$((failures + 1))
  echo "FAILED: $*"
}

# check WHAT COMMAND...: the command succeeds
check() {
  local what=$1
  shift
  checks=$((checks + 1))
  "$@" || fail "$what"
}

# check_not WHAT COMMAND...: the command fails
check_not() {
  local what=$1
  shift
  checks=$((checks + 1))
  if "$@"; then fail "$what"; fi
}

# quiet STATUS COMMAND...: it ends with this status; what it said is in `out` and `err`
quiet() {
  local expected=$1 status
  shift
  "$@" >out 2>err
  status=$?
  [ $status = "$expected" ] && return
  echo "status $status, expected $expected: $*"
  tail -n 50 out err
  return 1
}

finish() {
  echo "$checks checks, $failures failures"
  [ "$checks" -gt 0 ] && [ "$failures" = 0 ]
  exit
}

# The first python3 that has h5py and NumPy; skips the story without one.
find_python() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import h5py, numpy' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  return 1
}

# What a run file with $python tells: the step of its checkpoint, and whether two are the same, bit for bit, but for times.
step_of() { "$python" -c 'import sys, h5py; print(h5py.File(sys.argv[1], "r")["state"].attrs["step"])' "$1"; }
same_run() { "$python" "$source_dir/tests/story/same_run.py" "$@"; }

# Sanitizers change how much memory a program takes, and valgrind cannot run them.
is_sanitized() { nm "$unroll" | grep -q -e __asan_init -e __tsan_init; }

# make_text BYTES: pseudo-random words in lines, always the same
make_text() {
  awk -v bytes="$1" 'BEGIN {
    split("the a tree gate river stone walks sings turns slowly and or under over bright cold", w, " ")
    for (x = 1; n < bytes; n += length(line) + 1) {
      line = ""
      for (k = 0; k < 8; ++k) {
        x = (x * 16807) % 2147483647
        line = line (k ? " " : "") w[int(x / 1024) % 16 + 1]
      }
      print line "."
    }
  }' | head -c "$1"
}

# A model as small as is useful, trained in well under a second.
tiny=(--hidden 8 --batch 4 --steps 8 --epochs 1)

# need_fma: to ${isas[@]} the instruction sets with FMA that this CPU has, whose bits are the same; needs the file `text`
need_fma() {
  local isa
  isas=()
  for isa in avx512 avx2; do
    if UNROLL_ISA=$isa "$unroll" train text -o isa.h5 --overwrite "${tiny[@]}" --max-steps 1 >/dev/null 2>&1; then
      isas+=("$isa")
    fi
  done
  [ ${#isas[@]} -gt 0 ] || skip "no CPU with FMA: other bits are legal here"
}
