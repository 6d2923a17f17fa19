# Ranks that were started with different commands, options or texts: one line with the first difference, exit status 2,
# nothing written, nobody left waiting.
. "$(dirname "$0")/lib.sh"

make_text 20000 >text
make_text 30000 >other
common=(text "${tiny[@]}" -o run.h5)

# refused PART... -- COMMAND...: as above, and the line has every part
refused() {
  local parts=() part status line
  while [ "$1" != -- ]; do
    parts+=("$1")
    shift
  done
  shift
  timeout -k 5 60 "$@" </dev/null >out 2>err
  status=$?
  line=$(grep '^unroll' err | grep -v '^unroll: warning: ')
  check "$*: exit status $status: $(cat err)" [ $status = 2 ]
  check "$*: one line: $line" [ "$(wc -l <<<"$line")" = 1 ]
  for part in "${parts[@]}"; do
    check "$*: says nothing of \"$part\": $line" grep -qF -- "$part" <<<"$line"
  done
  check "$*: wrote $(echo run*)" [ "$(echo run*)" = 'run*' ]
}
both() { # OPTION... -- OPTION...: of rank 0 and of rank 1; to $two
  two=("${mpirun_quiet[@]}" -n 1 "$unroll")
  while [ "$1" != -- ]; do
    two+=("$1")
    shift
  done
  shift
  two+=(: -n 1 "$unroll" "$@")
}

both train "${common[@]}" --lr 0.1 -- train "${common[@]}" --lr 0.2
refused '--lr: ' 'rank 0 was started with 0.1' 'rank 1 with 0.2' -- "${two[@]}"
both train text --hidden 8 -o run.h5 -- train text --hidden 16 -o run.h5
refused '--hidden: ' 'with 8' 'with 16' -- "${two[@]}"
both train "${common[@]}" -- train text --hidden 8 --batch 4 --steps 8 --epochs 2 -o run.h5
refused '--epochs: ' 'with 1' 'with 2' -- "${two[@]}"
both train "${common[@]}" -- train "${common[@]}" --seed 1
refused '--seed: ' '1 (not given)' -- "${two[@]}"
both train "${common[@]}" -- bench --seconds 0.01
refused 'command: ' 'with train' 'with bench' -- "${two[@]}"
both train "${common[@]}" -- train other "${tiny[@]}" -o run.h5
refused 'operand 1: ' 'with text' 'with other' -- "${two[@]}"
both train "${common[@]}" -- train text "${common[@]}"
refused 'operand 2: ' 'with none' 'rank 1 with text' -- "${two[@]}"
both train "${common[@]}" -- train "${common[@]}" --hiden 12
refused 'rank 1, not rank 0: ' '--hidden' -- "${two[@]}"
both train "${common[@]}" --hiden 12 -- train "${common[@]}"
refused 'error: ' '--hidden' -- "${two[@]}"
# shellcheck disable=SC2016 # the ranks' shells know their number
refused '--lr: ' 'with 1' 'rank 1 with 2' -- "${mpirun_quiet[@]}" -n 3 sh -c \
  'unroll=$1; shift; exec "$unroll" "$@" --lr $((1 + ${OMPI_COMM_WORLD_RANK:-$PMI_RANK}))' sh "$unroll" train "${common[@]}"

both train "${common[@]}" --lr 0.1 -- train --lr 1e-1 -o run.h5 "${tiny[@]}" text
check "the same in other words is the same" quiet 0 "${two[@]}"
finish
