#!/bin/bash
# Each call that brings bytes to the disk fails, one at a time, once or from then on: disk full or broken. The run file is
# valid each time, an error or a warning names file and cause, no temporary file is left, and the run goes on with other ranks to
# the bytes of one that met no fault. Writes that write half are no fault.
#
#   faults.sh SOURCE UNROLL FAULT [all [FIRST [LAST]]]    without `all` a dozen; FIRST to LAST of the list that is printed
. "$(dirname "$0")/lib.sh" "$@"
all=${4-} first=${5:-1} last=${6:-1000000}

# A run that begins, and one that goes on.
model="--cell lstm --hidden 12 --batch 8 --steps 16 --epochs 1"
kinds=("$model --max-steps 12" "$model --max-steps 24")
often=(--checkpoint-every 6 --valid-every 8 --log-every 8 --keep 2)
check "undisturbed" whole 1
mkdir new old
cp text text.kept
(cd old && train 0 2 >/dev/null 2>&1)
check "a run to go on with" [ -f old/run.h5 -a -f old/run.best.h5 -a -f old/run.1.h5 ]
rm -f ranks
steps[old]=$(step_of old/run.h5)

# faulty START FAULT: from that folder on, in the folder `run`; what was hit is in $hit
faulty() {
  rm -rf run trace && cp -r "$1" run && unset 'steps[run]'
  if [ "$1" = old ]; then steps[run]=${steps[old]}; fi
  (
    cd run && export UNROLL_FAULT_RANK=0 UNROLL_FAULT=$2 UNROLL_FAULT_IN=$PWD UNROLL_FAULT_TRACE=$work/trace
    train 1 2 env LD_PRELOAD="$fault"
  ) >log 2>&1
  status=$?
  rm -f ranks
  hit=$(sed -n 's/ hit$//p' trace | head -n 1 | cut -d ' ' -f 3-)
}

# What may fail without a word: another way is taken, or nothing that matters is lost.
is_harmless() {
  case $hit in
  link*) ;;                # copied instead
  "close $work/run") ;;    # the folder, after its fsync
  *" /dev/shm/unroll"*) ;; # memory of each rank's own instead; mapped already
  close*.tmp) ! sed '/ hit$/q' trace | grep -q ' write .*h5[.0-9]*tmp' ;; # no more than an attempt to create a file
  *) return 1 ;;
  esac
}

faults=()
for start in new old; do
  faulty $start none
  check "no fault: from $start: status $status" [ "$status" = 0 ]
  while read -r n call file; do
    for what in ENOSPC EIO ENOSPC+ EIO+; do faults+=("$start $n $what"); done
    # Of a claim half is none.
    if [ "$call" = write ] && [ "$file" != "$PWD/run/.run.claim" ]; then faults+=("$start $n SHORT"); fi
  done < <(sed -n 's/^save \([0-9]*\) /\1 /p' trace)
done
if [ "$all" != all ]; then # a dozen from everywhere
  some=()
  for ((i = 0; i < 12; ++i)); do some+=("${faults[(2 * i + 1) * ${#faults[@]} / 24]}"); done
  faults=("${some[@]}")
fi

# A disk that stays broken is an error, unless it broke behind the last save, where only the log had lines to come.
tells() { [ "$status" = 1 ] || [ "$status" = 2 ] || same_run whole1/run.h5 run/run.h5; }

done=0
declare -A of_call
for ((i = first - 1; i < ${#faults[@]} && i < last; ++i)); do
  read -r start n what <<<"${faults[i]}"
  faulty "$start" "save:$n:$what"
  name="fault $((i + 1)) of ${#faults[@]}, from $start, $what at ${hit/$work/}"
  done=$((done + 1))
  of_call[${hit%% *}]=$((${of_call[${hit%% *}]:-0} + 1))
  echo "$name: status $status: $(grep -m 1 '^unroll: [ew]' log)" >>said
  check "$name: it was hit" [ -n "$hit" ]
  case $what in
  SHORT) check "$name: no fault: $(cat log)" [ "$status" = 0 ] ;;
  *+) check "$name: the status tells: $(tail -n 5 log)" tells ;;
  *) check "$name: the status tells: $(tail -n 5 log)" [ "$status" = 0 -o "$status" = 1 -o "$status" = 2 ] ;;
  esac
  if [ "$what" = SHORT ]; then
    check_not "$name: no word: $(cat log)" grep -q '^unroll: ' log
  elif [[ $what = *+ ]] || ! is_harmless; then
    check "$name: a line names file and cause: $(cat log)" \
      grep -q '^unroll: \(error\|warning\): .*\(run\|claim\|old\).*\(No space left on device\|Input/output error\)' log
  fi
  check "$name: no temporary file: $(ls -A run)" [ "$(find run -name '*.tmp' -o -name '.run.claim' | wc -l)" = 0 ]
  check "$name: the run file is valid" is_valid run
  check "$name: the text is as it was" cmp -s text text.kept
  check "$name: goes on" goes_on 1 $((n % 2 == 0 ? 1 : 4)) run
  # The best model comes once. Where it cannot be written then, the status says so, and the run is what it was.
  if grep -q '^unroll: error: run.best.h5: is not the best model' log; then
    check "$name: a best model is lost: status 1" [ "$status" = 1 ]
    cp whole1/run.best.h5 run
  fi
  check "$name: to the same bytes" is_same 1 run
done
[ "$all" != all ] || cat said
echo "$done faults: $(for call in "${!of_call[@]}"; do echo "$call ${of_call[$call]}"; done | sort | xargs)"
finish
