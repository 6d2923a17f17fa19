# What the campaigns share; sourced by bash with the words SOURCE PROGRAM FAULT of the campaign itself, FAULT being the
# library made from fault.c.
fault=$(realpath "$3")
. "$(dirname "${BASH_SOURCE[0]}")/../story/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py and NumPy"
export OMP_NUM_THREADS=1
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 # MPI leaks; fault.c is loaded first

# What a launcher that is killed leaves goes with the folder of the campaign.
mkdir tmp
export TMPDIR=$work/tmp OMPI_MCA_btl_vader_backing_directory=$work/tmp OMPI_MCA_osc_sm_backing_directory=$work/tmp

make_text 30000 >text

# Models and ways to train that write much in little time. A run of each takes less than a second.
often=(--checkpoint-every 3 --valid-every 10 --log-every 5 --keep 2)
kinds=(
  "--hidden 16 --batch 8 --steps 16 --epochs 1 --max-steps 90"
  "--cell lstm --layers 2 --optimizer momentum --hidden 12 --batch 8 --steps 16 --epochs 1 --diagnose-every 20 --max-steps 70"
  "--cell gru --optimizer sgd --lr 0.1 --schedule plateau --level word --hidden 16 --batch 8 --steps 8 --epochs 2"
  "--cell mingru --sequences line --bptt full --partition random --hidden 16 --batch 8 --epochs 1 --max-steps 60"
)

# train KIND RANKS COMMAND...: run.h5 of this folder, or what is left to do of it, each rank started by that command. The
# numbers of the processes are in ../launcher and ../ranks. Nothing here takes two minutes: 124 is a hang.
train() {
  local kind=$1 ranks=$2 options
  shift 2
  read -r -a options <<<"${kinds[kind]}"
  # shellcheck disable=SC2016 # the shells of launcher and ranks know their number
  timeout -k 5 120 sh -c 'echo $$ >../launcher; exec mpirun "$@"' - -n "$ranks" sh -c 'echo $$ >>../ranks; exec "$@"' - "$@" \
    "$unroll" train ../text "${options[@]}" "${often[@]}" -o run.h5 --resume
}

# whole KIND: what an undisturbed run of it gives, in the folder wholeKIND; it took ${took[KIND]} ms
took=()
whole() {
  local status begin=${EPOCHREALTIME/[.,]/}
  [ ! -d "whole$1" ] || return 0
  mkdir "whole$1"
  (cd "whole$1" && quiet 0 train "$1" 1)
  status=$?
  took[$1]=$(((${EPOCHREALTIME/[.,]/} - begin) / 1000))
  rm -f ranks
  return $status
}

# goes_on KIND RANKS FOLDER: to the end
goes_on() {
  local status
  (cd "$3" && quiet 0 train "$1" "$2")
  status=$?
  rm -f ranks
  return $status
}

# The ranks that wrote their number into `ranks` end by themselves when the launcher is gone.
ranks_are_gone() {
  local id tries=0
  [ -f ranks ] || return 0
  while read -r id; do
    while kill -0 "$id" 2>/dev/null && [ $tries -lt 600 ]; do
      sleep 0.05
      tries=$((tries + 1))
    done
    kill -KILL "$id" 2>/dev/null && echo "rank $id was still there after half a minute"
    for shared in /dev/shm/unroll."$id".*; do
      if [ -e "$shared" ]; then echo "shared memory is left: $shared"; fi
      rm -f "$shared"
    done
  done <ranks
  rm -f ranks
  [ $tries -lt 600 ]
}

# is_valid FOLDER: its run file, if there is one, is whole, and is as far as ever: ${steps[FOLDER]}
declare -A steps
is_valid() {
  local step
  [ -e "$1/run.h5" ] || [ -z "${steps[$1]-}" ] || return 1
  [ -e "$1/run.h5" ] || return 0
  "$unroll" eval "$1/run.h5" text >/dev/null || return 1
  step=$(step_of "$1/run.h5")
  [ "$step" -ge "${steps[$1]:-0}" ] || return 1
  steps[$1]=$step
}

# is_same KIND FOLDER: the run of that folder has all bytes of the undisturbed one, its best model too; nothing else is left
is_same() {
  local whole=whole$1 folder=$2 left
  same_run "$whole/run.h5" "$folder/run.h5" || return 1
  for best in "$whole" "$folder"; do
    "$unroll" export "$best/run.best.h5" --safetensors "$best/best" --overwrite >/dev/null || return 1
  done
  cmp "$whole/best" "$folder/best" || return 1
  left=$(cd "$folder" && find . -mindepth 1 ! -name 'run.h5' ! -name 'run.best.h5' ! -name 'run.[12].h5' \
    ! -name run.jsonl ! -name best ! -name out ! -name err)
  [ -z "$left" ] || { echo "left in $folder: $left" && return 1; }
}

# pick N: a number from 0 to N - 1, in $picked, the same in every run of a seed
pick() { picked=$((RANDOM * 32768 + RANDOM)) && picked=$((picked % $1)); }
