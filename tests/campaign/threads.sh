#!/bin/bash
# The OpenMP code under the thread sanitizer: two threads that touch the same memory without a barrier between them are found,
# whether or not a bit changed this time. clang and libomp, as GCC's libgomp hides its barriers from the sanitizer; libomp tells
# them through Archer, which comes with it.
#
#   threads.sh SOURCE UNROLL FAULT    builds into the folder `threads` beside UNROLL
. "$(dirname "$0")/lib.sh" "$@"
command -v clang >/dev/null || skip "no clang (Debian: clang, libomp-dev)"
build=$build_dir/threads # stays, so that the next time little is compiled

# The one suppression: code without the sanitizer (MPI, HDF5, libomp) is not looked into, as its atomics are not seen.
# Accesses of more than 16 bytes are not seen either, the vectors of AVX: all runs on the portable code path. What
# threads share out is the same there.
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66" UNROLL_ISA=portable
unset ASAN_OPTIONS

# ------------------------------------------------------------- can it find one?
# Each thread writes a vector and reads that of another; with SAFE there is a barrier between, as in a recurrence.
cat >steps.c <<'C'
#include <omp.h>
#include <stdio.h>
typedef float vec __attribute__((vector_size(16)));
int main(void)
{
  vec h[4] = {{0}}, sum[4] = {{0}};
#pragma omp parallel num_threads(4)
  for (int t = 0; t < 100; ++t) {
    const int me = omp_get_thread_num();
    h[me] += (float)t;
#ifdef SAFE
#pragma omp barrier
#endif
    sum[me] += h[(me + 1) % 4];
#ifdef SAFE
#pragma omp barrier
#endif
  }
  printf("%g\n", (double)(sum[0][0] + sum[3][3]));
  return 0;
}
C
options=(-g -O1 -fopenmp -fsanitize=thread)
clang "${options[@]}" steps.c -o race && clang "${options[@]}" -DSAFE steps.c -o safe || skip "clang has no OpenMP or no thread sanitizer"
ARCHER_OPTIONS=verbose=1 ./safe >out 2>&1 || fail "a race where none is: $(tail -n 30 out)"
grep -q 'Archer detected' out || skip "libomp has no Archer, which tells the sanitizer of barriers"
check "a race is found" quiet 66 ./race
check "and named: $(cat err)" grep -q 'data race.*steps.c' err

# ------------------------------------------------------------------ the build
units=(products gradient recurrence softmax update dropout vector_math network score start clip gradflow)
cmake -S "$source_dir" -B "$build" -DCMAKE_C_COMPILER=clang -DUNROLL_SANITIZE=thread >build.log 2>&1 &&
  cmake --build "$build" --parallel "$(getconf _NPROCESSORS_ONLN)" --target unroll_program "${units[@]/#/test_}" >>build.log 2>&1 ||
  fail "build: $(grep -m 3 -A 5 -i error build.log)"
[ -x "$build/unroll" ] || finish

programs=0
# no_race WHAT COMMAND...: the command ends with 0, and the sanitizer said nothing
no_race() {
  local what=$1
  shift
  check "$what: status" quiet 0 "$@"
  check "$what: no race: $(grep -h -A 40 -m 1 'WARNING: ThreadSanitizer' out err)" \
    [ "$(cat out err | grep -c 'WARNING: ThreadSanitizer')" = 0 ]
  programs=$((programs + 1))
}
export OMP_NUM_THREADS=3

# ------------------------------------------------------------------ whole runs
# Of ranks each process is looked at alone: what they share is not.
unroll=$build/unroll
make_text 3000000 >large # more than a block, so that threads scan it together
no_race "a large text" "$unroll" train large --level word --hidden 8 --batch 4 --steps 4 --max-steps 3 --valid-fraction 0 -o large.h5
kinds+=("--embedding 12 --hidden 12 --tied --dropout 0.2 --init orthogonal --bptt randomized --batch 8 --epochs 1 --max-steps 30")
for kind in "${!kinds[@]}"; do
  mkdir "round$kind" && cd "round$kind" || exit 1
  no_race "kind $kind" train "$kind" 2
  cd ..
  no_race "eval, kind $kind" "$unroll" eval "round$kind/run.h5" text
  no_race "sample, kind $kind" "$unroll" sample "round$kind/run.h5" --length 50
  no_race "gradflow, kind $kind" "$unroll" gradflow "round$kind/run.h5" text --lags 8 --positions 16
done
no_race "bench" "$unroll" bench --hidden 32 --batch 8 --steps 8 --seconds 0.1

# ---------------------------------------------------------------- the kernels
# Their tests set the number of threads themselves, from 1 to 5; the others take what is given.
for unit in "${units[@]}"; do
  no_race "$unit" "$build/tests/test_$unit"
done
echo "$programs programs without a race"
finish
