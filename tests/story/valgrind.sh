# One short training run, an evaluation and a sample under valgrind: no error and no leak of ours.
. "$(dirname "$0")/lib.sh"
command -v valgrind >/dev/null || skip "no valgrind"
if is_sanitized; then skip "built with a sanitizer"; fi
if ! grep -q '\bavx2\b' /proc/cpuinfo; then skip "no AVX2"; fi

export UNROLL_ISA=avx2 # valgrind knows no AVX-512
export OMP_NUM_THREADS=2
make_text 3000 >text

clean() {
  local log=$work/valgrind.$checks
  check "$*" timeout 500 "${launch[@]}" valgrind --quiet --keep-debuginfo=yes --num-callers=60 --error-exitcode=99 --leak-check=full \
    --show-leak-kinds=definite,indirect,possible --errors-for-leak-kinds=definite,indirect,possible \
    --suppressions="$source_dir/tests/valgrind.supp" --log-file="$log.%p" "$unroll" "$@" >out 2>&1
  for log in "$log".*; do
    if [ -s "$log" ]; then
      fail "valgrind on $*"
      head -50 "$log"
    fi
  done
}
launch=()
clean train text "${tiny[@]}" --layers 2 --max-steps 8 --checkpoint-every 4 --keep 1 -o run.h5
clean train text --resume -o run.h5 --max-steps 10
clean eval run.h5 text
clean sample run.h5 --length 20 --prime the
clean info run.h5
launch=(mpirun -n 2)
clean train text "${tiny[@]}" --max-steps 4 --level word --optimizer sgd -o two.h5
finish
