#!/bin/bash
# chain.sh: jobs that each go on where the one before has saved, with both scripts, to the bits of an undisturbed run,
# then a command; and a chain that is too short, whose command is taken from the queue.
#
#   chain.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
need_slurm
start_slurm

# What chain.sh prints: the jobs, in order, as ids[].
# shellcheck disable=SC2317 # called by check
chain() {
  local folder=$1 lines
  shift
  lines=$(cd "$folder" && "$source_dir/jobs/slurm/chain.sh" "$@") || return
  echo "$lines"
  mapfile -t ids < <(cut -d : -f 1 <<<"$lines")
}

# The chain's jobs have the sbatch options that a user would write into the script.
for script in train train-mpirun; do
  edit $script $script.sbatch -e "/^#SBATCH --nodes/s/.*/#SBATCH ${two_hosts[*]}/" \
    -e '/^#SBATCH --\(cpus\|mem\)-per/d' -e 's/--output=[^ ]*/--output=out/'
done
check "a chain of two and a command" chain train 2 train.sbatch 'unroll eval --json run.h5 corpus.txt >score'
check "three jobs" [ ${#ids[@]} = 3 ]
full=("${ids[@]}")
check "a chain of one, and a command" chain train-mpirun 1 train-mpirun.sbatch 'touch too_early'
short=("${ids[@]}")

job[train]=${full[0]} job[train-mpirun]=${short[0]}
check "srun trains" reports train
check "mpirun trains" reports train-mpirun
job[next]=${full[1]}
check "the second job waits" is next PENDING
scancel --signal=USR1 "${job[train]}"
scancel --batch --signal=USR1 "${job[train-mpirun]}"
check "srun: saved, 75" ends train FAILED 75:0
# As if that job had been lost with its node: what it claimed is still claimed, on a host of which nothing is known.
printf 'unroll writes this run\nhost lost\nspace 1\nprocess 1\nborn 1\njob Slurm:%s\nlife 0\nsince 2026-01-31T12:34:56Z\n' \
  "${full[0]}" >train/.run.claim
further train
check "mpirun: saved, 75" ends train-mpirun FAILED 75:0

job[train]=${full[1]}
check "the second job ends it" ends train COMPLETED 0:0
check "no claim is left" [ ! -e train/.run.claim ]
check "the bits of an undisturbed run" same_bits train
job[train]=${full[2]}
check "the command has run" ends train COMPLETED 0:0
check "and written" grep -q '"perplexity"' train/score

job[end]=${short[1]}
check "the command of the short chain is taken away" await 60 is end CANCELLED
check "and did not run" [ ! -e train-mpirun/too_early ]
further train-mpirun
check "one more job" chain train-mpirun 1 train-mpirun.sbatch
job[train-mpirun]=${ids[0]}
check "ends it" ends train-mpirun COMPLETED 0:0
check "the bits of an undisturbed run" same_bits train-mpirun

check_not "no number of jobs" chain train many train.sbatch

# An sbatch that refuses job number $refused: the chain ends there, with its status, and names those that there are.
mkdir refusing
cat >refusing/sbatch <<'SCRIPT'
#!/bin/bash
echo "$*" >>calls
if [ "$(wc -l <calls)" = "$refused" ]; then echo "sbatch: error: refused" >&2; exit 3; fi
echo 17
SCRIPT
chmod +x refusing/sbatch
for refused in 1 2 3; do
  rm -f calls
  check "job $refused is refused" quiet 3 env PATH="$work/refusing:$PATH" refused=$refused \
    "$source_dir/jobs/slurm/chain.sh" 2 train.sbatch true
  check "job $refused is refused: the jobs before it" [ "$(grep -c '^17: ' out) $(wc -l <out)" = "$((refused - 1)) $((refused - 1))" ]
done
finish
