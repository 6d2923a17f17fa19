#!/bin/bash
# Fuzz each target for some seconds with libFuzzer, from the seeds of seeds.py; prints how often each was executed.
#
#   cmake -S . -B build-fuzz -DCMAKE_C_COMPILER=clang -DUNROLL_FUZZ=ON && make -C build-fuzz fuzzers
#   tests/fuzz/fuzz.sh build-fuzz SECONDS [TARGET...]      targets: options, text, runfile
#
# What was found of interest stays in build-fuzz/fuzz and is where the next call begins; so does the input of a crash, as
# build-fuzz/fuzz/TARGET.crash-*, which `build-fuzz/tests/fuzz_TARGET FILE` repeats.
set -eu
build=$(realpath "$1") seconds=$2
shift 2
[ $# -gt 0 ] || set -- options text runfile
source=$(cd "$(dirname "$0")" && pwd)

work=$build/fuzz
mkdir -p "$work"
[ -d "$work/seeds" ] || python3 "$source/seeds.py" "$build/unroll" "$work/seeds"
export OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 OMPI_MCA_ess_singleton_isolated=1
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm # run files are written thousands of times
status=0
for target in "$@"; do
  mkdir -p "$work/$target"
  log=$work/$target.log
  # -rss_limit_mb, -malloc_limit_mb: nothing here needs a gigabyte
  if "$build/tests/fuzz_$target" "$work/$target" "$work/seeds/$target" -dict="$work/seeds/$target.dict" -max_len=1024 -timeout=30 \
    -rss_limit_mb=2048 -malloc_limit_mb=1024 -max_total_time="$seconds" -artifact_prefix="$work/$target." -print_final_stats=1 >"$log" 2>&1; then
    result=nothing
  else
    result="a fault, see $log" status=1
  fi
  executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  echo "$target: ${executed:-?} executions, $(find "$work/$target" -type f | wc -l) inputs of interest, found: $result"
done
exit $status
